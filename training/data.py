"""Unpaired photos and paintings, with what `prepare.py` has cached for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from sdpgan_hub.errors import SDPGANError

from .prepare import edge_blurred_path, read_rgb, readable_path, saliency_path
from .sources import Source, Streamed, open_source

FEW_IMAGES = 20
LARGEST_SHARE_TOO_SMALL = 0.1
NAMES_IN_A_MESSAGE = 3


def check(
    photos: str | Path | Source,
    paintings: str | Path | Source,
    image_size: int,
    crop_size: int,
    cache: str | Path | None = None,
) -> list[str]:
    """What is wrong with a training's images: SDPGANError for what it cannot go on with, one-sentence warnings else.

    Reads headers only. cache: where `training.sources.fetch` has put streamed sources; those not there are not looked
    into. Refused are a source without a readable image, one source as both, and a single painting: D would learn the
    picture, not a style. Fewer than 20 images are a warning, as a few do train, to something narrow (the paper's
    smallest collection has 401). An image whose shorter side is below the crop is scaled up, which blurs: a warning;
    below half of the crop a refusal where they are more than one in ten, and a warning where they are strays.
    """
    if crop_size > image_size:
        raise SDPGANError(f"crop_size {crop_size} is larger than image_size {image_size}; lower it.")
    opened = {"photos": open_source(photos), "paintings": open_source(paintings)}
    if opened["photos"] == opened["paintings"]:
        raise SDPGANError(f"{photos} is given as both photos and paintings; one of them has to be something else.")
    warnings = []
    for kind, source in opened.items():
        if not isinstance(source, Streamed) or (cache is not None and source.folder(cache).is_dir()):
            warnings += _check_source(kind, source, cache or "", image_size, crop_size)
    return warnings


def _check_source(kind: str, source: Source, cache: str | Path, image_size: int, crop_size: int) -> list[str]:
    files = source.files(cache)
    sides = {file: _shorter_side(file) for file in files}
    unreadable = [file for file, side in sides.items() if side is None]
    readable = len(files) - len(unreadable)
    if not readable:
        raise SDPGANError(f"None of the {len(files)} {kind} of {source} can be read.")
    if kind == "paintings" and readable < 2:
        raise SDPGANError(f"{source} holds one painting; a style is learned from at least 2, better from hundreds.")
    warnings = []
    missing = [] if isinstance(source, Streamed) else source.missing()
    for paths, what in ((missing, "found"), (unreadable, "read")):
        if paths:
            warnings.append(f"{len(paths)} of the {kind} of {source} cannot be {what}, skipped: {_some(paths)}.")
    if readable < FEW_IMAGES:
        warnings.append(f"{source} holds only {readable} {kind}; hundreds make a style that fits any photo.")
    smaller = [file for file, side in sides.items() if side is not None and side < crop_size]
    tiny = [file for file in smaller if sides[file] < crop_size / 2]
    if len(tiny) > LARGEST_SHARE_TOO_SMALL * readable:
        raise SDPGANError(
            f"The shorter side of {len(tiny)} of {readable} {kind} of {source} is below half the crop, {crop_size} px "
            f"({_some(tiny)}); lower crop_size and image_size, or give larger ones."
        )
    if smaller:
        scale = image_size / min(sides[file] for file in smaller)
        warnings.append(
            f"The shorter side of {len(smaller)} of {readable} {kind} of {source} is below the crop of {crop_size} px, "
            f"which makes them blurred, scaled up by {scale:.1f} at most: {_some(smaller)}."
        )
    return warnings


def _shorter_side(file: Path) -> int | None:
    try:
        with Image.open(file) as image:
            return min(image.size)
    except Exception:  # whatever a broken header makes a decoder do
        return None


def _some(paths: list[Path]) -> str:
    more = len(paths) - NAMES_IN_A_MESSAGE
    return ", ".join(str(path) for path in paths[:NAMES_IN_A_MESSAGE]) + (f" and {more} more" if more > 0 else "")


class UnpairedImages(Dataset):
    """Sample n of a training: a photo x, its saliency reference z, a painting y and its edge-blurred copy c.

    Every sample is a function of its number and the seed alone, so a resumed run, any number of workers and any number
    of processes see the same data in the same order. Sample n shows photo n mod N of the permutation of epoch n div N,
    and a painting drawn at random. Images are scaled so that the shorter side is `image_size`, cropped at random to
    `crop_size` and mirrored half of the time; y and c share their crop. photos, paintings: sources as in
    training/sources.py, prepared in `cache` by training/prepare.py; what has no result there is left out.
    references: False for a training without S and mask; there is no z then, and nothing else changes.

    Gives float32 tensors: photo, painting, edge_blurred 3 x crop x crop in [-1, 1]; reference 1 x crop x crop in
    [0, 1].
    """

    def __init__(
        self,
        photos: str | Path | Source,
        paintings: str | Path | Source,
        cache: str | Path,
        image_size: int = 256,
        crop_size: int = 256,
        seed: int = 0,
        references: bool = True,
    ):
        self.photos_source, self.paintings_source, self.cache = open_source(photos), open_source(paintings), Path(cache)
        if crop_size > image_size:
            raise SDPGANError(f"crop_size {crop_size} is larger than image_size {image_size}; lower it.")
        self.image_size, self.crop_size, self.seed, self.references = image_size, crop_size, seed, references
        prepared = saliency_path if references else readable_path
        files = self.photos_source.files(self.cache)
        self.photos = [path for path in files if prepared(self.cache, self.photos_source, path).exists()]
        self.paintings = [path for path in self.paintings_source.files(self.cache) if self._blurred_path(path).exists()]
        for found, source in ((self.photos, photos), (self.paintings, paintings)):
            if not found:
                raise SDPGANError(f"{source} holds no image that training/prepare.py has prepared in {cache}.")

    def __len__(self) -> int:
        """Photos in an epoch."""
        return len(self.photos)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        epoch, position = divmod(number, len(self.photos))
        random = np.random.default_rng((self.seed, number))
        path = self.photos[self._order(epoch)[position]]
        painting_path = self.paintings[random.integers(len(self.paintings))]

        photo, *reference = self._crop(random, read_rgb(path), *self._reference(path))
        painting = read_rgb(painting_path)
        edge_blurred = _read_cached(self._blurred_path(painting_path), cv2.IMREAD_COLOR)
        painting, edge_blurred = self._crop(random, painting, edge_blurred)
        sample = {"photo": _signed(photo), "painting": _signed(painting), "edge_blurred": _signed(edge_blurred)}
        if reference:
            sample["reference"] = torch.from_numpy(reference[0]).float().div(255)[None]
        return sample

    def _reference(self, photo: Path) -> list[np.ndarray]:
        """The photo's saliency reference, uint8 H x W, where there are any."""
        if not self.references:
            return []
        return [_read_cached(saliency_path(self.cache, self.photos_source, photo), cv2.IMREAD_GRAYSCALE)]

    def _blurred_path(self, painting: Path) -> Path:
        return edge_blurred_path(self.cache, self.paintings_source, painting)

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
