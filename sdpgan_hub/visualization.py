"""A saliency map made visible: as a heat map, laid over its image, or as the outline of what it calls salient.

Maps are float H x W in [0, 1], 1 = salient; images uint8 H x W x 3, RGB. Every result is a new uint8 H x W x 3 RGB
array. Bad shapes, types and ranges raise SDPGANError.
"""

from __future__ import annotations

import cv2
import numpy as np

from .errors import SDPGANError

LINE_COLOUR = (255, 210, 0)


def heat_map(saliency: np.ndarray) -> np.ndarray:
    """The map in colours, dark = 0, bright = 1: equal steps of saliency look like equal steps, in grey print too."""
    levels = np.rint(_checked_map(saliency) * 255).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1])


def overlay(image: np.ndarray, saliency: np.ndarray) -> np.ndarray:
    """The heat map laid over its image: the mean of the two."""
    _check_pair(image, saliency)
    return np.rint((image.astype(np.float32) + heat_map(saliency)) / 2).astype(np.uint8)


def contour(image: np.ndarray, saliency: np.ndarray) -> np.ndarray:
    """The image with the outline of {saliency >= 0.5}, a line of 1 px per 300 px of the shorter side, at least 2."""
    _check_pair(image, saliency)
    drawn = np.ascontiguousarray(image).copy()
    salient = (_checked_map(saliency) >= 0.5).astype(np.uint8)
    outlines, _ = cv2.findContours(salient, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    thickness = max(2, round(min(image.shape[:2]) / 300))
    cv2.drawContours(drawn, outlines, -1, LINE_COLOUR, thickness, cv2.LINE_AA)
    return drawn


def _checked_map(saliency: np.ndarray) -> np.ndarray:
    if saliency.ndim != 2 or not np.issubdtype(saliency.dtype, np.floating):
        raise SDPGANError(f"A saliency map is a float H x W array, not {saliency.dtype} {saliency.shape}.")
    if not (saliency.min() >= 0 and saliency.max() <= 1):  # NaN fails both comparisons
        raise SDPGANError(f"A saliency map lies in [0, 1]; this one spans {saliency.min():g} to {saliency.max():g}.")
    return saliency


def _check_pair(image: np.ndarray, saliency: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise SDPGANError(f"The image must be a uint8 H x W x 3 array, not {image.dtype} {image.shape}.")
    if image.shape[:2] != saliency.shape:
        size = " x ".join(map(str, saliency.shape))
        raise SDPGANError(f"The image is {image.shape[0]} x {image.shape[1]}, its map {size} (H x W).")
