"""What both detectors share: the working image, an artificial frame, min-max, and the way back to the photo's size."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from ..errors import SDPGANError

WORKING_SIZE = 300
FRAME_WIDTH = 30
FRAME_EDGE_SHARE = 0.6
FRAME_DEVIATION = 12.0
MIN_CONTENT = 16


def missing_extra(error: ImportError) -> SDPGANError:
    """The error for a saliency reference asked for where a library it needs is not installed."""
    return SDPGANError(f'The saliency references need {error.name}: pip install "sdpgan_hub[saliency]".')


def as_rgb(image: np.ndarray) -> np.ndarray:
    """uint8 H x W, H x W x 1, x 3 or x 4 (alpha is dropped) -> uint8 RGB H x W x 3, else :class:`SDPGANError`."""
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., None]
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3, 4) or array.size == 0:
        raise SDPGANError(
            f"A saliency reference takes a uint8 RGB image H x W x 3, but this one is {array.dtype} "
            f"{' x '.join(map(str, np.shape(image)))}: convert it, for example with PIL's image.convert('RGB')."
        )
    return np.ascontiguousarray(np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[..., :3])


def shrink(image: np.ndarray, longer_side: int = WORKING_SIZE) -> np.ndarray:
    """Area-resize so that the longer side is ``longer_side`` px; a smaller image is enlarged bilinearly."""
    height, width = image.shape[:2]
    scale = longer_side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def min_max(values: np.ndarray) -> np.ndarray:
    """Affine map onto [0, 1], float32; zeros where all values are equal."""
    values = np.asarray(values, dtype=np.float32)
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-6 * max(1.0, abs(low), abs(high)):
        return np.zeros_like(values)
    return (values - low) / (high - low)


def detected(image: np.ndarray, detect: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The map that ``detect`` makes of the working image inside its frame, which is 0, at the size of ``image``."""
    rgb = as_rgb(image)
    working = shrink(rgb)
    inside = inside_frame(working)
    whole = np.zeros(working.shape[:2], dtype=np.float32)
    whole[inside] = detect(working[inside])
    resized = cv2.resize(whole, (rgb.shape[1], rgb.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.clip(resized, 0.0, 1.0)


def inside_frame(image: np.ndarray) -> tuple[slice, slice]:
    """The part of a working image (uint8 RGB H x W x 3) inside an artificial frame: the whole image where it has none.

    A frame is a strip of one colour, at most :data:`FRAME_WIDTH` px wide, that ends in a straight edge along at least
    :data:`FRAME_EDGE_SHARE` of its side, on two sides or more.
    """
    height, width = image.shape[:2]
    edges = cv2.Canny(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 50, 150)
    top, bottom = _frame_width(image, edges), _frame_width(image[::-1], edges[::-1])
    across, edges = image.swapaxes(0, 1), edges.T
    left, right = _frame_width(across, edges), _frame_width(across[::-1], edges[::-1])
    framed = sum(side > 0 for side in (top, bottom, left, right)) >= 2
    if not framed or height - top - bottom < MIN_CONTENT or width - left - right < MIN_CONTENT:
        return slice(0, height), slice(0, width)
    return slice(top, height - bottom), slice(left, width - right)


def _frame_width(image: np.ndarray, edges: np.ndarray) -> int:
    """Rows of ``image`` on a frame's upper side, the edge and its blur with them: 0 where there is none."""
    rows = min(FRAME_WIDTH, len(image) // 2)
    near = edges[: rows + 1] > 0
    straight = (near[:-1] | near[1:]).mean(axis=1) > FRAME_EDGE_SHARE
    for row in np.flatnonzero(straight)[::-1]:
        strip = image[: max(1, row - 1)].reshape(-1, 3)
        if strip.std(axis=0).max() < FRAME_DEVIATION:
            return int(row) + 3
    return 0
