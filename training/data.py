"""Unpaired photos and paintings, with what `prepare.py` has cached for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from sdpgan_hub.errors import SDPGANError

from .prepare import edge_blurred_path, image_files, read_rgb, saliency_path


class UnpairedImages(Dataset):
    """Sample n of a training: a photo x, its saliency reference z, a painting y and its edge-blurred copy c.

    Every sample is a function of its number and the seed alone, so a resumed run, any number of workers and any number
    of processes see the same data in the same order. Sample n shows photo n mod N of the permutation of epoch n div N,
    and a painting drawn at random. Images are scaled so that the shorter side is `image_size`, cropped at random to
    `crop_size` and mirrored half of the time; y and c share their crop.

    Gives float32 tensors: photo, painting, edge_blurred 3 x crop x crop in [-1, 1]; reference 1 x crop x crop in
    [0, 1].
    """

    def __init__(
        self,
        photos: str | Path,
        paintings: str | Path,
        cache: str | Path,
        image_size: int = 256,
        crop_size: int = 256,
        seed: int = 0,
    ):
        self.photos_root, self.paintings_root, self.cache = Path(photos), Path(paintings), Path(cache)
        if crop_size > image_size:
            raise SDPGANError(f"crop_size {crop_size} is larger than image_size {image_size}; lower it.")
        self.image_size, self.crop_size, self.seed = image_size, crop_size, seed
        self.photos = [
            path for path in image_files(self.photos_root) if saliency_path(self.cache, self.photos_root, path).exists()
        ]
        self.paintings = [
            path
            for path in image_files(self.paintings_root)
            if edge_blurred_path(self.cache, self.paintings_root, path).exists()
        ]
        for found, folder in ((self.photos, photos), (self.paintings, paintings)):
            if not found:
                raise SDPGANError(f"{folder} holds no image that training/prepare.py has prepared in {cache}.")

    def __len__(self) -> int:
        """Photos in an epoch."""
        return len(self.photos)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        epoch, position = divmod(number, len(self.photos))
        random = np.random.default_rng((self.seed, number))
        path = self.photos[self._order(epoch)[position]]
        painting_path = self.paintings[random.integers(len(self.paintings))]

        photo = read_rgb(path)
        reference = _read_cached(saliency_path(self.cache, self.photos_root, path), cv2.IMREAD_GRAYSCALE)
        photo, reference = self._crop(random, photo, reference)
        painting = read_rgb(painting_path)
        edge_blurred = _read_cached(edge_blurred_path(self.cache, self.paintings_root, painting_path), cv2.IMREAD_COLOR)
        painting, edge_blurred = self._crop(random, painting, edge_blurred)
        return {
            "photo": _signed(photo),
            "reference": torch.from_numpy(reference).float().div(255)[None],
            "painting": _signed(painting),
            "edge_blurred": _signed(edge_blurred),
        }

    def _order(self, epoch: int) -> np.ndarray:
        if getattr(self, "_ordered_epoch", None) != epoch:
            self._ordered_epoch = epoch
            self._permutation = np.random.default_rng((self.seed, 2**32, epoch)).permutation(len(self.photos))
        return self._permutation

    def _crop(self, random: np.random.Generator, *images: np.ndarray) -> list[np.ndarray]:
        """The same scaling, random crop and random mirroring of images of equal size."""
        height, width = images[0].shape[:2]
        scale = self.image_size / min(height, width)
        height, width = max(self.image_size, round(height * scale)), max(self.image_size, round(width * scale))
        top = random.integers(height - self.crop_size + 1)
        left = random.integers(width - self.crop_size + 1)
        mirror = random.random() < 0.5
        crops = []
        for image in images:
            if image.shape[:2] != (height, width):
                method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
                image = cv2.resize(image, (width, height), interpolation=method)
            image = image[top : top + self.crop_size, left : left + self.crop_size]
            crops.append(np.ascontiguousarray(image[:, ::-1] if mirror else image))
        return crops


class SampleNumbers(Sampler[int]):
    """The numbers `start` .. `stop` - 1 in order: what is left of a training."""

    def __init__(self, start: int, stop: int):
        self.numbers = range(start, stop)

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)


def _read_cached(path: Path, flags: int) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), flags)
    if image is None:
        raise SDPGANError(f"{path} cannot be read; delete it and run training/prepare.py again.")
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _signed(image: np.ndarray) -> Tensor:
    """uint8 H x W x 3 to float32 3 x H x W in [-1, 1]."""
    return torch.from_numpy(image).permute(2, 0, 1).float().div(127.5).sub(1)
