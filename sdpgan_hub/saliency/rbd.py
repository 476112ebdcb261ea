"""RBD, saliency optimisation from robust background detection (Zhu, Liang, Wei, Sun, CVPR 2014).

It errs most, by leaving out, where the object fills more than half of the photo. docs/saliency_references.md has its
accuracy and speed; published on all of ECSSD: MAE 0.173, max F-beta 0.718.

Departures from the paper, chosen on the human masks of the training photos (DUTS), not on ECSSD: superpixels of 144 px
of a 300-px image for 600 of a 400-px one, compactness 30 for 20, and the mean over the photo and its mirror image.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from .common import detected, min_max, missing_extra
from .kernels import compiled, shortest_paths

SUPERPIXEL_AREA = 144
COMPACTNESS = 30.0
SLIC_ITERATIONS = 3
BOUNDARY_WIDTH = 6
SIGMA_CONNECTIVITY = 1.0
SIGMA_SPACE = 0.4
SURE_CONNECTIVITY = 3.0
SURE_BACKGROUND = 1000.0
SMOOTHNESS_FLOOR = 0.1
BACKGROUND_WEIGHT = 5.0


class Superpixels(NamedTuple):
    """What RBD knows of an image of n superpixels."""

    labels: np.ndarray  # h x w, 0..n-1
    colours: np.ndarray  # n x 3, mean Lab
    positions: np.ndarray  # n x 2, mean (x, y) in [0, 1]
    neighbours: np.ndarray  # n x n bool, 1-ring, no diagonal
    boundary: np.ndarray  # n bool, has a pixel near the frame


class Scales(NamedTuple):
    """Colour scales that RBD takes from the image itself (in Lab units)."""

    clip: float
    geodesic: float
    neighbour: float


def robust_background(image: np.ndarray) -> np.ndarray:
    """RBD saliency of a uint8 RGB photo H x W x 3: float32 H x W in [0, 1]; zeros where the photo is constant.

    The mean of the maps of the photo and of its mirror image, so that a mirrored photo has the mirrored map.
    Raises :class:`~sdpgan_hub.errors.SDPGANError` for another dtype or shape (grey and RGBA are taken as well), and
    where scikit-image or numba is missing.
    """
    return detected(image, lambda inside: min_max(_one_view(inside) + _one_view(inside[:, ::-1])[:, ::-1]))


def _one_view(image: np.ndarray) -> np.ndarray:
    parts = superpixels(image)
    return min_max(saliency_of_superpixels(parts))[parts.labels]


def superpixels(image: np.ndarray) -> Superpixels:
    """SLIC in Lab, one superpixel per :data:`SUPERPIXEL_AREA` px: uint8 RGB h x w x 3."""
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise missing_extra(error) from None
    height, width = image.shape[:2]
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    labels = slic(
        lab,
        n_segments=max(1, height * width // SUPERPIXEL_AREA),
        compactness=COMPACTNESS / max(float(np.ptp(lab)), 1.0),  # slic rescales what it is given to [0, 1]
        max_num_iter=SLIC_ITERATIONS,
        convert2lab=False,
        start_label=0,
        channel_axis=-1,
    )
    used = np.bincount(labels.ravel()) > 0
    return describe((np.cumsum(used) - 1)[labels], lab)


def describe(labels: np.ndarray, lab: np.ndarray) -> Superpixels:
    """Mean colour, mean position, 1-ring neighbours and boundary of the superpixels 0..n-1 in ``labels`` (h x w)."""
    height, width = labels.shape
    count = int(labels.max()) + 1
    flat = labels.ravel()
    y, x = np.divmod(np.arange(flat.size), width)
    channels = [*lab.reshape(-1, 3).T, x / max(width - 1, 1), y / max(height - 1, 1)]
    sums = np.stack([np.bincount(flat, channel, count) for channel in channels], axis=1)
    means = (sums / np.bincount(flat)[:, None]).astype(np.float32)
    edge = np.ones_like(labels, dtype=bool)
    edge[BOUNDARY_WIDTH:-BOUNDARY_WIDTH, BOUNDARY_WIDTH:-BOUNDARY_WIDTH] = False
    boundary = np.zeros(count, dtype=bool)
    boundary[labels[edge]] = True
    return Superpixels(labels, means[:, :3], means[:, 3:], adjacency(labels, count), boundary)


def adjacency(labels: np.ndarray, count: int) -> np.ndarray:
    """Which superpixels touch, diagonally included: n x n bool, symmetric, no diagonal."""
    touch = np.zeros((count, count), dtype=bool)
    shifts = ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1]))
    corners = ((labels[1:, 1:], labels[:-1, :-1]), (labels[1:, :-1], labels[:-1, 1:]))
    for one, other in (*shifts, *corners):
        touch[one, other] = True
    touch |= touch.T
    np.fill_diagonal(touch, False)
    return touch


def saliency_of_superpixels(parts: Superpixels) -> np.ndarray:
    """The whole of RBD on superpixels: n values, the minimiser of Eq. 9, in [0, 1] before any normalisation."""
    count = len(parts.colours)
    distance = pairwise(parts.colours)
    ring2 = (parts.neighbours.astype(np.float32) @ parts.neighbours.astype(np.float32) > 0) | parts.neighbours
    np.fill_diagonal(ring2, False)
    clique = parts.boundary[:, None] & parts.boundary[None, :] & ~np.eye(count, dtype=bool)
    scales = colour_scales(distance, parts.neighbours, ring2)
    geodesic = geodesic_distance(distance, parts.neighbours | clique, scales.clip, 3 * scales.geodesic)
    connectivity = boundary_connectivity(geodesic, parts.boundary, scales.geodesic)
    background = 1 - np.exp(-(connectivity**2) / (2 * SIGMA_CONNECTIVITY**2))
    foreground = weighted_contrast(distance, pairwise(parts.positions), background)
    sure = np.where(connectivity > SURE_CONNECTIVITY, SURE_BACKGROUND, background)
    smoothness = gaussian(distance, scales.neighbour) * (ring2 | clique) + SMOOTHNESS_FLOOR * parts.neighbours
    return optimise(sure, foreground, smoothness)


def pairwise(points: np.ndarray) -> np.ndarray:
    """Euclidean distances between n points: n x n."""
    return np.sqrt(sum((axis[:, None] - axis[None, :]) ** 2 for axis in points.T))


def gaussian(distance: np.ndarray, sigma: float) -> np.ndarray:
    """exp(-d^2 / (2 sigma^2)), 0 beyond 3 sigma."""
    scaled = distance / np.float32(max(sigma, 1e-6))
    return np.exp(-0.5 * scaled * scaled) * (scaled <= 3)


def colour_scales(distance: np.ndarray, ring1: np.ndarray, ring2: np.ndarray) -> Scales:
    """Scales of the geodesic and the smoothness weights from the colour distances of neighbouring superpixels."""
    near = distance[ring1]
    if near.size == 0:
        return Scales(0.0, 5.0, 0.0)
    nearest1 = np.where(ring1, distance, np.inf).min(axis=1)
    nearest2 = np.where(ring2, distance, np.inf).min(axis=1)
    min1, min2 = nearest1[np.isfinite(nearest1)].mean(), nearest2[np.isfinite(nearest2)].mean()
    top = np.sort(near)[-max(1, round(0.01 * near.size)) :].mean()
    return Scales(float(min2), float(max(5.0, min(10.0, 3 * min1, top / 10))), float(min(3 * min1, 0.2 * top, 20.0)))


def geodesic_distance(distance: np.ndarray, edges: np.ndarray, clip: float, limit: float = np.inf) -> np.ndarray:
    """All-pairs shortest paths over ``edges`` (n x n bool) of length max(0, distance - clip), right up to ``limit``."""
    lengths = np.where(edges, np.maximum(0.0, distance - clip), np.inf).astype(np.float32)
    np.fill_diagonal(lengths, 0.0)
    compiled(shortest_paths)(lengths, np.float32(limit))
    return lengths


def boundary_connectivity(geodesic: np.ndarray, boundary: np.ndarray, sigma: float) -> np.ndarray:
    """BndCon (Eqs. 3-5): length along the boundary over the square root of the spanning area; n values."""
    weight = gaussian(geodesic, sigma)
    return weight[:, boundary].sum(axis=1) / np.sqrt(weight.sum(axis=1))


def weighted_contrast(colour: np.ndarray, space: np.ndarray, background: np.ndarray) -> np.ndarray:
    """wCtr (Eq. 7): contrast with probable background, min-max, 0 below Otsu's threshold; n values in [0, 1]."""
    contrast = min_max((colour * gaussian(space, SIGMA_SPACE)) @ background)
    levels = np.round(255 * contrast).astype(np.uint8)
    threshold, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return np.where(levels > threshold, contrast, 0.0)


def optimise(background: np.ndarray, foreground: np.ndarray, smoothness: np.ndarray) -> np.ndarray:
    """The minimiser of Eq. 9: sum b s^2 + sum f (s - 1)^2 + sum w (s_i - s_j)^2, from its linear system."""
    if not foreground.any():
        return np.zeros_like(background)
    system = -smoothness.astype(np.float64)
    np.fill_diagonal(system, smoothness.sum(axis=1, dtype=np.float64) + BACKGROUND_WEIGHT * background + foreground)
    return np.linalg.solve(system, foreground)
