"""Image files as training and evaluation see them: read, scaled, put on a sheet, written."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image

from sdpgan_hub.errors import SDPGANError
from sdpgan_hub.files import open_image, write_whole
from sdpgan_hub.files import read_rgb as read


def read_mask(path: str | Path, height: int, width: int) -> np.ndarray:
    """A binary mask as uint8 height x width, 0 or 255; white is what lies above half of the file's largest value.

    A mask of another size is scaled when its proportions are those of height x width, else SDPGANError.
    """
    image = open_image(path)
    grey = np.asarray(image if image.mode.startswith(("I", "F")) else image.convert("L"))
    mask = np.where(grey > grey.max() / 2, 255, 0).astype(np.uint8)
    if abs(mask.shape[0] * width - mask.shape[1] * height) > max(height, width, *mask.shape):
        raise SDPGANError(f"The mask {path} is {mask.shape[1]}x{mask.shape[0]}, the photo {width}x{height}.")
    return cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)


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


def encode(image: np.ndarray, suffix: str, **options: Any) -> bytes:
    """uint8 H x W (x 3), RGB, as the file that `suffix` names; `options` are Pillow's.

    A JPEG has quality 95 and its colours at full resolution, unless `options` say otherwise.
    """
    buffer, kind = BytesIO(), PIL.Image.registered_extensions().get(suffix.lower())
    if kind is None:
        raise SDPGANError(f"{suffix} is not the suffix of an image; take .png or .jpg.")
    defaults = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    PIL.Image.fromarray(image).save(buffer, kind, **defaults | options)
    return buffer.getvalue()


def write(path: Path, image: np.ndarray, **options: Any) -> None:
    """`encode` into a file that appears when it is whole, its folder made if need be."""
    write_whole(path, encode(image, path.suffix, **options))


def contact_sheet(
    cells: Sequence[np.ndarray], columns: int, gap: int = 0, labels: Sequence[str] = (), label_height: int = 0
) -> np.ndarray:
    """Images in rows of `columns` on white, uint8 H x W x 3; each has a label above it where there is one.

    All places are as wide as the widest image. A row with labels is higher by `label_height` pixels.
    """
    width = max(cell.shape[1] for cell in cells)
    rows = []
    for first in range(0, len(cells), columns):
        row, names = cells[first : first + columns], labels[first : first + columns]
        top = label_height if any(names) else 0
        height = top + max(cell.shape[0] for cell in row) + gap
        canvas = np.full((height, columns * (width + gap), 3), 255, np.uint8)
        for column, cell in enumerate(row):
            left = column * (width + gap)
            if column < len(names):
                _write_label(canvas[:top, left : left + width], names[column])
            canvas[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
        rows.append(canvas)
    sheet = np.concatenate(rows)
    return sheet[: sheet.shape[0] - gap, : sheet.shape[1] - gap]


def _write_label(place: np.ndarray, text: str) -> None:
    """`text` in black at the foot of `place`, smaller where it would not fit."""
    height, width = place.shape[:2]
    font = cv2.FONT_HERSHEY_SIMPLEX
    scale = min(height / 44, (width - 4) / max(1, cv2.getTextSize(text, font, 1, 1)[0][0]))
    cv2.putText(place, text, (2, height - height // 3), font, scale, (0, 0, 0), 1, cv2.LINE_AA)
