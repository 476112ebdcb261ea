"""sdpgan_hub/visualization.py: heat map, overlay, contour."""

import numpy as np
import pytest

from sdpgan_hub.errors import SDPGANError
from sdpgan_hub.visualization import contour, heat_map, overlay


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture
def disc() -> np.ndarray:
    y, x = np.mgrid[:40, :60]
    return ((y - 20) ** 2 + (x - 30) ** 2 < 12**2).astype(np.float32)


def test_inferno_runs_from_black_over_red_to_pale_yellow():
    black, red, yellow = heat_map(np.array([[0, 0.5, 1]], np.float32))[0].astype(int)
    assert black.max() < 10
    assert red[0] > 150 > 100 > red[1] and red[0] > red[2]
    assert yellow[0] > 240 and yellow[1] > 240 > 200 > yellow[2]


def test_overlay_is_the_mean_of_the_image_and_the_heat_map(image, disc):
    mean = (image.astype(float) + heat_map(disc)) / 2
    assert np.abs(overlay(image, disc) - mean).max() <= 0.5


def test_contour_changes_pixels_only_within_4_px_of_the_boundary_and_all_around_it(image, disc):
    changed = (contour(image, disc) != image).any(2)
    y, x = np.mgrid[:40, :60]
    distance = np.abs(np.hypot(y - 20, x - 30) - 12)
    assert not changed[distance > 4].any()
    angles = np.arctan2(y - 20, x - 30)[changed]
    assert len(np.unique((angles * 18 / np.pi).round())) >= 36


def test_contour_of_a_map_below_the_level_is_the_image_and_the_input_stays_untouched(image, disc):
    before = image.copy()
    assert np.array_equal(contour(image, disc * 0.4), image)
    contour(image, disc)
    assert np.array_equal(image, before)


def test_contour_finds_holes_too(image, disc):
    holed = disc.copy()
    holed[17:24, 27:34] = 0
    changed = (contour(image, holed) != image).any(2)
    assert changed[15:26, 25:36].any()


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (3, 5)])
def test_any_size_from_one_pixel_up_keeps_its_shape(size):
    picture, saliency = np.zeros((*size, 3), np.uint8), np.full(size, 0.7, np.float32)
    for result in (heat_map(saliency), overlay(picture, saliency), contour(picture, saliency)):
        assert result.shape == picture.shape and result.dtype == np.uint8


def test_read_only_and_strided_arrays_are_taken_as_they_are(image, disc):
    flipped, saliency = image[:, ::-1], disc[:, ::-1]
    image.flags.writeable = False
    assert np.array_equal(contour(flipped, saliency), contour(flipped.copy(), saliency.copy()))
    assert np.array_equal(overlay(flipped, saliency), overlay(flipped.copy(), saliency.copy()))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda image, disc: heat_map(disc * 2), "0 to 2"),
        (lambda image, disc: heat_map(disc - np.nan), "spans nan"),
        (lambda image, disc: heat_map(disc[..., None]), "float H x W"),
        (lambda image, disc: heat_map(disc.astype(np.uint8)), "not uint8"),
        (lambda image, disc: overlay(image[:-1], disc), "39 x 60.*40 x 60"),
        (lambda image, disc: overlay(image / 255, disc), "float64"),
        (lambda image, disc: contour(image[..., 0], disc), "uint8 H x W x 3"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, message, image, disc):
    with pytest.raises(SDPGANError, match=message):
        call(image, disc)
