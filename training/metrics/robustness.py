"""Robustness: does a dark photo give a dark painting, and does the painting stay when the photo moves by a pixel?

Both are of the generator alone: the photo's fine structure that `keep_detail` adds moves with the photo and has no
tone. Images are uint8 H x W x 3, RGB; luma is that of Rec. 601, in grey levels of 255.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from sdpgan_hub.errors import SDPGANError

if TYPE_CHECKING:
    from sdpgan_hub import SDPGAN

PHOTOS = 10
EXPOSURES = (0.1, 0.25, 0.5, 1.0)
"""Factors of the sRGB values."""
SHIFTS = (1, 2, 3)
BORDER = 32
"""Width in pixels along the border that is not compared: the padding there differs between the two crops."""
MIN_SIDE = 2 * BORDER + max(SHIFTS) + 1


def robustness(model: SDPGAN, photos: Sequence[np.ndarray]) -> dict[str, Any]:
    """{"tone": `tone`, "shift": `shift`, "photos": how many}.

    Raises:
        SDPGANError: a photo has a side below `MIN_SIDE` pixels, or there is none.
    """
    if not photos or min(min(photo.shape[:2]) for photo in photos) < MIN_SIDE:
        raise SDPGANError(f"Robustness is measured on photos of at least {MIN_SIDE} pixels a side.")
    return {"tone": tone(model, photos), "shift": shift(model, photos), "photos": len(photos)}


def tone(model: SDPGAN, photos: Sequence[np.ndarray]) -> dict[str, float | int | None]:
    """How the mean luma of paintings follows that of the photos, each photo at every one of `EXPOSURES`.

    Returns:
        "correlation": Pearson's, over all "pairs"; None where one side does not vary. "black" and "white": the mean
        luma of what becomes of constant images of 0 and of 255, of the size of the first photo.
    """
    before, after = [], []
    for photo in photos:
        for exposure in EXPOSURES:
            exposed = np.rint(photo * exposure).astype(np.uint8)
            before.append(_mean_luma(exposed))
            after.append(_mean_luma(_paint(model, exposed)))
    varies = min(np.std(before), np.std(after)) > 0
    constant = {name: np.full_like(photos[0], value) for name, value in (("black", 0), ("white", 255))}
    return {
        "correlation": float(np.corrcoef(before, after)[0, 1]) if varies else None,
        "pairs": len(before),
        **{name: _mean_luma(_paint(model, image)) for name, image in constant.items()},
    }


def shift(model: SDPGAN, photos: Sequence[np.ndarray]) -> dict[str, float]:
    """{"1", "2", "3"}: the mean absolute change in grey levels of a painting when the photo moves by that many pixels.

    For k px, between the painting of the photo without its first k rows and columns and the same part of the painting
    of all of it, at least `BORDER` px from the border; the mean over channels, pixels and photos. 0 is none.
    """
    changes: dict[str, list[float]] = {str(pixels): [] for pixels in SHIFTS}
    for photo in photos:
        whole = _paint(model, photo).astype(np.int16)
        for pixels in SHIFTS:
            part = _paint(model, np.ascontiguousarray(photo[pixels:, pixels:])).astype(np.int16)
            difference = np.abs(part - whole[pixels:, pixels:])[BORDER:-BORDER, BORDER:-BORDER]
            changes[str(pixels)].append(float(difference.mean()))
    return {pixels: float(np.mean(values)) for pixels, values in changes.items()}


def _paint(model: SDPGAN, photo: np.ndarray) -> np.ndarray:
    return model.stylize(photo, keep_detail=0)


def _mean_luma(image: np.ndarray) -> float:
    return float(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean())
