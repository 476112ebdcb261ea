"""Unpaired photos and paintings, with what `prepare.py` has cached for them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sdpgan_hub.errors import SDPGANError
from sdpgan_hub.files import opened, read_rgb

from ..run.config import TrainingConfig
from .cache import PAINTINGS_READ, PHOTOS_READ, SALIENCY, result_path
from .pictures import scaled
from .sources import HubDataset, Source, open_source

FEW_IMAGES = 20
LARGEST_SHARE_TOO_SMALL = 0.1
NAMES_IN_A_MESSAGE = 3
MAX_ENLARGEMENT = 1.5
"""Paintings are enlarged by no more than this: blurred ones would teach D that a blur is a brushstroke."""
CANNY_THRESHOLDS = (100, 200)
DILATION_SIZE = 5
GAUSSIAN_SIZE = 5


def check(
    photos: str | Path | Source,
    paintings: str | Path | Source,
    crop_size: int,
    cache: str | Path = "",
) -> list[str]:
    """What is wrong with a training's images: SDPGANError for what it cannot go on with, one-sentence warnings else.

    Reads headers only. cache: where `sources.fetch` has put streamed sources; those not there are not looked
    into. Refused are a source without a readable image, one source as both, and a single painting: D would learn the
    picture, not a style. Fewer than 20 images are a warning, as a few do train, to something narrow (the paper's
    smallest collection has 401). An image whose shorter side is below the crop is scaled up, which blurs: a warning;
    below half of the crop a refusal where they are more than one in ten, and a warning where they are strays.
    """
    if os.path.abspath(str(photos)) == os.path.abspath(str(paintings)):
        raise SDPGANError(f"{photos} is given as both photos and paintings; one of them has to be something else.")
    warnings = []
    for kind, given in (("photos", photos), ("paintings", paintings)):
        source = open_source(given)
        if not isinstance(source, HubDataset) or source.folder(cache).is_dir():
            warnings += _check_source(kind, source, cache, crop_size)
    return warnings


def _check_source(kind: str, source: Source, cache: str | Path, crop_size: int) -> list[str]:
    files = source.files(cache)
    sides = {file: side for file in files if (side := _shorter_side(file)) is not None}
    unreadable, readable = [file for file in files if file not in sides], len(sides)
    if not readable:
        raise SDPGANError(f"None of the {len(files)} {kind} of {source} can be read.")
    if kind == "paintings" and readable < 2:
        raise SDPGANError(f"{source} holds one painting; a style is learned from at least 2, better from hundreds.")
    warnings = []
    for paths, what in ((source.missing(), "found"), (unreadable, "read")):
        if paths:
            warnings.append(f"{len(paths)} of the {kind} of {source} cannot be {what}, skipped: {_some(paths)}.")
    if readable < FEW_IMAGES:
        warnings.append(f"{source} holds only {readable} {kind}; hundreds make a style that fits any photo.")
    smaller = [file for file, side in sides.items() if side < crop_size]
    tiny = [file for file in smaller if sides[file] < crop_size / 2]
    if len(tiny) > LARGEST_SHARE_TOO_SMALL * readable:
        raise SDPGANError(
            f"The shorter side of {len(tiny)} of {readable} {kind} of {source} is below half the crop, {crop_size} px "
            f"({_some(tiny)}); lower crop_size and image_size, or give larger ones."
        )
    if smaller:
        warnings.append(
            f"The shorter side of {len(smaller)} of {readable} {kind} of {source} is below the crop of {crop_size} px, "
            f"to which they are scaled up, blurred: {_some(smaller)}."
        )
    return warnings


def _shorter_side(file: Path) -> int | None:
    try:
        with opened(file) as image:
            return min(image.size)
    except Exception:  # whatever a broken header makes a decoder do
        return None


def _some(paths: list[Path]) -> str:
    more = len(paths) - NAMES_IN_A_MESSAGE
    return ", ".join(str(path) for path in paths[:NAMES_IN_A_MESSAGE]) + (f" and {more} more" if more > 0 else "")


def edge_blurred(image: np.ndarray) -> np.ndarray:
    """Remove an image's clear edges: Canny, dilation, Gaussian smoothing inside the dilated edges (Sec. III-B).

    image: uint8 H x W x 3, RGB. Returns a new array of the same shape and type, equal to `image` outside the dilated
    edges. The 5 x 5 sizes are CartoonGAN's (reference 8 of the paper), the Gaussian's sigma is OpenCV's rule, 1.1 px.
    Canny takes the image as it is: in a smoothed one it finds outlines only, and the brushwork stays sharp in what D
    learns to reject.
    """
    edges = cv2.Canny(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), *CANNY_THRESHOLDS)
    near_edges = cv2.dilate(edges, np.ones((DILATION_SIZE, DILATION_SIZE), np.uint8)) > 0
    smooth = cv2.GaussianBlur(image, (GAUSSIAN_SIZE, GAUSSIAN_SIZE), 0)
    return np.where(near_edges[..., None], smooth, image)


class UnpairedImages(Dataset):
    """Sample n of a training: a photo x, its saliency reference z, a painting y and its edge-blurred copy c.

    Every sample is a function of its number and the seed alone, so a resumed run, any number of workers and any number
    of processes see the same data in the same order. Sample n shows photo n mod N of the permutation of epoch n div N,
    and a painting drawn at random. Images are scaled, cropped at random to `crop_size` and mirrored half of the time; c
    is made of the crop y, so its edges are as wide as D sees them. photos, paintings: sources as in
    training/data/sources.py, prepared in `cache` by training/prepare.py; what has no result there is left out.

    Args:
        config: gives image_size, photo_scales, painting_scales, crop_size, saliency_size, tone_jitter, seed and
            whether there are references.

    Gives float32 tensors: photo, painting, edge_blurred 3 x crop x crop in [-1, 1]; reference 1 x crop x crop in
    [0, 1] where the config needs it; with brush_size, `repainted`, whether the photo is painted over a painting of half
    its size, as every other one is. With saliency_size s, also photo_whole and painting_whole 3 x s x s, what S sees;
    photo_box and painting_box, where the crops lie in them (`filters.crop_and_resize`); and the reference is the whole
    photo's, 1 x s x s.
    """

    def __init__(
        self, photos: str | Path | Source, paintings: str | Path | Source, cache: str | Path, config: TrainingConfig
    ):
        self.photos_source, self.paintings_source, self.cache = open_source(photos), open_source(paintings), Path(cache)
        self.config = config
        prepared = SALIENCY if config.references else PHOTOS_READ
        self.photos, self.paintings = (
            [path for path in source.files(self.cache) if result_path(self.cache, kind, source, path).exists()]
            for source, kind in ((self.photos_source, prepared), (self.paintings_source, PAINTINGS_READ))
        )
        for found, source in ((self.photos, photos), (self.paintings, paintings)):
            if not found:
                raise SDPGANError(f"{source} holds no image that training/prepare.py has prepared in {cache}.")

    def __len__(self) -> int:
        """Photos in an epoch."""
        return len(self.photos)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        config, (epoch, position) = self.config, divmod(number, len(self.photos))
        random = np.random.default_rng((config.seed, number))
        order = np.random.default_rng((config.seed, 2**32, epoch)).permutation(len(self.photos))
        path = self.photos[order[position]]
        painting_path = self.paintings[random.integers(len(self.paintings))]
        repainted = bool(config.brush_size) and number % 2 == 1
        size = (1 + repainted) * config.brush_size or config.image_size
        sizes = [size * scale for scale in config.photo_scales]
        sample, _ = self._sample("photo", read_rgb(path), sizes, random, self._reference(path))
        sizes = [config.image_size * scale for scale in config.painting_scales]
        of_painting, crop = self._sample("painting", read_rgb(painting_path), sizes, random)
        if config.brush_size:
            sample["repainted"] = torch.tensor(repainted)
        return sample | of_painting | {"edge_blurred": _signed(edge_blurred(crop))}

    def _sample(
        self,
        name: str,
        image: np.ndarray,
        sizes: Sequence[float],
        random: np.random.Generator,
        reference: np.ndarray | None = None,
    ) -> tuple[dict[str, Tensor], np.ndarray]:
        """What a sample holds of one image, its shorter side scaled to between `sizes`, and its crop as uint8."""
        config, side = self.config, self.config.crop_size
        if random.random() < 0.5:
            image = np.ascontiguousarray(image[:, ::-1])
            reference = None if reference is None else np.ascontiguousarray(reference[:, ::-1])
        if random.random() < config.tone_jitter:
            image = _other_tone(image, random)
        shorter, limit = min(image.shape[:2]), MAX_ENLARGEMENT if name == "painting" else math.inf
        scale = max(side, min(random.uniform(*sizes), limit * shorter)) / shorter
        height, width = (max(side, round(scale * length)) for length in image.shape[:2])
        top, left = (int(random.integers(length - side + 1)) for length in (height, width))
        crop = scaled(image, height, width)[top : top + side, left : left + side]
        sample = {name: _signed(crop)}
        if size := config.saliency_size:
            whole = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
            sample[f"{name}_whole"] = _signed(whole)
            box = (top / height, left / width, side / height, side / width)
            sample[f"{name}_box"] = torch.tensor(box, dtype=torch.float32)
        if reference is not None:
            if size:
                reference = cv2.resize(reference, (size, size), interpolation=cv2.INTER_AREA)
            else:
                reference = scaled(reference, height, width)[top : top + side, left : left + side]
            sample["reference"] = torch.from_numpy(np.ascontiguousarray(reference)).float().div(255)[None]
        return sample, crop

    def _reference(self, photo: Path) -> np.ndarray | None:
        """The photo's saliency reference, uint8 H x W, where there are any."""
        if not self.config.references:
            return None
        path = result_path(self.cache, SALIENCY, self.photos_source, photo)
        reference = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
        if reference is None:
            raise SDPGANError(f"{path} cannot be read; delete it and run training/prepare.py again.")
        return reference


def _other_tone(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Darkened by an exposure of 0.1 to 1, or, one time in three, lightened towards white by 1 to 0.3."""
    if random.random() < 1 / 3:
        return 255 - (random.uniform(0.3, 1) * (255 - image.astype(np.float32))).round().astype(np.uint8)
    return (10 ** random.uniform(-1, 0) * image).round().astype(np.uint8)


def _signed(image: np.ndarray) -> Tensor:
    """uint8 H x W x 3 to float32 3 x H x W in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float().div(127.5).sub(1)
