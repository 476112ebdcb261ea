"""A saliency map made visible: as a heat map, laid over its image, or as the outline of what it calls salient.

Maps are float H x W in [0, 1], 1 = salient; images uint8 H x W x 3, RGB. Every result is a new uint8 H x W x 3 RGB
array. Bad shapes, types and ranges raise SDPGANError.
"""

from __future__ import annotations

import cv2
import numpy as np

from .errors import SDPGANError

COLORMAPS = {
    "inferno": cv2.COLORMAP_INFERNO,
    "magma": cv2.COLORMAP_MAGMA,
    "plasma": cv2.COLORMAP_PLASMA,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "cividis": cv2.COLORMAP_CIVIDIS,
}
"""The perceptually uniform colour maps: equal steps of saliency look like equal steps, in grey print too."""


def heat_map(saliency: np.ndarray, colormap: str = "inferno") -> np.ndarray:
    """The map in colours, dark = 0, bright = 1. colormap: a key of `COLORMAPS`."""
    if colormap not in COLORMAPS:
        raise SDPGANError(f"No colour map is called {colormap!r}; there are {', '.join(COLORMAPS)}.")
    levels = np.rint(_checked_map(saliency) * 255).astype(np.uint8)
    if levels.size == 0:
        return np.zeros((*levels.shape, 3), np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(levels, COLORMAPS[colormap])[..., ::-1])


def overlay(image: np.ndarray, saliency: np.ndarray, alpha: float = 0.5, colormap: str = "inferno") -> np.ndarray:
    """The heat map laid over its image: (1 - alpha) * image + alpha * heat map, with alpha in [0, 1]."""
    if not 0 <= alpha <= 1:
        raise SDPGANError(f"alpha is {alpha}; it must lie in [0, 1].")
    _check_pair(image, saliency)
    heat = heat_map(saliency, colormap)
    return np.rint(image * (1 - alpha) + heat * np.float32(alpha)).astype(np.uint8)


def contour(
    image: np.ndarray,
    saliency: np.ndarray,
    level: float = 0.5,
    color: tuple[int, int, int] = (255, 210, 0),
    thickness: int | None = None,
) -> np.ndarray:
    """The image with the outline of {saliency >= level} drawn in `color` (RGB).

    level: in (0, 1]. thickness: px; 1 per 300 px of the shorter side by default, at least 2.
    """
    if not 0 < level <= 1:
        raise SDPGANError(f"level is {level}; it must lie in (0, 1].")
    _check_pair(image, saliency)
    drawn = np.ascontiguousarray(image).copy()
    if thickness is None:
        thickness = max(2, round(min(image.shape[:2]) / 300))
    salient = (_checked_map(saliency) >= level).astype(np.uint8)
    outlines, _ = cv2.findContours(salient, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(drawn, outlines, -1, color, thickness, cv2.LINE_AA)
    return drawn


def _checked_map(saliency: np.ndarray) -> np.ndarray:
    if saliency.ndim != 2 or not np.issubdtype(saliency.dtype, np.floating):
        raise SDPGANError(f"A saliency map is a float H x W array, not {saliency.dtype} {saliency.shape}.")
    if saliency.size and not (saliency.min() >= 0 and saliency.max() <= 1):  # NaN fails both comparisons
        raise SDPGANError(f"A saliency map lies in [0, 1]; this one spans {saliency.min():g} to {saliency.max():g}.")
    return saliency


def _check_pair(image: np.ndarray, saliency: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise SDPGANError(f"The image must be a uint8 H x W x 3 array, not {image.dtype} {image.shape}.")
    if image.shape[:2] != saliency.shape:
        size = " x ".join(map(str, saliency.shape))
        raise SDPGANError(f"The image is {image.shape[0]} x {image.shape[1]}, its map {size} (H x W).")
