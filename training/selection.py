"""Which weights of a run become the style: a number for them on photos and paintings that it is not trained on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sdpgan_hub import SDPGAN
from sdpgan_hub.errors import SDPGANError

from .perceptual import PerceptualFeatures, memory_format
from .pictures import read_scaled
from .prepare import image_files


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy of two samples under k(a, b) = (a . b / d + 1)^3.

    The formula of the Kernel Inception Distance (Binkowski et al., ICLR 2018, Sec. 4), on whatever features are given:
    n x d and m x d, n and m at least 2. 0 for equal distributions on average; a little below 0 by chance.
    """
    x, y = x.double(), y.double()

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def without_diagonal(matrix: Tensor) -> Tensor:
        return (matrix.sum() - matrix.trace()) / (len(matrix) * (len(matrix) - 1))

    return float(without_diagonal(kernel(x, x)) + without_diagonal(kernel(y, y)) - 2 * kernel(x, y).mean())


class Validation:
    """Measures a model on validation photos and paintings with the VGG-19 of the training.

    Every image is scaled so that its shorter side is `image_size` and cropped to `crop_size` about its middle. Features
    are conv4_4 averaged over the pixels, 512 numbers an image; so this is no KID, whose features are another network's.

    Raises:
        SDPGANError: a folder holds fewer than two images, or one that cannot be read.
    """

    def __init__(
        self, photos: Path, paintings: Path, vgg: PerceptualFeatures, image_size: int, crop_size: int, batch_size: int
    ):
        self.photos, self.vgg, self.batch_size = image_files(photos), vgg, batch_size
        self.image_size, self.crop_size = image_size, crop_size
        paintings_found = image_files(paintings)
        for folder, found in ((photos, self.photos), (paintings, paintings_found)):
            if len(found) < 2:
                raise SDPGANError(f"{folder} holds {len(found)} image; a kernel distance needs at least 2, better 100.")
        self.painting_features = self._pooled(self._batches(paintings_found))

    @torch.no_grad()
    def __call__(self, model: SDPGAN) -> dict[str, float]:
        """kernel_distance: from G(x) to the paintings, lower is more like them. content: the mean distance of VGG(G(x))
        to VGG(x), Eq. 5 without the mask, lower is more like the photo. A model in evaluation mode is expected."""
        stylized_features, content = [], []
        for photos in self._batches(self.photos):
            stylized = self.vgg(model(photos)[0])
            content += (stylized - self.vgg(photos)).abs().mean((1, 2, 3)).tolist()
            stylized_features.append(stylized.mean((2, 3)))
        distance = kernel_distance(torch.cat(stylized_features), self.painting_features)
        return {"kernel_distance": distance, "content": float(np.mean(content))}

    @torch.no_grad()
    def _pooled(self, batches: Iterator[Tensor]) -> Tensor:
        return torch.cat([self.vgg(batch).mean((2, 3)) for batch in batches])

    def _batches(self, paths: list[Path]) -> Iterator[Tensor]:
        for first in range(0, len(paths), self.batch_size):
            images = np.stack([self._crop(path) for path in paths[first : first + self.batch_size]])
            signed = torch.from_numpy(images).to(self.vgg.mean.device).permute(0, 3, 1, 2).float().div(127.5).sub(1)
            yield signed.contiguous(memory_format=memory_format(signed.device))

    def _crop(self, path: Path) -> np.ndarray:
        image = read_scaled(path, self.image_size)
        top, left = ((side - self.crop_size) // 2 for side in image.shape[:2])
        return image[top : top + self.crop_size, left : left + self.crop_size]
