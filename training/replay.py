"""Earlier generated images for the discriminator (Shrivastava et al., CVPR 2017, Sec. 2.3; CycleGAN's image pool)."""

from __future__ import annotations

import torch
from torch import Tensor


class ReplayBuffer:
    """The last images that D has seen as fakes, so that it does not forget what G has moved away from.

    Without it, D and G chase each other through palettes: D learns that ochre is fake, G turns everything blue, D
    forgets ochre. Once the buffer holds `size` images, each generated image is, with probability 1/2, put in the place of
    a random one, which D sees instead. Images are kept in float16; randomness is torch's, so checkpoints hold all of it.

    Args:
        size: images to keep; 0 hands every batch through.
    """

    def __init__(self, size: int):
        self.size = size
        self.images: list[Tensor] = []

    def __call__(self, generated: Tensor) -> Tensor:
        """N x 3 x H x W just generated, detached, to N x 3 x H x W for D."""
        if self.size == 0:
            return generated
        shown = []
        for image in generated:
            if len(self.images) < self.size:
                self.images.append(image.half())
            elif torch.rand(()) < 0.5:
                place = int(torch.randint(self.size, ()))
                image, self.images[place] = self.images[place].to(image), image.half()
            shown.append(image)
        return torch.stack(shown).contiguous(memory_format=torch.channels_last)

    def state_dict(self) -> dict[str, Tensor]:
        return {"images": torch.stack(self.images)} if self.images else {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.images = list(state["images"]) if "images" in state else []
