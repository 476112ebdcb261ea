"""SDPGAN: images in and out at their own size, S run once, and files that are read strictly or refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import safetensors.torch
import scipy.ndimage
import torch
from huggingface_hub import ModelCard
from skimage import data

from sdpgan_hub import SDPGAN, SDPGANError, checkpoint, imaging
from sdpgan_hub.networks import keep_detail

TINY = {"base_channels": 4, "residual_blocks": 1}


@pytest.fixture(scope="module")
def model() -> SDPGAN:
    torch.manual_seed(0)
    return SDPGAN(**TINY).eval()


@pytest.fixture
def saved(model, tmp_path) -> Path:
    folder = tmp_path / "tiny"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[20:81, 200:244])


def one_sentence(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


def rounded_to_half(model: SDPGAN) -> dict[str, torch.Tensor]:
    return {name: value.half().float() for name, value in model.state_dict().items()}


# stylize and saliency_map


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 5), (15, 16), (16, 16), (17, 33), (64, 30)])
def test_the_painting_and_the_map_have_exactly_the_photo_s_size(model, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    painting, saliency = model.stylize(image, return_saliency=True)
    assert painting.shape == (*size, 3) and painting.dtype == np.uint8
    assert saliency.shape == size and saliency.dtype == np.float32
    assert 0 <= saliency.min() and saliency.max() <= 1


def test_the_painting_is_the_generator_s_output_and_the_map_half_of_one_plus_s(model, photo):
    image = photo[:60]  # a size that needs no padding
    x = imaging.to_signed(torch.from_numpy(image).permute(2, 0, 1)[None])
    with torch.no_grad():
        saliency, features = model.saliency_network(x)
        painting = model.generator(x, features)
    result, map_ = model.stylize(image.astype(np.float32) / 255, return_saliency=True)
    np.testing.assert_allclose(result, (painting[0].permute(1, 2, 0).numpy() + 1) / 2, atol=1e-5)
    np.testing.assert_allclose(map_, (saliency[0, 0].numpy() + 1) / 2, atol=1e-5)


def test_forward_gives_the_painting_and_the_map_in_signed_range(model):
    stylized, saliency = model(torch.rand(2, 3, 16, 20) * 2 - 1)
    assert stylized.shape == (2, 3, 16, 20) and saliency.shape == (2, 1, 16, 20)
    assert stylized.abs().max() <= 1 and saliency.abs().max() <= 1


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


def test_grey_in_gives_colours_out(model, photo):
    result = model.stylize(photo[..., 0])
    assert result.shape == photo.shape
    assert (result[..., 0] != result[..., 2]).any()


def test_alpha_is_kept_and_does_not_touch_the_colours(model, photo):
    alpha = photo[..., 1:2]
    result = model.stylize(np.dstack([photo, alpha]))
    np.testing.assert_array_equal(result[..., 3:], alpha)
    np.testing.assert_array_equal(result[..., :3], model.stylize(photo))


def test_a_list_gives_a_list_equal_to_its_images_one_by_one(model, photo):
    images = [photo, photo[::-1], PIL.Image.fromarray(photo), photo[:20], torch.rand(2, 3, 61, 44), photo]
    paintings, maps = model.stylize(images, return_saliency=True)
    assert [type(painting) for painting in paintings] == [type(image) for image in images]
    for image, painting, saliency in zip(images, paintings, maps, strict=True):
        alone, map_alone = model.stylize(image, return_saliency=True)
        tolerance = 1e-4 if isinstance(image, torch.Tensor) else 1
        np.testing.assert_allclose(np.asarray(painting, float), np.asarray(alone, float), atol=tolerance)
        np.testing.assert_allclose(saliency, map_alone, atol=1e-4)
    assert [np.shape(saliency) for saliency in maps] == [np.shape(m) for m in model.saliency_map(images)]


def test_images_of_one_size_share_a_batch_up_to_the_limit(model, photo, monkeypatch):
    batches = []
    hook = model.generator.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    monkeypatch.setattr("sdpgan_hub.model.BATCH_PIXELS", 2 * photo.shape[0] * photo.shape[1])
    try:
        model.stylize([photo, photo, photo, photo[:20], torch.rand(5, 3, 61, 44)])
    finally:
        hook.remove()
    assert batches == [2, 1, 1, 2, 2, 1]


def test_an_empty_list_gives_an_empty_list(model):
    assert model.stylize([]) == [] and model.saliency_map(()) == []
    assert model.stylize([], return_saliency=True) == ([], [])


def test_a_batched_tensor_gives_a_batched_tensor_and_maps(model):
    images = torch.rand(3, 3, 18, 21)
    paintings, maps = model.stylize(images, return_saliency=True)
    assert paintings.shape == images.shape and maps.shape == (3, 18, 21)
    torch.testing.assert_close(paintings[1], model.stylize(images[1]), atol=1e-5, rtol=0)


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
        (lambda model, image: model.saliency_map(image), 1, 1),
    ],
)
def test_s_runs_once_and_its_decoder_only_for_a_map(model, photo, call, runs_of_s, runs_of_its_decoder):
    ran = []
    hooks = [
        model.saliency_network.down1.register_forward_hook(lambda *_: ran.append("S")),
        model.saliency_network.output.register_forward_hook(lambda *_: ran.append("decoder")),
    ]
    call(model, photo)
    for hook in hooks:
        hook.remove()
    assert (ran.count("S"), ran.count("decoder")) == (runs_of_s, runs_of_its_decoder)


def test_without_feature_concatenation_a_painting_needs_no_run_of_s(photo):
    model = SDPGAN(**TINY, feature_concatenation=False)
    ran = []
    model.saliency_network.down1.register_forward_hook(lambda *_: ran.append("S"))
    assert model.stylize(photo).shape == photo.shape
    assert ran == []


def test_a_map_alone_equals_the_map_beside_a_painting(model, photo):
    np.testing.assert_array_equal(model.saliency_map(photo), model.stylize(photo, return_saliency=True)[1])


def test_max_size_bounds_what_the_networks_see_and_not_the_painting(model, photo):
    seen = []
    hook = model.generator.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[-2:])))
    painting, saliency = model.stylize(photo, return_saliency=True, max_size=32)
    hook.remove()
    assert seen == [(32, 24)]  # 61 x 44 in proportion is 32 x 23, padded to 24
    assert painting.shape == photo.shape and saliency.shape == photo.shape[:2]
    assert 0 <= saliency.min() and saliency.max() <= 1
    np.testing.assert_array_equal(model.stylize(photo, max_size=61), model.stylize(photo))


@pytest.mark.parametrize("max_size", [0, 15, -1, 3.5, "64", True])
def test_a_max_size_that_makes_no_sense_is_refused(model, photo, max_size):
    with pytest.raises(SDPGANError, match="max_size"):
        model.stylize(photo, max_size=max_size)


def test_a_bad_image_in_a_list_is_named_by_its_place(model, photo):
    with pytest.raises(SDPGANError, match=r"Image 2 of 3: .*int64"):
        model.stylize([photo, photo.astype(np.int64), photo])


def test_bfloat16_parameters_give_nearly_the_same_painting(model, photo):
    half = SDPGAN(**TINY)
    half.load_state_dict(model.state_dict())
    painting, saliency = half.to(torch.bfloat16).stylize(photo, return_saliency=True)
    assert painting.dtype == np.uint8 and saliency.dtype == np.float32
    assert np.abs(painting.astype(int) - model.stylize(photo)).mean() < 4


def test_weights_that_give_nan_are_an_error_and_not_a_black_picture(photo):
    model = SDPGAN(**TINY)
    torch.nn.init.constant_(model.generator.output[0].bias, float("nan"))
    with pytest.raises(SDPGANError, match="not finite"):
        model.stylize(photo)


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
    expected = rounded_to_half(model)
    assert loaded.state_dict().keys() == expected.keys()
    for name, value in loaded.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, expected[name])
    assert all(parameter.requires_grad for parameter in loaded.parameters())


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


def test_saving_what_was_loaded_writes_the_same_bytes(saved, tmp_path):
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
        "detail_skip": 0.0,
    }


@pytest.mark.parametrize("upsampling", ["resize", "bilinear"])
def test_every_argument_survives_the_round_trip(tmp_path, upsampling):
    whole = upsampling == "bilinear"
    options = {"base_channels": 5, "residual_blocks": 0, "upsampling": upsampling, "feature_concatenation": False,
               "saliency_network": whole, "detail_skip": 0.25 if whole else 0.0}  # fmt: skip
    SDPGAN(**options).save_pretrained(tmp_path)
    model = SDPGAN.from_pretrained(tmp_path)
    assert model.config == options
    assert model.stylize(np.zeros((20, 20, 3), np.uint8)).shape == (20, 20, 3)


def test_a_config_json_from_before_saliency_network_means_that_there_is_one(saved):
    config = json.loads((saved / "config.json").read_text())
    del config["saliency_network"]
    (saved / "config.json").write_text(json.dumps(config))
    assert SDPGAN.from_pretrained(saved).config["saliency_network"] is True


def test_a_config_json_from_before_detail_skip_means_that_there_is_none(saved):
    config = json.loads((saved / "config.json").read_text())
    del config["detail_skip"]
    (saved / "config.json").write_text(json.dumps(config))
    assert SDPGAN.from_pretrained(saved).config["detail_skip"] == 0


# the detail skip


def test_the_detail_skip_is_its_formula_in_plain_numpy(photo):
    torch.manual_seed(0)
    model = SDPGAN(**TINY, detail_skip=0.7).eval()
    image = photo[:60].astype(np.float32) / 255  # a size that needs no padding
    painting, saliency = model.stylize(image, detail_skip=0.0, return_saliency=True)
    luma = (image - painting) @ np.array([0.299, 0.587, 0.114], np.float32)
    fine = luma - scipy.ndimage.gaussian_filter(luma, 4, mode="mirror", truncate=3)
    expected = np.clip(painting + 0.7 * saliency[..., None] * fine[..., None], 0, 1)
    result, same_saliency = model.stylize(image, return_saliency=True)
    assert np.abs(result - painting).max() > 0.05
    np.testing.assert_allclose(result, expected, atol=1e-5)
    np.testing.assert_array_equal(same_saliency, saliency)
    np.testing.assert_array_equal(model.stylize(image), result)
    np.testing.assert_array_equal(model.stylize(image, detail_skip=0.7), result)


def test_where_all_is_salient_a_full_detail_skip_has_the_photo_s_fine_luma_and_the_painting_s_colours():
    photo, painting = (torch.rand(2, 3, 40, 48) * 0.4 - 0.2 for _ in range(2))  # nothing to clamp
    kept = keep_detail(painting, photo, torch.ones(2, 1, 40, 48), 1.0)
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)

    def fine(image):
        grey = (image * luma).sum(1).numpy()
        return grey - scipy.ndimage.gaussian_filter(grey, (0, 4, 4), mode="mirror", truncate=3)

    change = (kept - painting).numpy()
    np.testing.assert_allclose(change[:, 0], fine(photo) - fine(painting), atol=1e-6)
    np.testing.assert_allclose(change, np.broadcast_to(change[:, :1], change.shape), atol=1e-6)
    torch.testing.assert_close(keep_detail(painting, photo, -torch.ones(2, 1, 40, 48), 1.0), painting)


def test_a_large_photo_has_the_map_of_its_detail_skip_from_a_copy_of_256_px():
    torch.manual_seed(0)
    model = SDPGAN(**TINY, detail_skip=0.7).eval()
    image = np.ascontiguousarray(data.astronaut()[:320, :512], np.float32) / 255
    painting, saliency = model.stylize(image, detail_skip=0.0, return_saliency=True)
    x = imaging.to_signed(torch.from_numpy(image).permute(2, 0, 1)[None])
    with torch.no_grad():
        copy = torch.nn.functional.interpolate(x, size=(256, 408), mode="area")  # 409.6, in fours
        map_ = torch.nn.functional.interpolate(model.saliency_network(copy)[0], size=(320, 512), mode="bilinear")
        signed = imaging.to_signed(torch.from_numpy(painting).permute(2, 0, 1)[None])
        expected = (keep_detail(signed, x, map_, 0.7)[0].permute(1, 2, 0).numpy() + 1) / 2
    result, full_map = model.stylize(image, return_saliency=True)
    np.testing.assert_allclose(result, expected, atol=1e-5)
    np.testing.assert_array_equal(full_map, saliency)
    np.testing.assert_allclose(model.stylize(image), result, atol=1e-6)


def test_no_loss_reaches_s_through_the_map_of_the_detail_skip():
    saliency = torch.zeros(1, 1, 16, 16, requires_grad=True)
    painting = torch.rand(1, 3, 16, 16, requires_grad=True)
    keep_detail(painting, torch.rand(1, 3, 16, 16), saliency, 0.5).sum().backward()
    assert saliency.grad is None and painting.grad is not None


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), "0.5", True])
def test_a_detail_skip_that_is_no_share_is_refused(model, photo, share):
    for ask in (lambda: model.stylize(photo, detail_skip=share), lambda: SDPGAN(**TINY, detail_skip=share)):
        with pytest.raises(SDPGANError, match="detail_skip") as error:
            ask()
        assert repr(share) in one_sentence(error)


def test_a_detail_skip_without_a_saliency_network_is_refused(photo):
    without = {**TINY, "feature_concatenation": False, "saliency_network": False}
    for ask in (lambda: SDPGAN(**without, detail_skip=0.5), lambda: SDPGAN(**without).stylize(photo, detail_skip=0.5)):
        with pytest.raises(SDPGANError, match="detail_skip needs the saliency network") as error:
            ask()
        one_sentence(error)
    assert SDPGAN(**without).stylize(photo, detail_skip=0).shape == photo.shape


def test_a_model_without_a_saliency_network_paints_and_refuses_to_give_maps(photo, tmp_path):
    SDPGAN(**TINY, feature_concatenation=False, saliency_network=False).save_pretrained(tmp_path)
    model = SDPGAN.from_pretrained(tmp_path)
    assert model.stylize(photo).shape == photo.shape
    for ask in (lambda: model.saliency_map(photo), lambda: model.stylize(photo, return_saliency=True)):
        with pytest.raises(SDPGANError, match="saliency_network: false") as error:
            ask()
        one_sentence(error)
    card = (tmp_path / "README.md").read_text()
    assert "saliency_map" not in card and "has no\nsaliency maps" in card and "| saliency network |" not in card
    with pytest.raises(SDPGANError, match="feature_concatenation needs"):
        SDPGAN(**TINY, saliency_network=False)


def test_a_save_that_fails_leaves_the_old_files_and_no_half_one(model, saved, monkeypatch):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(SDPGANError, match="No space left") as error:
        SDPGAN(**TINY).save_pretrained(saved)
    assert str(saved / "model.safetensors") in one_sentence(error)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_a_weight_that_half_precision_cannot_hold_is_refused_by_name(tmp_path, value):
    model = SDPGAN(**TINY)
    torch.nn.init.constant_(model.generator.output[0].bias, value)
    with pytest.raises(SDPGANError, match=r"generator\.output\.0\.bias"):
        model.save_pretrained(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_an_integer_dtype_is_refused(model, tmp_path):
    with pytest.raises(SDPGANError, match=r"not as torch\.int8"):
        model.save_pretrained(tmp_path, dtype=torch.int8)


def test_a_folder_that_is_a_file_is_refused(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SDPGANError, match="cannot be made a folder"):
        model.save_pretrained(tmp_path / "file")


# the card


def test_the_card_has_what_the_hub_reads_and_the_three_lines_that_use_it(saved):
    card = ModelCard.load(saved / "README.md")
    assert card.data.library_name == "sdpgan_hub"
    assert card.data.pipeline_tag == "image-to-image"
    assert card.data.license == "apache-2.0"
    assert {"style-transfer", "saliency"} <= set(card.data.tags)
    assert 'SDPGAN.from_pretrained("tiny")' in card.text
    assert "{{" not in card.content and "{%" not in card.content


def test_the_card_counts_the_parameters(model, saved):
    count = sum(parameter.numel() for parameter in model.generator.parameters())
    assert f"| generator | {count:,} parameters |" in (saved / "README.md").read_text()


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
    with pytest.raises(SDPGANError, match=r"licence.*known are.*license"):
        model.save_pretrained(tmp_path / "out", model_card_kwargs={"licence": "mit"})
    assert not (tmp_path / "out").exists()


def test_a_card_that_is_there_stays_until_keywords_are_given(model, saved):
    (saved / "README.md").write_text("written by hand")
    model.save_pretrained(saved)
    assert (saved / "README.md").read_text() == "written by hand"
    model.save_pretrained(saved, model_card_kwargs={"title": "New"})
    assert "# New" in (saved / "README.md").read_text()


def test_a_model_keeps_the_card_it_came_with(model, saved, tmp_path):
    model.save_pretrained(saved, model_card_kwargs={"training_data": "400 paintings."})
    SDPGAN.from_pretrained(saved).save_pretrained(tmp_path / "copy")
    assert (tmp_path / "copy" / "README.md").read_text() == (saved / "README.md").read_text()


def test_generate_model_card_is_the_card_that_is_saved(model, saved):
    card = model.generate_model_card(model_id="tiny")
    assert str(card) == (saved / "README.md").read_text()


# what from_pretrained refuses


def rewrite(folder: Path, change) -> None:
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    path.write_bytes(safetensors.torch.save(tensors, metadata={"format": "pt"}))


def grow(tensors: dict[str, torch.Tensor]) -> None:
    tensors["generator.down1.0.weight"] = torch.zeros(9, 3, 7, 7)


def rename(tensors: dict[str, torch.Tensor]) -> None:
    tensors["other"] = tensors.pop("generator.down2.0.weight")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda tensors: tensors.pop("generator.down2.0.weight"), ["lacks generator.down2.0.weight"]),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), ["unknown extra"]),
        (grow, ["misshapen generator.down1.0.weight (9 x 3 x 7 x 7 instead of 4 x 3 x 7 x 7)"]),
        (rename, ["lacks generator.down2.0.weight", "unknown other"]),
        (lambda tensors: tensors.clear(), ["lacks generator.down1.0.weight", "more"]),
        (
            lambda tensors: tensors.update({"generator.output.0.bias": torch.full((3,), float("nan"))}),
            ["not finite floats in generator.output.0.bias"],
        ),
        (
            lambda tensors: tensors.update({"generator.output.0.bias": torch.zeros(3, dtype=torch.int32)}),
            ["not finite floats in generator.output.0.bias"],
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_file_and_name(saved, change, named):
    rewrite(saved, change)
    with pytest.raises(SDPGANError) as error:
        SDPGAN.from_pretrained(saved)
    message = one_sentence(error)
    assert str(saved / "model.safetensors") in message
    assert all(name in message for name in named)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_weights_file_cut_short_is_refused_by_name(saved, keep):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SDPGANError, match="not a whole safetensors file") as error:
        SDPGAN.from_pretrained(saved)
    assert str(path) in one_sentence(error)


def test_a_pickle_under_the_name_of_safetensors_is_refused_and_not_run(saved):
    torch.save({"a": torch.zeros(1)}, saved / "model.safetensors")
    with pytest.raises(SDPGANError, match="not a whole safetensors file"):
        SDPGAN.from_pretrained(saved)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ("{not json", "not a readable JSON file"),
        (b"\xff\xfe\x00", "not a readable JSON file"),
        ("[]", "a JSON list"),
        ({"model_type": None}, "another model"),
        ({"model_type": "bert"}, "'bert'"),
        ({"base_channels": None}, "lacks the key base_channels"),
        ({"hidden_size": 8}, "unknown key hidden_size"),
        ({"base_channels": "4"}, "'4' for base_channels, which is int"),
        ({"base_channels": True}, "True for base_channels"),
        ({"base_channels": 4.0}, "4.0 for base_channels"),
        ({"feature_concatenation": 1}, "1 for feature_concatenation, which is bool"),
        ({"upsampling": "nearest"}, "'nearest'"),
        ({"base_channels": 0}, "base_channels is 0"),
        ({"residual_blocks": -1}, "residual_blocks is -1"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_by_file_and_key(saved, config, named):
    path = saved / "config.json"
    if isinstance(config, dict):
        merged = json.loads(path.read_text()) | config
        config = json.dumps({key: value for key, value in merged.items() if value is not None})
    path.write_bytes(config if isinstance(config, bytes) else config.encode())
    with pytest.raises(SDPGANError) as error:
        SDPGAN.from_pretrained(saved)
    message = one_sentence(error)
    assert str(path) in message and named in message


def test_a_config_of_another_width_is_refused_by_the_shapes(saved):
    config = json.loads((saved / "config.json").read_text()) | {"base_channels": 4096}
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(SDPGANError, match=r"misshapen.*instead of 4096"):
        SDPGAN.from_pretrained(saved)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_refused_by_name(saved, name):
    (saved / name).unlink()
    with pytest.raises(SDPGANError) as error:
        SDPGAN.from_pretrained(saved)
    assert f"{saved} has no {name}" in one_sentence(error)


def test_a_folder_with_only_a_pickle_is_refused_by_name(model, tmp_path):
    checkpoint.write_config(tmp_path / "config.json", model.config)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(SDPGANError) as error:
        SDPGAN.from_pretrained(tmp_path)
    message = one_sentence(error)
    assert "no model.safetensors, only pytorch_model.bin" in message and "never loaded" in message


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "mps:7"])
def test_a_device_that_is_not_there_is_refused_by_name(saved, device):
    with pytest.raises(SDPGANError, match=f"'{device}'"):
        SDPGAN.from_pretrained(saved, map_location=device)
