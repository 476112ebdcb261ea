"""Detail: what of a photo is left in its painting, inside the region people look at and outside it.

Images are uint8 H x W x 3, RGB; a region is a boolean H x W, True where the photo is salient. Every figure is computed
inside and outside; it is None for a region of less than `MIN_REGION` of the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from skimage.metrics import structural_similarity

if TYPE_CHECKING:
    from torch import Tensor

MIN_REGION = 0.01
"""The share of the image below which a region has no figure of its own."""
ADAPTIVE_THRESHOLD = 2.0
"""A map is salient where it is at least twice its mean (Achanta et al., CVPR 2009, Sec. 4.2)."""
MIN_PHOTO_GRADIENT = 1.0
"""Grey levels a pixel (root mean square) below which a region of the photo has no edges to keep."""


def salient_region(saliency: np.ndarray) -> np.ndarray:
    """A saliency map, float H x W in [0, 1], to the region where it is at least twice its mean, or at its maximum."""
    highest = float(saliency.max())
    if highest <= 0:
        return np.zeros(saliency.shape, bool)
    return saliency >= min(ADAPTIVE_THRESHOLD * float(saliency.mean()), highest)


def detail(photo: np.ndarray, painting: np.ndarray, region: np.ndarray) -> dict[str, dict[str, float | None]]:
    """{"salient": ..., "background": ...}, each with `ssim`, `gradient_correlation` and `detail_kept`."""
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64) for image in (photo, painting)]
    similarity = ssim_map(*grey)
    result = {}
    for name, part in (("salient", region), ("background", ~region)):
        figures: dict[str, float | None] = dict.fromkeys(("ssim", "gradient_correlation", "detail_kept"))
        if part.mean() >= MIN_REGION:
            figures["ssim"] = float(similarity[part].mean())
            figures["gradient_correlation"] = gradient_correlation(*grey, part)
            figures["detail_kept"] = detail_kept(figures["ssim"], figures["gradient_correlation"])
        result[name] = figures
    return result


def detail_kept(ssim: float | None, gradient_correlation: float | None) -> float | None:
    """How much of a photo's detail a painting keeps, in [0, 1]; inside the salient region it is the headline figure
    "salient detail kept".

    The mean of luminance SSIM and of the gradient correlation, each no lower than 0, in that region of one photo; a set
    has the mean over its photos. 1 is the photo itself, whatever its colours; a flat image is near 0. SSIM says how
    much local structure and tone is left, the correlation whether edges are where they were and strokes have not
    invented others. The VGG distance and the change of saliency are reported beside it and are no part of it: training
    minimises both, so they would flatter whoever weighs them most. A region without edges counts by SSIM alone.
    """
    if ssim is None:
        return None
    if gradient_correlation is None:
        return max(ssim, 0.0)
    return (max(ssim, 0.0) + max(gradient_correlation, 0.0)) / 2


def ssim_map(photo: np.ndarray, painting: np.ndarray) -> np.ndarray:
    """SSIM at every pixel of two luminances, float H x W in [0, 255] (Wang et al., TIP 2004: Gaussian of 1.5 px)."""
    return structural_similarity(
        photo, painting, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )[1]


def gradient_correlation(photo: np.ndarray, painting: np.ndarray, part: np.ndarray) -> float | None:
    """Correlation of the luminance gradients (Sobel) of two images over `part`, in [-1, 1].

    The scalar product of the two vector fields over their norms: blind to brightness and contrast, 1 where every edge
    stays in place and points the same way. None where the photo has no edges, see `MIN_PHOTO_GRADIENT`; 0 where only
    the painting has none.
    """
    first, second = (
        np.stack([cv2.Sobel(image, cv2.CV_64F, *axis, ksize=3, scale=1 / 8)[part] for axis in ((1, 0), (0, 1))])
        for image in (photo, painting)
    )
    norms = np.linalg.norm(first), np.linalg.norm(second)
    if norms[0] < MIN_PHOTO_GRADIENT * np.sqrt(part.sum()):
        return None
    return float((first * second).sum() / (norms[0] * norms[1])) if norms[1] > 0 else 0.0


def content_distance(photo: Tensor, painting: Tensor, region: np.ndarray) -> dict[str, float | None]:
    """{"salient", "background"}: the mean absolute difference of VGG features, 1 x C x h x w, over that of the photo's.

    The region is averaged down to h x w and weighs the pixels. In units of the photo's own features, so that weights of
    different scale compare: 0 is the photo, 1 an image whose features are 0.
    """
    height, width = photo.shape[-2:]
    share = cv2.resize(region.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    difference = (painting - photo).abs().mean(1)[0].cpu().double().numpy()
    magnitude = photo.abs().mean(1)[0].cpu().double().numpy()
    result = {}
    for name, weight in (("salient", share), ("background", 1 - share)):
        total = float((magnitude * weight).sum())
        enough = weight.mean() >= MIN_REGION and total > 0
        result[name] = float((difference * weight).sum()) / total if enough else None
    return result
