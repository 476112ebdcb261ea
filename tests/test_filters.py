"""sdpgan_hub/filters.py: noise, detail, crops, and a small map at the size of its photo."""

import itertools

import numpy as np
import pytest
import scipy.ndimage
import torch
import torch.nn.functional as F

from sdpgan_hub import filters

LUMA = np.array([0.299, 0.587, 0.114])


def random(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


# resizing


@pytest.mark.parametrize("size", [(7, 40), (20, 24), (41, 9)])
def test_a_device_without_antialiasing_resizes_alike(monkeypatch, size: tuple[int, int]):
    x = random(2, 3, 20, 24)
    expected = F.interpolate(x, size, mode="bilinear", antialias=True)
    torch.testing.assert_close(filters.resized(x, *size), expected)
    monkeypatch.setattr(filters, "WITHOUT_ANTIALIASING", ("cpu",))
    monkeypatch.setattr(F, "interpolate", None)
    torch.testing.assert_close(filters.resized(x, *size), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_resized_image_has_no_aliases_and_the_dtype_that_came(dtype: torch.dtype):
    stripes = torch.tensor([1.0, -1.0]).repeat(32).expand(1, 3, 64, 64).to(dtype)
    small = filters.resized(stripes, 24, 20)
    assert small.shape == (1, 3, 24, 20) and small.dtype == dtype
    assert small.float().abs().max() < 0.15  # every pixel is the mean of some: of black and white as much
    flat = torch.full((1, 3, 64, 64), 0.25, dtype=dtype)
    torch.testing.assert_close(filters.resized(flat, 24, 20), flat[..., :24, :20])


@pytest.mark.parametrize(("kernel", "mode"), [(filters.triangle, "bilinear"), (filters.cubic, "bicubic")])
@pytest.mark.parametrize("size", [(11, 9), (40, 31), (97, 120)])
def test_parts_of_a_resized_image_are_read_and_made_in_strips(monkeypatch, kernel, mode: str, size: tuple[int, int]):
    image, read = random(2, 3, 67, 50), []

    def reader(box: tuple[int, int, int, int]) -> torch.Tensor:
        top, bottom, left, right = box
        read.append((bottom - top) * (right - left))
        return image[..., top:bottom, left:right]

    monkeypatch.setattr(filters, "READ_PIXELS", 500)
    whole = F.interpolate(image, size, mode=mode, antialias=True)
    for top, bottom, left, right in ((0, size[0], 0, size[1]), (3, 8, 2, 9)):
        part = filters.resized_part(reader, (67, 50), size, (top, bottom, left, right), kernel)
        torch.testing.assert_close(part, whole[..., top:bottom, left:right], atol=3e-5, rtol=0)
    assert max(read) < 67 * 50 / 1.5


def test_a_box_at_its_own_size_is_a_slice():
    maps, (height, width) = random(2, 5, 24, 20), (12, 8)
    places = torch.tensor([[4, 6], [12, 0]])
    boxes = torch.cat([places / torch.tensor([24, 20]), torch.tensor([[height / 24, width / 20]] * 2)], 1)
    slices = [map_[:, top : top + height, left : left + width] for map_, (top, left) in zip(maps, places, strict=True)]
    cropped = filters.crop_and_resize(maps, boxes, height, width)
    torch.testing.assert_close(cropped, torch.stack(slices), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(48, 60), (10, 7)])
def test_the_whole_as_a_box_is_bilinear_resizing(size: tuple[int, int]):
    maps, whole = random(2, 5, 24, 20), torch.tensor([[0.0, 0, 1, 1]] * 2)
    expected = F.interpolate(maps, size, mode="bilinear")
    torch.testing.assert_close(filters.crop_and_resize(maps, whole, *size), expected, atol=1e-5, rtol=0)


# the guided filter


def enlarged_along_edges(small_map: torch.Tensor, small_photo: torch.Tensor, photo: torch.Tensor) -> torch.Tensor:
    """A small map at the photo's size, N x 1 x H x W in [-1, 1], as the pipeline does it for a whole photo."""
    whole = torch.tensor([[0.0, 0, 1, 1]] * len(photo))
    lines = filters.crop_and_resize(filters.guided_lines(small_map, small_photo), whole, *photo.shape[-2:])
    return filters.along_lines(lines, photo)


def test_a_constant_map_stays_constant_on_any_photo():
    photo = random(2, 3, 96, 80)
    small = torch.tensor([-0.4, 0.7]).view(2, 1, 1, 1).expand(2, 1, 24, 20)
    large = enlarged_along_edges(small, filters.resized(photo, 24, 20), photo)
    assert large.shape == (2, 1, 96, 80)
    torch.testing.assert_close(large, small[..., :1, :1].expand_as(large), atol=1e-4, rtol=0)


def test_on_a_flat_photo_it_is_the_smoothed_map_and_stays_in_range():
    photo, small = torch.zeros(1, 3, 64, 64), torch.sign(random(1, 1, 16, 16))
    large = enlarged_along_edges(small, photo[..., :16, :16], photo)
    assert large.abs().max() < 0.5  # of a map of -1 and 1, whose mean is near 0
    beyond = torch.full_like(small, 3)
    assert enlarged_along_edges(beyond, photo[..., :16, :16], photo).max() == 1


def test_an_enlarged_map_follows_the_edge_of_the_photo_closer_than_bilinear_resizing():
    # a bright disc before a dark ground, and a map that is 1 on the disc; nothing of it lies on the small grid
    y, x = np.mgrid[:256, :256]
    disc = torch.from_numpy(np.hypot(y - 121, x - 134) < 61).float()[None, None] * 2 - 1
    photo = (0.6 * disc + 0.3).expand(1, 3, 256, 256)
    small = filters.resized(disc, 32, 32)
    guided = enlarged_along_edges(small, filters.resized(photo, 32, 32), photo)
    bilinear = F.interpolate(small, (256, 256), mode="bilinear")
    assert (guided - disc).abs().mean() < 0.5 * (bilinear - disc).abs().mean()


# coarse to fine


@pytest.mark.parametrize(
    ("height", "width"), [(20, 20), (256, 300), (512, 512), (640, 427), (1200, 3000), (3024, 4032)]
)
def test_sizes_go_from_the_brush_size_to_the_photo_s_in_steps_of_about_two(height: int, width: int):
    sizes = filters.coarse_to_fine(height, width, 256)
    assert sizes[-1] == (height, width)
    assert all(side % 4 == 0 for size in sizes[:-1] for side in size)
    shorter = [min(size) for size in sizes]
    assert shorter[0] == pytest.approx(256, rel=0.2) or height < 256
    assert len(sizes) < 3 or shorter[1] == 528
    assert all(1.2 < b / a <= 2.5 for a, b in itertools.pairwise(shorter))
    assert all(a / b == pytest.approx(height / width, rel=0.03) for a, b in sizes)
    assert filters.coarse_to_fine(height, width, 0) == [(height, width)]


@pytest.mark.parametrize("brush_size", [128, 172, 204, 256])
def test_larger_photos_are_painted_at_the_sizes_of_their_512_px_copy_too(brush_size: int):
    small, large = filters.coarse_to_fine(528, 528, brush_size), filters.coarse_to_fine(2112, 2112, brush_size)
    assert large[: len(small)] == small and len(large) > len(small)


def test_what_is_painted_over_is_its_formula_in_plain_numpy():
    small, photo, saliency = random(2, 3, 12, 16), random(2, 3, 24, 32).flip(3), random(2, 1, 24, 32)

    def enlarged(image: torch.Tensor) -> np.ndarray:
        return filters.resized(image, 24, 32).numpy()

    def grey(image: np.ndarray) -> np.ndarray:
        return np.einsum("nchw,c->nhw", image, LUMA)[:, None]

    broad = enlarged(small) + grey(photo.numpy()) - grey(enlarged(filters.resized(photo, 12, 16)))
    share = (saliency.numpy() + 1) / 2
    expected = np.clip((1 - share) * broad + share * photo.numpy(), -1, 1)
    np.testing.assert_allclose(filters.underpainted(small, photo, saliency).numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(filters.underpainted(small, photo, None).numpy(), broad.clip(-1, 1), atol=1e-5)
    torch.testing.assert_close(filters.underpainted(small, photo, torch.ones(1)), photo)


@pytest.mark.parametrize("width", [3, 5])
def test_lines_are_filled_in_as_the_closing_of_scipy_does(width: int):
    difference, photo = random(2, 3, 24, 32), random(2, 3, 24, 32).flip(3)

    def filled(values: np.ndarray) -> np.ndarray:
        raised = np.pad(values, width, constant_values=-np.inf)  # beyond the border there is nothing to close over
        widest = scipy.ndimage.maximum_filter(raised, width)
        widest[:width] = widest[-width:] = widest[:, :width] = widest[:, -width:] = np.inf
        return scipy.ndimage.minimum_filter(widest, width)[width:-width, width:-width] - values

    grey, grey_photo = (np.einsum("nchw,c->nhw", image.numpy(), LUMA) for image in (difference, photo))
    change = [np.minimum(filled(one), filled(one + its)) for one, its in zip(grey, grey_photo, strict=True)]
    expected = difference.numpy() + np.array(change)[:, None]
    np.testing.assert_allclose(filters.without_lines(difference, photo, width).numpy(), expected, atol=1e-5)


def test_a_thin_dark_line_goes_where_the_photo_has_none_and_the_rest_stays():
    photo = torch.zeros(1, 3, 24, 24)
    photo[..., 4:6, :] = -0.5  # a line of the photo's own
    difference = torch.zeros(1, 3, 24, 24)
    difference[..., 10:12, :] = -0.5  # a thin line of the painting
    difference[..., 16:22, :] = -0.5  # a broad one
    difference[..., 4:6, :] = 0.25  # the photo's line, painted lighter
    expected = difference.clone()
    expected[..., 10:12, :] = 0
    torch.testing.assert_close(filters.without_lines(difference, photo, 3), expected)
    assert filters.without_lines(difference, photo, 0) is difference


def test_what_is_refined_is_its_formula_in_plain_numpy():
    broad, painting = 0.3 * random(2, 3, 20, 28), 0.3 * random(2, 3, 20, 28).flip(3)  # nothing to clamp

    def blurred(image: torch.Tensor) -> np.ndarray:
        return scipy.ndimage.gaussian_filter(image.numpy(), (0, 0, 1, 1), mode="mirror", truncate=3)

    expected = blurred(broad) + painting.numpy() - blurred(painting)
    np.testing.assert_allclose(filters.refined(broad, painting).numpy(), expected, atol=1e-5)


def test_the_noise_begins_at_the_centroid_of_the_squared_map_and_moves_with_it():
    y, x = np.mgrid[:64, :80]
    blob = np.exp(-((y - 20) ** 2 + (x - 50) ** 2) / 50)
    here, there = (torch.from_numpy(np.roll(blob, shift, (0, 1)))[None, None] * 2 - 1 for shift in ((0, 0), (8, -4)))
    weights = blob**2 + 1e-6
    expected = [(weights * (axis + 0.5)).sum() / weights.sum() / side for axis, side in ((y, 64), (x, 80))]
    first, moved = (filters.noise_origin(map_)[0].numpy() for map_ in (here, there))
    np.testing.assert_allclose(first, expected, atol=1e-4)
    np.testing.assert_allclose(moved - first, [8 / 64, -4 / 80], atol=3e-3)


# keep_detail


def fine(grey: np.ndarray) -> np.ndarray:
    return grey - scipy.ndimage.gaussian_filter(grey, (0, 1.5, 1.5), mode="mirror", radius=(0, 4, 4))


def test_keep_detail_is_its_formula_in_plain_numpy():
    photo, painting, saliency = random(2, 3, 40, 48), random(2, 3, 40, 48).flip(3), random(2, 1, 40, 48)
    difference = np.einsum("nchw,c->nhw", (photo - painting).numpy(), LUMA)
    share = 0.7 * (saliency.numpy() + 1) / 2
    expected = np.clip(painting.numpy() + share * fine(difference)[:, None], -1, 1)
    np.testing.assert_allclose(filters.keep_detail(painting, photo, saliency, 0.7).numpy(), expected, atol=1e-5)


def test_grain_goes_and_what_is_stronger_stays_less_by_its_height():
    painting = random(2, 3, 40, 48)
    grain = np.clip(fine(np.einsum("nchw,c->nhw", painting.numpy(), LUMA)), -0.2, 0.2)
    result = filters.without_grain(painting, 0.2)
    np.testing.assert_allclose(result.numpy(), painting.numpy() - grain[:, None], atol=1e-5)
    assert filters.without_grain(painting, 0.0) is painting


def test_the_shock_filter_is_its_formula_in_plain_numpy():
    """Here the direction is the structure tensor's first eigenvector; `shock_filtered` has it in closed form."""
    painting = random(2, 3, 40, 48)
    expected = painting.numpy().astype(np.float64)
    for _ in range(2):
        smooth = gauss(np.einsum("nchw,c->nhw", expected, LUMA), 1)
        y, x = slopes(smooth)
        tensor = np.stack([np.stack([gauss(a * b, 2.5) for b in (x, y)], -1) for a in (x, y)], -1)
        across = np.linalg.eigh(tensor)[1][..., -1]
        (yy, xy), (_, xx) = slopes(y), slopes(x)
        curve = across[..., 0] ** 2 * xx + 2 * across[..., 0] * across[..., 1] * xy + across[..., 1] ** 2 * yy
        edge = np.trace(tensor, axis1=-2, axis2=-1)
        share = 0.5 * edge / (edge + 1e-3) * np.abs(curve) / (np.abs(curve) + 5e-3)
        window = (1, 1, 3, 3)
        darkest = scipy.ndimage.minimum_filter(expected, window)
        lightest = scipy.ndimage.maximum_filter(expected, window)
        extreme = np.where(curve[:, None] > 0, darkest, lightest)
        expected = expected + share[:, None] * (extreme - expected)
    np.testing.assert_allclose(filters.shock_filtered(painting, 2).numpy(), expected, atol=1e-3)
    assert filters.shock_filtered(painting, 0) is painting


def gauss(grey: np.ndarray, sigma: float) -> np.ndarray:
    return scipy.ndimage.gaussian_filter(grey, (0, sigma, sigma), mode="mirror", radius=(0, *[round(3 * sigma)] * 2))


def slopes(grey: np.ndarray) -> list[np.ndarray]:
    """Central differences along rows and columns, mirrored at the border."""
    padded = np.pad(grey, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    return [(padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2, (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2]


def test_the_shock_filter_makes_a_soft_line_crisp_and_leaves_slopes_and_flat_areas():
    place = torch.arange(48.0)
    line = (1 - 1.5 * torch.exp(-0.5 * ((place - 24) / 2.5) ** 2)).expand(1, 3, 48, 48)
    crisp = filters.shock_filtered(line, 4)

    def steepest(image: torch.Tensor) -> float:
        return image[0, 0, 24].diff().abs().max().item()

    assert steepest(crisp) > 1.5 * steepest(line)
    torch.testing.assert_close(crisp.amin(), line.amin())  # no overshoot
    torch.testing.assert_close(crisp[..., :10], line[..., :10], atol=1e-3, rtol=0)
    slope = (place / 48).expand(1, 3, 48, 48)
    torch.testing.assert_close(filters.shock_filtered(slope, 4)[..., 8:-8], slope[..., 8:-8], atol=1e-3, rtol=0)


# noise


def test_the_noise_is_the_same_in_every_process_and_on_every_device():
    # photos are to be painted alike for ever: these numbers are what torch.randn gives for seed 0 on a CPU
    filters._noise_field.cache_clear()
    torch.manual_seed(7)
    with torch.device("meta"):
        first = filters.smooth_noise(1, 4)[0, 0]
    assert first.tolist() == pytest.approx([0.05753, 0.05156, 0.04185, 0.03351], abs=1e-5)


def test_the_noise_belongs_to_places_and_repeats_itself_after_its_period():
    field = filters.smooth_noise(40, 50)
    assert field.shape == (3, 40, 50) and torch.equal(filters.smooth_noise(40, 50), field)
    assert torch.equal(filters.smooth_noise(30, 20, 7, 11), field[:, 7:37, 11:31])
    assert torch.equal(filters.smooth_noise(40, 50, filters.NOISE_PERIOD, 3 * filters.NOISE_PERIOD), field)
    around = filters.smooth_noise(filters.NOISE_PERIOD + 8, filters.NOISE_PERIOD + 8)
    assert torch.equal(around[:, -8:, -8:], around[:, :8, :8])


def test_the_noise_is_smooth_of_its_amplitude_and_without_a_seam_where_it_repeats():
    field = filters.smooth_noise(filters.NOISE_PERIOD, filters.NOISE_PERIOD)
    assert field.mean().abs() < 0.02
    assert field.std() == pytest.approx(len(filters.NOISE_SCALES) ** 0.5, rel=0.2)
    for axis in (1, 2):
        steps = (field - field.roll(1, axis)).abs().mean((0, 3 - axis))
        assert steps.max() < 0.35 * field.std()  # of white noise: 1.13
        assert steps[0] < 2 * steps.mean()
    assert all(torch.corrcoef(field.flatten(1))[a, b].abs() < 0.05 for a, b in ((0, 1), (1, 2), (0, 2)))
