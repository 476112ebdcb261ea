"""VGG-19 through timm: conv4_4, in which Eq. 5 compares a painting with its photo, and shallower layers."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sdpgan_hub.errors import SDPGANError

TIMM_MODEL = "vgg19.tv_in1k"
CONV4_4 = 25
"""Its index in timm's `features`; its ReLU is the next one."""
HEAD_LAYERS = (3, 8, 17, CONV4_4)
"""relu1_2, relu2_2, relu3_4 and conv4_4: what the projected discriminator judges."""


def memory_format(device: torch.device) -> torch.memory_format:
    """Of networks and images in training: channels_last, but on a CPU without AVX-512, where it was slower."""
    slower = device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"
    return torch.contiguous_format if slower else torch.channels_last


class PerceptualFeatures(nn.Module):
    """conv4_4 of an ImageNet VGG-19 before its ReLU (Simonyan and Zisserman, 2015); frozen.

    N x 3 x H x W, RGB in [-1, 1], to N x 512 x H/8 x W/8. w_con depends on the scale of these features, so a style
    says which weights it was trained with (`source`).

    Args:
        weights: a safetensors file with timm's key names (`features.N.weight`); None lets timm download
            `vgg19.tv_in1k`.

    Raises:
        SDPGANError: the file or the download cannot be had, or it is not VGG-19 up to conv4_4.
    """

    def __init__(self, weights: str | Path | None = None):
        super().__init__()
        if weights is None:
            self.source = f"timm {TIMM_MODEL}"
            try:
                network = timm.create_model(TIMM_MODEL, pretrained=True)
            except Exception as error:  # every kind of network failure, from several libraries
                raise SDPGANError(
                    f"timm could not download {TIMM_MODEL} ({type(error).__name__}); pass a file with --vgg_weights."
                ) from error
            self.layers = network.features[: CONV4_4 + 1]
        else:
            self.source = Path(weights).name
            with torch.device("meta"):
                network = timm.create_model(TIMM_MODEL, pretrained=False)
            self.layers = network.features[: CONV4_4 + 1]
            self.layers.load_state_dict(_read(Path(weights), self.layers.state_dict()), assign=True)
        self.requires_grad_(False).eval()
        for name in ("mean", "std"):
            value = torch.tensor(network.pretrained_cfg[name]).view(1, 3, 1, 1)
            self.register_buffer(name, value, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(self._normalized(image))

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """The features of `HEAD_LAYERS`, N x C x h x w each; the last is what `forward` gives."""
        features, kept = self._normalized(image), []
        for number, layer in enumerate(self.layers):
            features = layer(features)
            if number in HEAD_LAYERS:
                kept.append(features)
        return kept

    def _normalized(self, image: Tensor) -> Tensor:
        return ((image + 1) / 2 - self.mean) / self.std


def _read(path: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise SDPGANError(f"{path} is not a readable safetensors file with VGG-19's weights ({error}).") from error
    state = {name: tensors[f"features.{name}"].float() for name in expected if f"features.{name}" in tensors}
    wrong = [name for name in expected if name not in state or state[name].shape != expected[name].shape]
    if wrong:
        raise SDPGANError(f"{path} lacks VGG-19's features.{wrong[0]} in the right shape; timm's key names are needed.")
    return state
