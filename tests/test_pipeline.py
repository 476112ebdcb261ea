"""sdpgan_hub/pipeline.py: tiles are painted as the whole is, in memory that hardly grows with the photo."""

import numpy as np
import PIL.Image
import pytest
import torch
from assertions import refusal
from skimage import data
from test_model import DEPARTED, TINY, built

from sdpgan_hub import SDPGAN, filters, imaging, pipeline
from sdpgan_hub.networks import OutputConvolution
from sdpgan_hub.pipeline import Photo, tiles

NOISY = {**DEPARTED, "noise": 1.0, "saliency_size": 32, "shock_filter": 1}


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """Sides that are no multiples of 4."""
    return np.ascontiguousarray(data.astronaut()[:203, 100:271])


def calls_of(network: torch.nn.Module, do) -> list[tuple[int, int]]:
    """Heights and widths of what `network` is given meanwhile."""
    sizes: list[tuple[int, int]] = []
    with network.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape[-2:]))):
        do()
    return sizes


def levels_apart(one: np.ndarray, other: np.ndarray) -> int:
    return np.abs(one.astype(int) - other.astype(int)).max()


# tiles


@pytest.mark.parametrize(("size", "side"), [((203, 172), 64), ((16, 16), 16), ((1000, 4), 100), ((20, 20), 17)])
def test_tiles_cover_each_pixel_once_and_are_no_larger_than_asked(size: tuple[int, int], side: int):
    covered = np.zeros(size, int)
    for top, bottom, left, right in tiles(size, side):
        covered[top:bottom, left:right] += 1
        assert top % 4 == left % 4 == 0
        assert 0 < bottom - top <= side and 0 < right - left <= side
    assert (covered == 1).all()
    assert tiles(size, None) == [(0, size[0], 0, size[1])]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"brush_size": 0},
        {"upsampling": "transposed", "antialiasing": False, "residual_blocks": 2, "shock_filter": 0},  # it reaches far
        {"feature_concatenation": False},
        {"feature_concatenation": False, "saliency_network": False},
    ],
    ids=["departed", "once", "transposed", "without_concatenation", "without_S"],
)
def test_a_pixel_normed_style_paints_in_tiles_what_it_paints_whole(photo: np.ndarray, options: dict):
    model, photo = built({**NOISY, **options}), photo.astype(np.float32) / 255
    with_map = model.saliency_network is not None
    wishes = {"return_saliency": True, "keep_detail": 0.7} if with_map else {}
    whole, tiled = (model.stylize(photo, tile=tile, **wishes) for tile in (None, 64))
    sizes = calls_of(model.generator, lambda: model.stylize(photo, tile=64, **wishes))
    assert len(sizes) >= 9 and max(map(max, sizes)) < 203
    assert len(set(sizes[-9:])) == 1  # each reuses the memory of the last
    if with_map:
        np.testing.assert_allclose(whole[1], tiled[1], atol=1e-4)
        whole, tiled = whole[0], tiled[0]
    assert whole.std() > 0.008
    np.testing.assert_allclose(whole, tiled, atol=2e-5)  # a grey level is 0.004


@torch.no_grad()
def looking_far(options: dict) -> SDPGAN:
    """Each kernel has its first tap alone, so what lies furthest counts most, and steep outputs show little changes."""
    model = built({**TINY, "upsampling": "bilinear", "antialiasing": True, **options})
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.kernel_size != (1, 1):
            layer.weight.zero_()[..., 0, 0].normal_()
            layer.weight *= 20 if isinstance(layer, OutputConvolution) else 1
    return model


@pytest.mark.parametrize(
    ("options", "method", "wishes"),
    [
        ({"feature_concatenation": False, "saliency_network": False}, SDPGAN.stylize, {}),
        (
            {"feature_concatenation": False, "saliency_network": False},
            SDPGAN.stylize,
            {"mask": np.full((203, 171), True), "keep_detail": 1},
        ),
        ({"context_blocks": 1}, SDPGAN.stylize, {"brush": 2}),
        ({"context_blocks": 1}, SDPGAN.saliency_map, {}),
    ],
    ids=["G", "G_and_detail", "G_over_S", "S"],
)
def test_a_tile_overlaps_its_neighbours_as_far_as_it_depends_on_them(photo, options: dict, method, wishes: dict):
    """Of instance-normed models, whose tiles share their statistics; each tile's own would give other colours."""
    model, photo = looking_far(options), photo.astype(np.float32) / 255
    whole, tiled = (method(model, photo, tile=tile, **wishes) for tile in (None, 64))
    assert whole.std() > 0.2
    np.testing.assert_allclose(tiled, whole, atol=0.1 / 255)


def test_the_statistics_come_from_a_copy_of_a_bounded_size(photo: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pipeline, "STATISTICS_SIZE", 96)
    model = built(TINY)
    sizes = calls_of(model.generator, lambda: model.stylize(photo, tile=64))
    assert sizes[0] == (96, 80)
    assert len(sizes) == 13


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 5), (15, 16), (16, 16), (17, 33), (64, 30)])
def test_the_photo_is_mirrored_beyond_its_border_to_sides_the_networks_take(size: tuple[int, int]):
    values = torch.randint(256, (2, 3, *size), dtype=torch.uint8)
    photo = Photo(values)
    beyond = [(0, side - own) for side, own in zip(photo.size, size, strict=True)]
    signed = imaging.to_signed(values).numpy()
    padded = torch.from_numpy(np.pad(signed, [(0, 0), (0, 0), *beyond], mode="reflect"))
    assert photo.size == tuple(padded.shape[-2:]) and all(side % 4 == 0 and side >= 16 for side in photo.size)
    assert max(extra for _, extra in beyond) < 16
    torch.testing.assert_close(photo.read((0, photo.size[0], 0, photo.size[1])), padded)
    torch.testing.assert_close(photo.read((3, 15, photo.size[1] - 2, photo.size[1])), padded[..., 3:15, -2:])


def test_a_style_of_several_sizes_sees_the_photo_mirrored_beyond_its_border(photo: np.ndarray):
    """So what its networks do at the border of what they see lies beyond the painting."""
    model = built({**DEPARTED, "brush_size": 256})
    painting = model.stylize(photo)

    def fringed(network, inputs, result: torch.Tensor) -> torch.Tensor:
        fringe = torch.ones_like(result)
        fringe[..., 3:-3, 3:-3] = result[..., 3:-3, 3:-3]
        return fringe

    model.generator.register_forward_hook(fringed)
    np.testing.assert_array_equal(model.stylize(photo), painting)

    values = torch.randint(256, (1, 3, 203, 171), dtype=torch.uint8)
    framed = Photo(values).framed(64)
    assert framed.size == (212, 180) and Photo(values).framed(0).size == (204, 172)
    margin = [(0, 0), (0, 0), (3, 6), (3, 6)]
    padded = np.pad(imaging.to_signed(values).numpy(), margin, mode="reflect")
    torch.testing.assert_close(framed.read((0, 212, 0, 180)), torch.from_numpy(padded))
    assert framed.within((0, 212, 40, 180)) == (3, 206, 40, 174)


def test_tiles_that_are_all_margin_are_left_out(photo: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pipeline.filters, "MARGIN_SHARE", 8)  # 22 px
    model = built({**NOISY, "brush_size": 256})
    whole, tiled = (model.stylize(photo, tile=tile, strength=0.5) for tile in (None, 16))
    assert levels_apart(whole, tiled) <= 1


@pytest.mark.parametrize("widths", [[15, 0], [0, 15]])
def test_tiles_with_instance_norm_get_the_statistics_of_what_they_are_painted_over(photo: np.ndarray, widths: list):
    model = built({**TINY, "brush_size": 32, "clear_lines": widths})
    whole, tiled = (model.stylize(photo[:116, :116].astype(np.float32) / 255, tile=tile) for tile in (None, 64))
    np.testing.assert_allclose(whole, tiled, atol=1e-3)


@pytest.mark.parametrize(("brush_size", "viewed", "cleared"), [(32, 528, 1), (32, 60, 2), (64, 528, 1), (0, 528, 0)])
def test_grain_is_cleared_at_the_last_size_and_from_the_viewed_size_on(
    photo: np.ndarray, monkeypatch, brush_size: int, viewed: int, cleared: int
):
    monkeypatch.setattr(pipeline.filters, "VIEWED_SIZE", viewed)
    model, sizes = built({**NOISY, "brush_size": brush_size}), []
    original = pipeline.filters.without_grain
    monkeypatch.setattr(pipeline.filters, "without_grain", lambda *args: sizes.append(args[1]) or original(*args))
    model.stylize(photo[:128, :128], tile=None)
    assert sizes == [0.05] * cleared


@pytest.mark.parametrize(("brush_size", "viewed", "times"), [(32, 528, 1), (32, 60, 2), (0, 528, 1)])
def test_contours_get_crisp_at_the_last_size_and_from_the_viewed_size_on_but_not_where_a_mask_keeps_the_photo(
    photo: np.ndarray, monkeypatch, brush_size: int, viewed: int, times: int
):
    monkeypatch.setattr(pipeline.filters, "VIEWED_SIZE", viewed)
    plain, crisp = (built({**NOISY, "brush_size": brush_size, "shock_filter": steps}) for steps in (0, 2))
    painted, original = [], pipeline.filters.shock_filtered
    monkeypatch.setattr(pipeline.filters, "shock_filtered", lambda *args: painted.append(args[1]) or original(*args))
    part = photo[:128, :128]
    assert levels_apart(plain.stylize(part, tile=None), crisp.stylize(part, tile=None)) > 0
    assert painted == [2] * times
    white = np.full(part.shape[:2], True)
    np.testing.assert_array_equal(plain.stylize(part, mask=white), crisp.stylize(part, mask=white))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_tiles_of_every_dtype_and_of_grey_and_of_a_batch(photo: np.ndarray, dtype: str):
    model = built(NOISY)
    white = {"uint8": 1, "uint16": 257, "float32": 1 / 255}[dtype]
    image = (photo[..., 0] * np.float64(white)).astype(dtype)
    whole, tiled = (model.stylize(image, tile=tile) for tile in (None, 96))
    assert tiled.dtype == np.dtype(dtype) and tiled.shape == photo.shape
    np.testing.assert_allclose(whole / white, tiled / white, atol=1)
    batch = torch.from_numpy(np.stack([photo, photo[::-1]])).movedim(3, 1)
    assert levels_apart(model.stylize(batch, tile=96).numpy(), model.stylize(batch, tile=None).numpy()) <= 1


# choosing


@pytest.mark.parametrize(
    ("free", "budget", "whole"), [(2**40, 2**31, True), (2**20, 2**31, False), (2**40, 2**20, False)]
)
def test_auto_takes_tiles_where_the_whole_needs_too_much(photo, monkeypatch, free: int, budget: int, whole: bool):
    monkeypatch.setattr(pipeline, "free_memory", lambda _: free)
    monkeypatch.setattr(pipeline, "WHOLE_BYTES", budget)
    monkeypatch.setattr(pipeline, "TILE_BYTES", budget)
    model = built({**NOISY, "brush_size": 0})
    sizes = calls_of(model.generator, lambda: model.stylize(photo))
    assert (sizes == [(204, 172)]) is whole and (len(sizes) > 1) is not whole


@pytest.mark.parametrize("options", [TINY, NOISY])
def test_max_size_and_the_map_alone_work_in_tiles_too(photo: np.ndarray, options: dict):
    model = built(options)
    small = [model.stylize(photo, max_size=128, tile=tile) for tile in (None, 128)]
    assert levels_apart(*small) == 0
    shrunk = PIL.Image.fromarray(photo).resize((108, 128), PIL.Image.Resampling.BICUBIC)
    enlarged = model.stylize(shrunk).resize((171, 203), PIL.Image.Resampling.BICUBIC)
    assert np.abs(small[0].astype(int) - np.asarray(enlarged)).mean() < 2
    maps = [model.saliency_map(photo, tile=tile) for tile in (None, 64)]
    np.testing.assert_allclose(*maps, atol=1e-4 if options is NOISY else 0.2)


# brush, strength, colour and masks


@pytest.mark.parametrize(("brush_size", "brush", "first"), [(64, 1, 64), (64, 2, 32), (64, 4, 16), (64, 0.5, 128)])
def test_twice_the_brush_paints_first_at_half_the_size(photo: np.ndarray, brush_size: int, brush: float, first: int):
    model = built({**DEPARTED, "brush_size": brush_size})
    sizes = calls_of(model.generator, lambda: model.stylize(photo, brush=brush))
    assert min(sizes[0]) == pytest.approx(first, rel=0.25) and sizes[-1] == (212, 180)  # with the margin


def test_a_style_without_brush_size_gets_broader_strokes_from_its_photo_s_own_size(photo: np.ndarray):
    model = built(TINY)
    sizes = {brush: calls_of(model.generator, lambda b=brush: model.stylize(photo, brush=b)) for brush in (0.5, 1, 2)}
    assert sizes == {0.5: [(204, 172)], 1: [(204, 172)], 2: [(100, 84), (204, 172)]}
    assert levels_apart(model.stylize(photo, brush=2), model.stylize(photo)) > 5


@pytest.mark.parametrize("tile", [None, 64])
@pytest.mark.parametrize("max_size", [None, 100])
def test_strength_goes_from_the_photo_over_the_painting_beyond(photo: np.ndarray, tile, max_size):
    model = built(DEPARTED)
    limits = {"tile": tile, "max_size": max_size}
    painting = model.stylize(photo, **limits)
    np.testing.assert_array_equal(model.stylize(photo, strength=0, **limits), photo)
    np.testing.assert_array_equal(model.stylize(photo, strength=1, **limits), painting)
    for strength in (0.5, 1.5):
        expected = (photo + strength * (painting.astype(float) - photo)).clip(0, 255)
        np.testing.assert_allclose(model.stylize(photo, strength=strength, **limits), expected, atol=1.3)


def test_keep_color_paints_luma_and_leaves_the_photo_s_chroma(photo: np.ndarray):
    model = built(DEPARTED)
    image = photo.astype(np.float32) / 255 * 0.2 + 0.4  # nothing to clip
    painting, kept = model.stylize(image), model.stylize(image, keep_color=True)
    weights = np.array([0.299, 0.587, 0.114])
    change = kept - image
    np.testing.assert_allclose(change, np.broadcast_to(change[..., :1], change.shape), atol=1e-5)
    np.testing.assert_allclose(kept @ weights, painting @ weights, atol=1e-5)
    assert np.abs(kept - painting).max() > 0.02


def test_what_is_painted_does_not_depend_on_torchs_defaults(photo: np.ndarray):
    model = built({**DEPARTED, "brush_size": 32})
    expected = model.stylize(photo)
    device, dtype = torch.get_default_device(), torch.get_default_dtype()
    try:
        torch.set_default_device("meta")
        torch.set_default_dtype(torch.float64)
        painting = model.stylize(photo)
    finally:
        torch.set_default_device(device)
        torch.set_default_dtype(dtype)
    np.testing.assert_array_equal(painting, expected)


def test_the_smallest_size_is_painted_once():
    assert filters.coarse_to_fine(40, 52, 1e-300) == [(16, 16), *filters.coarse_to_fine(40, 52, 16)[-2:]]


def test_a_mask_takes_the_place_of_the_map(photo: np.ndarray):
    model, once = (built({**DEPARTED, "brush_size": size, "clear_grain": 0.0}) for size in (32, 1024))
    white, black = np.full(photo.shape[:2], True), np.zeros(photo.shape[:2], np.uint8)
    np.testing.assert_array_equal(model.stylize(photo, mask=white, keep_detail=0), once.stylize(photo))
    assert levels_apart(model.stylize(photo, mask=black), once.stylize(photo)) > 2
    np.testing.assert_array_equal(once.stylize(photo, mask=black), once.stylize(photo))
    half = black.copy()
    half[:, :80] = 255
    kept = once.stylize(photo, mask=half)  # all of the detail, unless told otherwise
    np.testing.assert_array_equal(kept, once.stylize(photo, mask=half, keep_detail=1))
    changed = np.abs(kept.astype(int) - once.stylize(photo)).max(2)
    assert changed[:, :80].max() > 5 and changed[:, 80:].max() == 0
    drawn = np.dstack([np.full_like(photo, 255), half])  # white on a transparent layer
    for layer in (drawn, PIL.Image.fromarray(drawn), torch.from_numpy(drawn).permute(2, 0, 1)):
        np.testing.assert_array_equal(once.stylize(photo, mask=layer), kept)
    assert levels_apart(once.stylize(photo, mask=half, tile=64), kept) <= 1
    each = once.stylize([photo, photo[:64]], mask=[PIL.Image.fromarray(half), None])
    np.testing.assert_array_equal(each[0], kept)
    without_s = SDPGAN(**TINY, feature_concatenation=False, saliency_network=False).eval()
    assert levels_apart(without_s.stylize(photo, mask=white), without_s.stylize(photo)) > 2


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *(("tile", value) for value in (0, 15, -64, 64.0, "64", "off", True)),
        *(("max_size", value) for value in (0, 15, -1, 3.5, "64", True)),
        ("keep_detail", 1.5),
        *(("brush", value) for value in (0, -1, 10**400, float("inf"), float("nan"), "1", True, None)),
        *(("strength", value) for value in (-0.1, 10**400, 1e39, float("inf"), float("nan"), "1", True, None)),
        *(("keep_color", value) for value in (1, "yes", None)),
    ],
)
def test_a_value_out_of_its_range_is_refused(photo: np.ndarray, argument: str, value: object):
    model = SDPGAN(**TINY)
    refusal(lambda: model.stylize(photo, **{argument: value}), argument, repr(value))
    if argument in ("tile", "max_size"):
        refusal(lambda: model.saliency_map(photo, **{argument: value}), argument, repr(value))


def test_a_mask_that_does_not_fit_is_refused(photo: np.ndarray):
    model = SDPGAN(**TINY)
    refusal(lambda: model.stylize(photo, mask=photo[:100]), "mask", "171 x 100", "171 x 203")
    refusal(lambda: model.stylize([photo, photo], mask=[photo]), "2 images", "1 mask")
    refusal(lambda: model.stylize(torch.zeros(2, 3, 20, 20), mask=torch.zeros(3, 1, 20, 20)), "2 photos", "3 masks")
    refusal(lambda: model.stylize([photo, photo[:100]], mask=photo), "2 of 2", "mask")
    refusal(lambda: model.stylize(photo, mask="no.png"), "no.png")
