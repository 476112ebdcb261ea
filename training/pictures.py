"""Image files as the evaluation looks at them: upright RGB, scaled to one shorter side."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import PIL.Image

from sdpgan_hub import files
from sdpgan_hub.errors import SDPGANError
from sdpgan_hub.files import read_rgb

from .prepare import read_mask


def read(path: Path) -> np.ndarray:
    """The file as uint8 H x W x 3, RGB; SDPGANError naming it where it cannot be decoded."""
    return read_rgb(path)


def read_region(mask: Path, shape: tuple[int, ...]) -> np.ndarray:
    """A mask file as bool of the height and width of `shape`, True where it is salient; SDPGANError naming it."""
    try:
        return read_mask(mask, *shape[:2]) > 0
    except SDPGANError as error:
        raise SDPGANError(f"{mask}: {error}") from error
    except (OSError, ValueError) as error:
        raise SDPGANError(f"{mask} cannot be read as a mask ({error}).") from error


def read_scaled(path: Path, shorter_side: int) -> np.ndarray:
    """The file as uint8 H x W x 3 whose shorter side is `shorter_side` pixels, in its own proportions."""
    image = read(path)
    height, width = image.shape[:2]
    scale = shorter_side / min(height, width)
    return scaled(image, max(shorter_side, round(height * scale)), max(shorter_side, round(width * scale)))


def scaled(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """H x W x 3 to `height` x `width` x 3: averaged over areas when it shrinks, bicubic when it grows."""
    if image.shape[:2] == (height, width):
        return image
    method = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_CUBIC
    return cv2.resize(image, (width, height), interpolation=method)


def centre_square(image: np.ndarray) -> np.ndarray:
    """The largest square in the middle of H x W (x C)."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def write(path: Path, image: np.ndarray) -> None:
    """uint8 H x W x 3, RGB, in the format that the suffix says, its folder made if need be."""
    format = files.OUTPUT_FORMATS.get(path.suffix.lower())
    if format is None:
        raise SDPGANError(f"{path} has no suffix that names a format ({', '.join(files.OUTPUT_FORMATS)}).")
    files.replace_file(path, files.encode([PIL.Image.fromarray(image)], format))
