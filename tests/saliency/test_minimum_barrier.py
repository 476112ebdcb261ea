"""FastMBD against the exact distance, its reconstruction against scikit-image's, and MB+ on drawn scenes."""

import numpy as np
import pytest
from scipy import ndimage
from skimage import morphology

from sdpgan_hub.saliency import mbd, minimum_barrier, robust_background


def exact_barrier_distance(image: np.ndarray) -> np.ndarray:
    """The smallest hi - lo such that a pixel reaches the border through values in [lo, hi]; every interval is tried."""
    border = np.ones(image.shape, bool)
    border[1:-1, 1:-1] = False
    best = np.full(image.shape, 256)
    values = np.unique(image).astype(int)
    for low in values:
        for high in values[values >= low]:
            parts, _ = ndimage.label((image >= low) & (image <= high))
            reached = np.isin(parts, np.setdiff1d(parts[border], 0))
            best[reached] = np.minimum(best[reached], high - low)
    return best


def scene(disc_centre: tuple[int, int], radius: int = 28, size: tuple[int, int] = (160, 240)) -> tuple:
    """A red disc on a noisy green field, and the disc's mask."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[: size[0], : size[1]]
    disc = (y - disc_centre[0]) ** 2 + (x - disc_centre[1]) ** 2 < radius**2
    image = np.where(disc[..., None], (200, 40, 40), (60, 130, 60)) + random.integers(-12, 13, (*size, 3))
    return image.astype(np.uint8), disc


def test_fast_barrier_distance_is_never_below_the_exact_one_and_mostly_equal_to_it():
    equal = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        image = random.integers(0, 256, random.integers(3, 7, 2), dtype=np.uint8)
        fast, exact = mbd.barrier_distance(image[..., None])[..., 0], exact_barrier_distance(image)
        assert (fast >= exact).all(), image
        equal.extend((fast == exact)[1:-1, 1:-1].ravel())
    assert np.mean(equal) > 0.9


def test_more_passes_never_raise_the_barrier_distance():
    image = np.random.default_rng(1).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    distances = [mbd.barrier_distance(image, passes) for passes in (1, 3, 9)]
    assert (distances[0] >= distances[1]).all() and (distances[1] >= distances[2]).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (37, 52)])
def test_reconstruction_equals_scikit_images(shape):
    random = np.random.default_rng(2)
    mask = random.integers(0, 256, shape, dtype=np.uint8)
    marker = np.minimum(mask, random.integers(0, 256, shape, dtype=np.uint8))
    assert np.array_equal(mbd.reconstruct(marker, mask), morphology.reconstruction(marker, mask))


def test_distance_to_a_strip_is_the_mahalanobis_distance():
    random = np.random.default_rng(3)
    strip = random.integers(0, 256, (50, 3), dtype=np.uint8)
    pixels = random.uniform(0, 255, (3, 20)).astype(np.float32)
    inverse = np.linalg.inv(np.cov(strip.T, bias=True) + mbd.COVARIANCE_REGULARISER * np.eye(3))
    offset = pixels.T - strip.mean(axis=0)
    expected = np.sqrt(np.einsum("ni,ij,nj->n", offset, inverse, offset))
    np.testing.assert_allclose(mbd._mahalanobis_distance(pixels, strip), expected, rtol=1e-4)


def test_backgroundness_tolerates_one_border_that_an_object_covers():
    image = np.full((50, 50, 3), 120, np.uint8)
    image[20:30, 20:30] = (220, 40, 40)
    image[:5] = (40, 40, 220)
    unlike = mbd.backgroundness(image)
    assert unlike[25, 25] == pytest.approx(1.0) and unlike[45, 45] < 0.05


def test_a_disc_on_a_noisy_field_is_the_salient_object_of_both_methods():
    image, disc = scene((80, 120))
    for method in (minimum_barrier, robust_background):
        saliency = method(image)
        assert saliency[disc].mean() > 0.9 and saliency[~disc].mean() < 0.1, method.__name__


@pytest.mark.parametrize("column", [5, 12, 24])
def test_a_disc_cut_by_the_border_is_lost_to_the_barrier_alone_but_not_to_rbd_and_mb_plus(column):
    image, disc = scene((80, column))
    assert mbd.minimum_barrier_map(image)[disc].mean() < 0.35
    assert robust_background(image)[disc].mean() > 0.6
    assert minimum_barrier(image)[disc].mean() > 0.8
