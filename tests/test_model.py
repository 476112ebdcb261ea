"""SDPGAN: images in and out at their own size, S run once, and files that are read strictly or refused.

A refusal is one sentence; tests look for the name and the value in it, and leave its words alone.
"""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import safetensors.torch
import torch
from assertions import refusal
from huggingface_hub import ModelCard
from skimage import data
from test_filters import enlarged_along_edges

from sdpgan_hub import SDPGAN, checkpoint, filters, imaging

TINY = {"base_channels": 4, "residual_blocks": 1}
DEPARTED = {
    **TINY,
    "upsampling": "bilinear",
    "context_blocks": 2,
    "saliency_size": 64,
    "normalization": "pixel",
    "antialiasing": True,
    "noise": 0.05,
    "brush_size": 32,
    "clear_lines": [3, 5],
    "clear_grain": 0.05,
}
"""The departures from the paper that the networks of the shipped styles have, all at once."""


def built(options: dict) -> SDPGAN:
    torch.manual_seed(0)
    return SDPGAN(**options).eval()


@pytest.fixture(scope="module")
def model() -> SDPGAN:
    return built(TINY)


@pytest.fixture(scope="module", params=[TINY, DEPARTED], ids=["paper", "departed"])
def either(request: pytest.FixtureRequest) -> SDPGAN:
    return built(request.param)


@pytest.fixture
def saved(model, tmp_path) -> Path:
    folder = tmp_path / "tiny"
    model.save_pretrained(folder)
    return folder


def signed(image: np.ndarray) -> torch.Tensor:
    """uint8 H x W x 3 as the networks take it."""
    return imaging.to_signed(torch.from_numpy(image).permute(2, 0, 1)[None])


# stylize and saliency_map


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 5), (15, 16), (16, 16), (17, 33), (64, 30)])
def test_the_painting_and_the_map_have_exactly_the_photo_s_size(either, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    painting, saliency = either.stylize(image, return_saliency=True)
    assert painting.shape == (*size, 3) and painting.dtype == np.uint8
    assert saliency.shape == size and saliency.dtype == np.float32
    assert 0 <= saliency.min() and saliency.max() <= 1


def test_the_painting_is_the_generator_s_output_and_the_map_half_of_one_plus_s(model, photo):
    image = photo[:60]  # a size that needs no padding
    x = signed(image)
    with torch.no_grad():
        saliency, features = model.saliency_network(x)
        painting = model.generator(x, features)
    result, map_ = model.stylize(image.astype(np.float32) / 255, return_saliency=True)
    np.testing.assert_allclose(result, (painting[0].permute(1, 2, 0).numpy() + 1) / 2, atol=1e-5)
    np.testing.assert_allclose(map_, (saliency[0, 0].numpy() + 1) / 2, atol=1e-5)


def test_every_kind_of_one_photo_gives_the_same_painting(model, photo, tmp_path):
    PIL.Image.fromarray(photo).save(tmp_path / "photo.png")
    expected = model.stylize(photo)
    for image in (tmp_path / "photo.png", str(tmp_path / "photo.png"), PIL.Image.fromarray(photo)):
        result = model.stylize(image)
        assert isinstance(result, PIL.Image.Image) and result.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(result), expected)
    tensor = model.stylize(torch.from_numpy(photo).permute(2, 0, 1))
    assert tensor.dtype == torch.uint8
    np.testing.assert_array_equal(tensor.permute(1, 2, 0).numpy(), expected)
    deep = model.stylize(photo.astype(np.uint16) * 257)
    assert deep.dtype == np.uint16
    np.testing.assert_allclose(deep / 257, expected, atol=0.51)


def test_alpha_is_kept_and_does_not_touch_the_colours_of_what_is_seen(model, photo):
    alpha = 128 + photo[..., 1:2] // 2  # below half, colours come from what is seen beside it
    result = model.stylize(np.dstack([photo, alpha]))
    np.testing.assert_array_equal(result[..., 3:], alpha)
    np.testing.assert_array_equal(result[..., :3], model.stylize(photo))


def test_a_list_gives_a_list_equal_to_its_images_one_by_one(either, photo):
    images = [photo, photo[::-1], PIL.Image.fromarray(photo), photo[:20], torch.rand(2, 3, 61, 44), photo]
    paintings, maps = either.stylize(images, return_saliency=True)
    assert [type(painting) for painting in paintings] == [type(image) for image in images]
    for image, painting, saliency in zip(images, paintings, maps, strict=True):
        alone, map_alone = either.stylize(image, return_saliency=True)
        tolerance = 1e-4 if isinstance(image, torch.Tensor) else 1
        np.testing.assert_allclose(np.asarray(painting, float), np.asarray(alone, float), atol=tolerance)
        np.testing.assert_allclose(saliency, map_alone, atol=1e-4)
    assert [np.shape(saliency) for saliency in maps] == [np.shape(m) for m in either.saliency_map(images)]


def test_a_batched_tensor_is_painted_in_batches_up_to_the_limit(model, photo, monkeypatch):
    batches = []
    monkeypatch.setattr("sdpgan_hub.pipeline.BATCH_PIXELS", 2 * photo.shape[0] * photo.shape[1])
    with model.generator.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0]))):
        model.stylize([photo, torch.rand(5, 3, 61, 44)])
    assert batches == [1, 2, 2, 1]


def test_an_empty_list_gives_an_empty_list(model):
    assert model.stylize([]) == [] and model.saliency_map(()) == []
    assert model.stylize([], return_saliency=True) == ([], [])


def test_a_batched_tensor_gives_a_batched_tensor_and_maps(either):
    images = torch.rand(3, 3, 18, 21)
    paintings, maps = either.stylize(images, return_saliency=True)
    assert paintings.shape == images.shape and maps.shape == (3, 18, 21)
    torch.testing.assert_close(paintings[1], either.stylize(images[1]), atol=1e-5, rtol=0)


def test_a_painting_tensor_can_take_part_in_training(model):
    painting = model.stylize(torch.rand(3, 16, 16, requires_grad=True))
    weight = torch.ones(3, 16, 16, requires_grad=True)
    (painting * weight).sum().backward()
    assert not painting.requires_grad and torch.equal(weight.grad, painting)


@pytest.mark.parametrize(
    ("call", "runs_of_s", "runs_of_its_decoder"),
    [
        (lambda model, image: model.stylize(image, return_saliency=True), 1, 1),
        (lambda model, image: model.stylize(image), 1, 0),
        (lambda model, image: model.stylize(image, keep_detail=0.5), 1, 1),
        (lambda model, image: model.saliency_map(image), 1, 1),
    ],
)
def test_s_runs_once_and_its_decoder_only_for_a_map(either, photo, call, runs_of_s, runs_of_its_decoder):
    ran = []
    with (
        either.saliency_network.down1.register_forward_hook(lambda *_: ran.append("S")),
        either.saliency_network.output[0].register_forward_hook(lambda *_: ran.append("decoder")),
    ):
        call(either, photo)
    runs_of_its_decoder = max(runs_of_its_decoder, either.config["brush_size"] > 0)  # painting over takes a map
    assert (ran.count("S"), ran.count("decoder")) == (runs_of_s, runs_of_its_decoder)


def test_without_feature_concatenation_a_painting_needs_no_run_of_s(photo):
    model = SDPGAN(**TINY, feature_concatenation=False)
    ran = []
    model.saliency_network.down1.register_forward_hook(lambda *_: ran.append("S"))
    assert model.stylize(photo).shape == photo.shape
    assert ran == []


def test_a_map_alone_equals_the_map_beside_a_painting(either, photo):
    np.testing.assert_array_equal(either.saliency_map(photo), either.stylize(photo, return_saliency=True)[1])


def test_max_size_bounds_what_the_networks_see_and_not_the_painting(either, photo):
    seen = []
    with either.generator.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[-2:]))):
        painting, saliency = either.stylize(photo, return_saliency=True, max_size=32)
    # 61 x 44 in proportion is 32 x 23, padded to 24; with the margin of a style that paints coarse to fine, 34 x 25
    assert seen == [(36, 28) if either.config["brush_size"] else (32, 24)]
    assert painting.shape == photo.shape and saliency.shape == photo.shape[:2]
    assert 0 <= saliency.min() and saliency.max() <= 1
    np.testing.assert_array_equal(either.stylize(photo, max_size=61), either.stylize(photo))


def test_a_bad_image_in_a_list_is_named_by_its_place(model, photo):
    refusal(lambda: model.stylize([photo, photo.astype(np.int64), photo]), "2 of 3", "int64")


def test_bfloat16_parameters_give_nearly_the_same_painting(either, photo):
    half = SDPGAN(**either.config)
    half.load_state_dict(either.state_dict())
    painting, saliency = half.to(torch.bfloat16).eval().stylize(photo, return_saliency=True, keep_detail=0.5)
    assert painting.dtype == np.uint8 and saliency.dtype == np.float32
    assert np.abs(painting.astype(int) - either.stylize(photo, keep_detail=0.5)).mean() < 4


def test_weights_that_give_nan_are_an_error_and_not_a_black_picture(photo):
    model = SDPGAN(**TINY)
    torch.nn.init.constant_(model.generator.output[0].bias, float("nan"))
    refusal(lambda: model.stylize(photo), "finite", "float32")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_painting_is_the_cpu_s_and_a_tensor_comes_back_to_its_own_device(model, photo, saved):
    on_gpu = SDPGAN.from_pretrained(saved, map_location="cuda")
    assert on_gpu.device.type == "cuda"
    on_cpu = SDPGAN.from_pretrained(saved)
    assert np.abs(on_gpu.stylize(photo).astype(int) - on_cpu.stylize(photo)).max() <= 3
    tensor = torch.rand(3, 20, 20)
    assert on_gpu.stylize(tensor).device.type == "cpu"
    assert on_gpu.stylize(tensor.cuda()).device.type == on_cpu.stylize(tensor.cuda()).device.type == "cuda"


# saving


def test_a_saved_model_comes_back_as_float32_rounded_to_half_precision_in_eval_mode(model, saved):
    loaded = SDPGAN.from_pretrained(saved)
    assert not loaded.training and loaded.config == model.config
    expected = {name: value.half().float() for name, value in model.state_dict().items()}
    assert loaded.state_dict().keys() == expected.keys()
    for name, value in loaded.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, expected[name])
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_on_a_cpu_weights_are_laid_out_as_the_faster_channels_last(saved):
    for parameter in SDPGAN.from_pretrained(saved).parameters():
        assert parameter.ndim < 4 or parameter.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_weights_are_safetensors_in_the_dtype_asked_for(model, tmp_path, dtype):
    model.save_pretrained(tmp_path, dtype=dtype)
    with safetensors.safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    stored = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert {value.dtype for value in stored.values()} == {dtype}
    if dtype == torch.float32:
        for name, value in SDPGAN.from_pretrained(tmp_path).state_dict().items():
            assert torch.equal(value, model.state_dict()[name])


def test_saving_what_was_loaded_writes_the_same_bytes_and_the_card_it_came_with(saved, tmp_path):
    SDPGAN.from_pretrained(saved).save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors", "README.md"):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()


def test_config_json_holds_the_arguments_and_the_marker(saved):
    assert json.loads((saved / "config.json").read_text()) == {
        "model_type": "sdpgan",
        "base_channels": 4,
        "residual_blocks": 1,
        "upsampling": "transposed",
        "feature_concatenation": True,
        "saliency_network": True,
        "context_blocks": 0,
        "saliency_size": 0,
        "normalization": "instance",
        "antialiasing": False,
        "noise": 0.0,
        "brush_size": 0,
        "clear_lines": [0, 0],
        "clear_grain": 0.0,
        "shock_filter": 0,
        "keep_detail": 0.0,
    }


@pytest.mark.parametrize(
    "options",
    [
        {**DEPARTED, "keep_detail": 0.25, "residual_blocks": 0},
        {**DEPARTED, "base_channels": 5, "feature_concatenation": False, "saliency_network": False},
    ],
)
def test_every_argument_survives_the_round_trip(tmp_path, options):
    built(options).save_pretrained(tmp_path)
    model = SDPGAN.from_pretrained(tmp_path)
    assert options.items() <= model.config.items()
    assert model.stylize(np.zeros((20, 20, 3), np.uint8)).shape == (20, 20, 3)


def test_a_config_json_from_before_the_departures_means_the_paper(saved):
    first = {"model_type", "base_channels", "residual_blocks", "upsampling", "feature_concatenation"}
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({key: config[key] for key in first}))
    assert SDPGAN.from_pretrained(saved).config == {key: config[key] for key in config if key != "model_type"}


# the departures from the paper


@pytest.mark.parametrize("share", [0.7, 1])
def test_keep_detail_is_the_filter_on_what_comes_without_it(either, photo, share):
    image = photo[:60].astype(np.float32) / 255  # a size that needs no padding
    painting, saliency = either.stylize(image, return_saliency=True)
    expected = filters.keep_detail(
        signed(painting), signed(image), torch.from_numpy(saliency)[None, None] * 2 - 1, share
    )
    result, same_saliency = either.stylize(image, return_saliency=True, keep_detail=share)
    assert np.abs(result - painting).max() > 0.05
    inside = slice(filters.DETAIL_REACH, -filters.DETAIL_REACH)  # beyond, the filter sees the margin
    expected = (expected[0].permute(1, 2, 0).numpy() + 1) / 2
    np.testing.assert_allclose(result[inside, inside], expected[inside, inside], atol=1e-5)
    np.testing.assert_array_equal(same_saliency, saliency)
    np.testing.assert_array_equal(either.stylize(image, keep_detail=share), result)


def test_a_style_s_own_keep_detail_is_the_default_of_stylize_and_no_part_of_forward(model, photo):
    style = SDPGAN(**TINY, keep_detail=0.7).eval()
    style.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(style.stylize(photo), model.stylize(photo, keep_detail=0.7))
    np.testing.assert_array_equal(style.stylize(photo, keep_detail=0), model.stylize(photo))
    torch.testing.assert_close(style(signed(photo[:60]))[0], model(signed(photo[:60]))[0])


@torch.no_grad()
def test_with_a_saliency_size_the_map_is_that_of_a_square_copy_along_the_photo_s_edges(photo):
    model, x = built({**DEPARTED, "brush_size": 0}), signed(photo[:60])
    copy = filters.resized(x, 64, 64)
    saliency, features = model.saliency_network(copy)
    expected = (enlarged_along_edges(saliency, copy, x)[0, 0].numpy() + 1) / 2
    np.testing.assert_allclose(model.saliency_map(photo[:60]), expected, atol=1e-5)
    origin = (filters.noise_origin(saliency)[0] * torch.tensor(x.shape[-2:])).round().int().tolist()
    noise = 0.05 * filters.smooth_noise(*x.shape[-2:])
    assert not torch.allclose(model(x)[0], model.generator(x + noise, features), atol=1e-3, rtol=0)
    noise = 0.05 * filters.smooth_noise(*x.shape[-2:], -origin[0], -origin[1])
    torch.testing.assert_close(model(x)[0], model.generator(x + noise, features), atol=1e-5, rtol=0)


def test_with_a_saliency_size_the_map_of_an_enlarged_photo_is_that_of_the_photo():
    image = np.ascontiguousarray(data.astronaut()[:256, 80:336])
    photos = [np.asarray(PIL.Image.fromarray(image).resize((side, side))) for side in (128, 256)]
    change = {}
    for size in (0, 64):
        maps = [built({**DEPARTED, "saliency_size": size}).saliency_map(photo) for photo in photos]
        shrunk = maps[1].reshape(128, 2, 128, 2).mean((1, 3))
        change[size] = np.abs(maps[0] - shrunk).mean() / maps[0].std()
    assert change[64] < 0.1 and change[0] > 2 * change[64]


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"feature_concatenation": False}])
def test_crops_with_their_boxes_are_painted_as_in_the_whole_photo(options):
    # G is local here; S, whose norms see the whole image, looks at the same copy of the whole photo
    model = built({**DEPARTED, "noise": 0.0, "brush_size": 0, **options}).double()
    photo = signed(np.ascontiguousarray(data.astronaut()[:128, 150:294])).double()
    painting, _ = model(photo)
    copy = filters.resized(photo, 64, 64)
    everything, _ = model(photo, copy, torch.tensor([[0.0, 0, 1, 1]]))
    torch.testing.assert_close(everything, painting, atol=1e-4, rtol=0)
    top, left, height, width = 24, 32, 96, 104
    boxes = torch.tensor([[top / 128, left / 144, height / 128, width / 144]])
    crop, map_of_the_whole = model(photo[..., top : top + height, left : left + width], copy, boxes)
    cropped = painting[..., top : top + height, left : left + width]
    torch.testing.assert_close(map_of_the_whole, model.saliency_network(copy)[0])
    torch.testing.assert_close(crop[..., 36:-36, 36:-36], cropped[..., 36:-36, 36:-36], atol=1e-4, rtol=0)
    if not options:
        elsewhere, _ = model(photo[..., top : top + height, left : left + width], copy, boxes.flip(1))
        assert (elsewhere - crop).abs().max() > 1e-2


def test_noise_gives_flat_areas_something_to_paint_from_and_the_same_each_time():
    flat = np.full((96, 96, 3), 128, np.uint8)
    inside = {}
    for noise in (0.0, 1.0):
        model = built({**DEPARTED, "noise": noise, "brush_size": 0})
        painting = model.stylize(flat)
        np.testing.assert_array_equal(model.stylize(flat), painting)
        np.testing.assert_array_equal(model.stylize([flat, flat[:, :32]])[0], painting)
        inside[noise] = painting[16:80, 16:80].astype(float).std((0, 1)).max()
    assert inside[0.0] < 0.5 and inside[1.0] > 2


@torch.no_grad()
def test_noise_starts_where_it_is_told():
    model = built({**DEPARTED, "noise": 1.0})
    photos, whole, boxes = torch.zeros(2, 3, 64, 64), torch.zeros(2, 3, 64, 64), torch.tensor([[0.0, 0, 1, 1]] * 2)
    first, second = model(photos, whole, boxes, torch.tensor([[0, 0], [8, 4]]))[0]
    assert (first - second).abs().max() > 0.01
    torch.testing.assert_close(first[:, 40:-16, 36:-16], second[:, 32:-24, 32:-20], atol=0.01, rtol=0)


# coarse to fine


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"saliency_network": False, "feature_concatenation": False}])
def test_a_photo_larger_than_the_brush_size_is_painted_over_a_smaller_painting_of_it(options):
    model = built({**DEPARTED, **options})
    photo = signed(np.ascontiguousarray(data.astronaut()[:64, 150:246]))
    once = built({**DEPARTED, **options, "brush_size": 0})
    features, map_ = None, None
    if model.saliency_network is not None:
        copy = filters.resized(photo, 64, 64)
        saliency, features = model.saliency_network(copy)
        map_ = enlarged_along_edges(saliency, copy, photo)
    starts = {}
    for size in ((32, 48), (64, 96)):
        at = 0 if map_ is None else filters.noise_origin(saliency) * torch.tensor(size)
        starts[size] = None if map_ is None else -at.round().int()
    small = once.generate(filters.resized(photo, 32, 48), features, starts[32, 48])
    expected = once.generate(filters.underpainted(small, photo, map_, 3), features, starts[64, 96])
    expected = filters.without_grain(expected, 0.05)
    torch.testing.assert_close(model(photo)[0], expected, atol=1e-5, rtol=0)
    assert (once(photo)[0] - expected).abs().max() > 0.01
    of_its_size = photo[..., :32, :48]
    torch.testing.assert_close(model(of_its_size)[0], once(of_its_size)[0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_larger_photo_is_its_copy_s_painting_with_fine_structure():
    """At a third size G paints over the painting at the second, of which `filters.refined` keeps what is broad."""
    model, once = built({**DEPARTED, "noise": 0.0}), built({**DEPARTED, "noise": 0.0, "brush_size": 0})
    photo = signed(np.ascontiguousarray(data.astronaut()[:128, 150:342]))
    seen = filters.resized(photo, 64, 64)
    saliency, features = model.saliency_network(seen)
    copy = filters.resized(photo, 64, 100)
    small = once.generate(filters.resized(photo, 32, 48), features)
    difference = filters.resized(small - filters.luma(filters.resized(photo, 32, 48)), 64, 100)
    difference = filters.without_lines(difference, copy, 3)
    middle = once.generate(filters.painted_over(difference, copy, enlarged_along_edges(saliency, seen, copy)), features)
    map_ = enlarged_along_edges(saliency, seen, photo)
    difference = filters.without_lines(filters.resized(middle - filters.luma(copy), 128, 192), photo, 5)
    painting = filters.without_grain(once.generate(filters.painted_over(difference, photo, map_), features), 0.05)
    expected = filters.refined(filters.painted_over(difference, photo, None), painting)
    torch.testing.assert_close(model(photo)[0], expected, atol=1e-5, rtol=0)
    assert (painting - expected).abs().max() > 0.01


def test_noise_that_was_made_in_inference_can_be_trained_with():
    filters._noise_field.cache_clear()
    model = built(DEPARTED)
    model.stylize(np.zeros((16, 16, 3), np.uint8))
    model(torch.zeros(1, 3, 16, 16))[0].sum().backward()
    assert model.generator.down1[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *((name, value) for name in ("saliency_size", "brush_size") for value in (-4, 8, 30, 64.0, "64", True, None)),
        *(("noise", value) for value in (-0.1, float("nan"), float("inf"), "0.1", True)),
        *(("clear_lines", value) for value in (5, "55", None, [5], [3, 5, 7])),
        *(("clear_lines", [value, 5]) for value in (-1, 1, 4, 17, 5.0, "5", False, True, None)),
        *(("shock_filter", value) for value in (-1, 17, 2.0, "2", True, None)),
        *((name, value) for name in ("clear_grain", "keep_detail") for value in (-0.1, 1.1, float("nan"), "0.5", True)),
    ],
)
def test_an_argument_out_of_its_range_is_refused_by_name_and_value(argument, value):
    refusal(lambda: SDPGAN(**TINY, **{argument: value}), argument, repr(value))


def test_a_model_without_a_saliency_network_paints_and_refuses_maps_and_keep_detail(photo, tmp_path):
    without = {**TINY, "feature_concatenation": False, "saliency_network": False}
    SDPGAN(**without).save_pretrained(tmp_path)
    model = SDPGAN.from_pretrained(tmp_path)
    assert model.stylize(photo).shape == model.stylize(photo, keep_detail=0).shape == photo.shape
    for ask in (lambda: SDPGAN(**without, keep_detail=0.5), lambda: model.stylize(photo, keep_detail=0.5)):
        refusal(ask, "keep_detail", "saliency network")
    for ask in (lambda: model.saliency_map(photo), lambda: model.stylize(photo, return_saliency=True)):
        refusal(ask, "saliency_network")
    card = (tmp_path / "README.md").read_text()
    assert "saliency_map(" not in card and "keep_detail=" not in card and "| saliency network |" not in card
    refusal(lambda: SDPGAN(**TINY, saliency_network=False), "feature_concatenation")


def test_a_save_that_fails_leaves_the_old_files_and_no_half_one(saved, full_disk):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    refusal(lambda: SDPGAN(**TINY).save_pretrained(saved), "No space left", saved / "model.safetensors")
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_a_weight_that_half_precision_cannot_hold_is_refused_by_name(tmp_path, value):
    model = SDPGAN(**TINY)
    torch.nn.init.constant_(model.generator.output[0].bias, value)
    refusal(lambda: model.save_pretrained(tmp_path), "generator.output.0.bias")
    assert not (tmp_path / "model.safetensors").exists()


def test_an_integer_dtype_and_a_folder_that_is_a_file_are_refused(model, tmp_path):
    refusal(lambda: model.save_pretrained(tmp_path / "new", dtype=torch.int8), "torch.int8")
    (tmp_path / "file").touch()
    refusal(lambda: model.save_pretrained(tmp_path / "file"), tmp_path / "file")


# the card


def test_the_card_has_what_the_hub_reads_the_three_lines_that_use_it_and_the_count_of_parameters(model, saved):
    card = ModelCard.load(saved / "README.md")
    assert card.data.library_name == "sdpgan_hub"
    assert card.data.pipeline_tag == "image-to-image"
    assert card.data.license == "apache-2.0"
    assert {"style-transfer", "saliency"} <= set(card.data.tags)
    assert 'SDPGAN.from_pretrained("tiny")' in card.text
    assert "{{" not in card.content and "{%" not in card.content
    count = sum(parameter.numel() for parameter in model.generator.parameters())
    assert f"| generator | {count:,} parameters |" in card.text


def test_card_keywords_reach_the_front_matter_and_the_sections(model, tmp_path):
    keywords = {
        "title": "Van Gogh",
        "license": "other",
        "license_name": "research-only",
        "license_link": "https://example.org/terms",
        "datasets": ["org/photos"],
        "tags": ["van-gogh"],
        "training_data": "400 *paintings*.",
        "evaluation": "| FID | 12.3 |\n|---|---|",
    }
    model.save_pretrained(tmp_path, model_card_kwargs=keywords)
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.license, card.data.license_name) == ("other", "research-only")
    assert card.data.datasets == ["org/photos"]
    assert {"van-gogh", "style-transfer"} <= set(card.data.tags)
    assert card.text.lstrip().startswith("# Van Gogh")
    assert "## Training data\n\n400 *paintings*." in card.text and "| FID | 12.3 |" in card.text
    assert "## Training\n" not in card.text


def test_an_unknown_card_keyword_is_refused_before_anything_is_written(model, tmp_path):
    refusal(lambda: model.save_pretrained(tmp_path / "out", model_card_kwargs={"licence": "mit"}), "licence", "license")
    assert not (tmp_path / "out").exists()


def test_a_card_that_is_there_stays_until_keywords_are_given(model, saved):
    (saved / "README.md").write_text("written by hand")
    model.save_pretrained(saved)
    assert (saved / "README.md").read_text() == "written by hand"
    model.save_pretrained(saved, model_card_kwargs={"title": "New"})
    assert "# New" in (saved / "README.md").read_text()


def test_generate_model_card_is_the_card_that_is_saved(model, saved):
    card = model.generate_model_card(model_id="tiny")
    assert str(card) == (saved / "README.md").read_text()


# what from_pretrained refuses


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda tensors: tensors.update(extra=torch.zeros(1)), ["extra"]),
        (
            lambda tensors: tensors.update({"generator.down1.0.weight": torch.zeros(9, 3, 7, 7)}),
            ["generator.down1.0.weight", "9 x 3 x 7 x 7", "4 x 3 x 7 x 7"],
        ),
        (
            lambda tensors: tensors.update(other=tensors.pop("generator.down2.0.weight")),
            ["generator.down2.0.weight", "other"],
        ),
        (lambda tensors: tensors.clear(), ["generator.down1.0.weight", "more"]),
        *(
            (lambda tensors, bias=bias: tensors.update({"generator.output.0.bias": bias}), ["generator.output.0.bias"])
            for bias in (torch.full((3,), float("nan")), torch.zeros(3, dtype=torch.int32))
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_file_and_name(saved, change, named):
    path = saved / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path, {"format": "pt"})
    refusal(lambda: SDPGAN.from_pretrained(saved), path, *named)


@pytest.mark.parametrize("keep", [0, 5, 100, -1, "a pickle"])
def test_a_weights_file_cut_short_or_of_another_kind_is_refused_by_name(saved, keep):
    path = saved / "model.safetensors"
    if keep == "a pickle":
        torch.save({"a": torch.zeros(1)}, path)
    else:
        path.write_bytes(path.read_bytes()[:keep])
    refusal(lambda: SDPGAN.from_pretrained(saved), path)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ("{not json", ["JSON"]),
        (b"\xff\xfe\x00", ["JSON"]),
        ("[]", ["list"]),
        ({"model_type": None}, ["model_type", "None"]),
        ({"model_type": "bert"}, ["'bert'"]),
        ({"base_channels": None}, ["base_channels"]),
        ({"detail_skip": 0.5}, ["detail_skip"]),
        ({"base_channels": "4"}, ["'4'", "base_channels", "int"]),
        ({"base_channels": True}, ["True", "base_channels"]),
        ({"base_channels": 4.0}, ["4.0", "base_channels"]),
        ({"feature_concatenation": 1}, ["feature_concatenation", "bool"]),
        ({"upsampling": "nearest"}, ["upsampling", "'nearest'"]),
    ],
)
def test_a_config_that_does_not_fit_is_refused_by_file_and_key(saved, config, named):
    path = saved / "config.json"
    if isinstance(config, dict):
        merged = json.loads(path.read_text()) | config
        config = json.dumps({key: value for key, value in merged.items() if value is not None})
    path.write_bytes(config if isinstance(config, bytes) else config.encode())
    refusal(lambda: SDPGAN.from_pretrained(saved), path, *named)


def test_a_config_of_another_width_is_refused_by_the_shapes(saved):
    config = json.loads((saved / "config.json").read_text()) | {"base_channels": 4096}
    (saved / "config.json").write_text(json.dumps(config))
    refusal(lambda: SDPGAN.from_pretrained(saved), "generator.down1.0.weight", "4096")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_refused_by_name(saved, name):
    (saved / name).unlink()
    refusal(lambda: SDPGAN.from_pretrained(saved), saved, name)


def test_a_folder_with_only_a_pickle_is_refused_by_name(model, tmp_path):
    checkpoint.write_config(tmp_path / "config.json", model.config)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    refusal(lambda: SDPGAN.from_pretrained(tmp_path), tmp_path, "model.safetensors", "pytorch_model.bin", "pickle")


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "mps:7"])
def test_a_device_that_is_not_there_is_refused_by_name(saved, device):
    refusal(lambda: SDPGAN.from_pretrained(saved, map_location=device), f"'{device}'")
