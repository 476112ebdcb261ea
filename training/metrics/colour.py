"""Colour: how vivid an image is. Images are uint8 H x W x 3, RGB."""

from __future__ import annotations

import numpy as np
from skimage.color import rgb2lab


def mean_chroma(image: np.ndarray) -> float:
    """Mean CIELAB chroma C* over the pixels: 0 is grey, pure sRGB red 105. Of an image as it is shown: of its size."""
    lab = rgb2lab(image)
    return float(np.hypot(lab[..., 1], lab[..., 2]).mean())
