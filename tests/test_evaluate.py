"""training/evaluate.py and training/metrics: what each figure is, and that it catches what it is for."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from sdpgan_hub import SDPGAN
from sdpgan_hub.errors import SDPGANError

try:
    from skimage.color import deltaE_ciede2000, rgb2lab

    from training import evaluate as evaluation
    from training import pictures
    from training.metrics import artifacts, detail, style
    from training.perceptual import PerceptualFeatures
except (ImportError, RuntimeError) as error:  # torchvision of another torch build raises RuntimeError
    pytest.skip(f"the extra 'training' is not installed ({error})", allow_module_level=True)

LAYER = "64"
"""Of the FID network; the first, for speed."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six 96 x 112 parts of photos that come with scikit-image, and masks of their middle for two of them."""
    import skimage.data

    folder = tmp_path_factory.mktemp("photos")
    for name in ("astronaut", "chelsea", "coffee"):
        image = getattr(skimage.data, name)()
        for number, (top, left) in enumerate([(20, 150), (100, 60)]):
            crop = cv2.resize(image[top : top + 192, left : left + 224], (112, 96), interpolation=cv2.INTER_AREA)
            pictures.write(folder / "photos" / name / f"{number}.png", crop)
    mask = np.zeros((96, 112, 3), np.uint8)
    mask[24:72, 28:84] = 255
    for name in ("astronaut", "coffee"):
        pictures.write(folder / "masks" / name / "0.png", mask)
    return folder


@pytest.fixture(scope="module")
def paintings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, random = tmp_path_factory.mktemp("paintings"), np.random.default_rng(0)
    for number in range(8):
        noise = cv2.GaussianBlur(random.random((100, 90, 3)), (0, 0), 2)
        noise = (noise - noise.min()) / (noise.max() - noise.min())
        pictures.write(folder / f"{number}.png", (noise * 255).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    import skimage.data

    return np.ascontiguousarray(skimage.data.astronaut()[:192, 120:344])


def changed(photos: Path, folder: Path, change) -> Path:
    for path in sorted((photos / "photos").rglob("*.png")):
        pictures.write(folder / path.relative_to(photos / "photos"), change(pictures.read(path)))
    return folder


def scored(photos: Path, paintings: Path, inception: Path, vgg: Path, **arguments) -> dict:
    return evaluation.evaluate(
        photos / "photos",
        paintings,
        **{"inception": inception, "feature_layer": LAYER, "vgg_weights": vgg, "size": 96, "device": "cpu"} | arguments,
    )


@pytest.fixture(scope="module")
def of_identical(photos, paintings, inception, vgg_weights) -> dict:
    return scored(photos, paintings, inception, vgg_weights, outputs=photos / "photos", masks=photos / "masks")


def test_the_photos_themselves_lose_no_detail_and_show_no_artifact(of_identical: dict):
    detail_figures, found = of_identical["detail"], of_identical["artifacts"]
    for region in ("salient", "background"):
        figures = {key: pytest.approx(1) for key in ("ssim", "gradient_correlation", "detail_kept")}
        assert detail_figures[region] == figures | {"content_distance": 0, "photos": 6}
    assert detail_figures["saliency_change"] == 0
    assert (detail_figures["human_masks"], detail_figures["reference_masks"]) == (2, 4)
    assert found["outputs"]["border_error"] == 1 and found["outputs"]["colour_shift"] == 0
    for key, value in found["photos"].items():
        assert found["outputs"][key] == value
    assert of_identical["style"]["outputs"] == of_identical["style"]["photos"]


def test_identical_folders_are_at_distance_0_from_each_other(photos, inception, vgg_weights, tmp_path):
    for number, path in enumerate(sorted((photos / "photos").rglob("*.png"))):
        for twin in range(2):  # eight paintings are the least, and six photos there are
            shutil.copy(path, tmp_path / f"{twin}{number}.png")
    result = scored(photos, tmp_path, inception, vgg_weights, outputs=photos / "photos")["style"]["outputs"]
    assert abs(result[f"KID-{LAYER}"]) < 0.02 and result["paintings"] == 12
    network = style.InceptionFeatures(inception, LAYER, torch.device("cpu"), 96)
    features = network(sorted((photos / "photos").rglob("*.png")))[LAYER]
    assert features.dtype == torch.float64 and features.shape == (6, 64)
    same = style.distance(features, features, LAYER)
    assert abs(same[f"FID-{LAYER}"]) < 1e-6 and same[f"KID-{LAYER}"] <= 0
    assert style.distance(features, features + 1, LAYER)[f"FID-{LAYER}"] == pytest.approx(64, rel=1e-6)


def test_kid_is_the_unbiased_mmd_of_the_cubic_kernel_over_seeded_subsets():
    random = torch.Generator().manual_seed(0)
    first = torch.randn(12, 5, generator=random, dtype=torch.float64)
    second = torch.randn(10, 5, generator=random, dtype=torch.float64) + 0.5
    result = style.distance(first, second, "2048", seed=3)
    assert result["KID subset size"] == 5 and result["images"] == 12 and result["paintings"] == 10

    choose, values = np.random.RandomState(3), []
    for _ in range(style.KID_SUBSETS):
        x, y = (each[choose.choice(len(each), 5, replace=False)].numpy() for each in (first, second))
        kernel = lambda a, b: (a @ b.T / 5 + 1) ** 3  # noqa: E731
        within = sum((kernel(a, a).sum() - np.trace(kernel(a, a))) / 20 for a in (x, y))
        values.append(within - 2 * kernel(x, y).mean())
    assert result["KID"] == pytest.approx(np.mean(values)) and result["KID std"] == pytest.approx(np.std(values))
    assert style.distance(first, second, "2048", seed=4)["KID"] != result["KID"]


def test_halves_are_disjoint_equal_and_the_same_for_a_seed():
    features = torch.arange(11.0)[:, None]
    first, second = style.halves(features, 1)
    assert len(first) == len(second) == 5 and len({*first.flatten().tolist(), *second.flatten().tolist()}) == 10
    assert torch.equal(first, style.halves(features, 1)[0]) and not torch.equal(first, style.halves(features, 2)[0])


def test_the_inception_score_is_the_exponential_of_the_mean_divergence_from_the_marginal():
    logits = torch.randn(9, 7, generator=torch.Generator().manual_seed(0))
    p = logits.double().softmax(1)
    divergence = (p * (p.log() - p.mean(0).log())).sum(1).mean()
    assert style.inception_score(logits)["IS"] == pytest.approx(divergence.exp().item())
    assert style.inception_score(torch.zeros(30, 7)) == {"IS": pytest.approx(1), "IS std": 0, "IS splits": 3}


def test_the_more_a_copy_is_blurred_the_worse_its_detail(photos, astronaut, vgg_weights):
    vgg, region = PerceptualFeatures(vgg_weights), np.zeros(astronaut.shape[:2], bool)
    region[40:150, 60:160] = True
    previous = None
    for sigma in (0.7, 1.5, 4):
        blurred = cv2.GaussianBlur(astronaut, (0, 0), sigma)
        figures = detail.detail(astronaut, blurred, region)
        with torch.no_grad():
            features = [vgg(torch.from_numpy(x).permute(2, 0, 1)[None] / 127.5 - 1) for x in (astronaut, blurred)]
        distance = detail.content_distance(*features, region)
        if previous is not None:
            for part in ("salient", "background"):
                assert all(figures[part][key] < previous[0][part][key] - 0.02 for key in figures[part])
                assert distance[part] > previous[1][part]
        previous = figures, distance


def test_detail_lost_in_the_salient_region_is_not_charged_to_the_background(astronaut):
    region = np.zeros(astronaut.shape[:2], bool)
    region[:, 112:] = True
    painting = astronaut.copy()
    painting[:, 112:] = cv2.GaussianBlur(astronaut[:, 112:], (0, 0), 4)
    figures = detail.detail(astronaut, painting, region)
    assert figures["salient"]["detail_kept"] < 0.8 and figures["background"]["detail_kept"] > 0.97
    kept = figures["salient"]
    assert kept["detail_kept"] == pytest.approx((kept["ssim"] + kept["gradient_correlation"]) / 2)
    everywhere = detail.detail(astronaut, painting, np.ones_like(region))
    assert set(everywhere["background"].values()) == {None} and everywhere["salient"]["ssim"] is not None


def test_gradient_correlation_is_blind_to_contrast_and_negative_for_a_negative(astronaut):
    grey, part = astronaut[..., 0].astype(float), np.ones(astronaut.shape[:2], bool)
    assert detail.gradient_correlation(grey, 0.3 * grey + 60, part) == pytest.approx(1)
    assert detail.gradient_correlation(grey, 255 - grey, part) == pytest.approx(-1)
    assert detail.gradient_correlation(grey, np.full_like(grey, 9), part) == 0
    assert detail.gradient_correlation(np.full_like(grey, 9), grey, part) is None
    assert detail.detail_kept(0.5, None) == 0.5 and detail.detail_kept(-0.1, -1) == 0


def test_a_map_is_salient_from_twice_its_mean_on():
    saliency = np.array([[0.0, 0.1, 0.2, 0.5]])
    assert detail.salient_region(saliency).tolist() == [[False, False, False, True]]
    assert detail.salient_region(np.full((2, 2), 0.7)).all() and not detail.salient_region(np.zeros((2, 2))).any()


def transposed(image: np.ndarray, layers: int, kernel: list[float]) -> np.ndarray:
    """The image, shrunk and enlarged again by transposed convolutions of stride 2 with a separable kernel."""
    height, width = image.shape[:2]
    x = cv2.resize(image, (width >> layers, height >> layers), interpolation=cv2.INTER_AREA)
    x = torch.from_numpy(x).permute(2, 0, 1)[:, None].float()
    convolution = nn.ConvTranspose2d(1, 1, len(kernel), stride=2, padding=1, output_padding=1, bias=False)
    weight = torch.outer(torch.tensor(kernel), torch.tensor(kernel))[None, None]
    with torch.no_grad():
        convolution.weight.copy_(weight)
        for _ in range(layers):
            x = convolution(x)
    return x[:, 0].permute(1, 2, 0).clamp(0, 255).byte().numpy()


def test_a_checkerboard_of_transposed_convolutions_is_caught_at_its_period(astronaut):
    even = [0.5, 1.0, 0.5]  # every pixel gets the same weight: bilinear, without a checkerboard
    uneven = [0.53, 0.94, 0.53]
    smooth = artifacts.checkerboard(transposed(astronaut, 1, even))
    planted = artifacts.checkerboard(transposed(astronaut, 1, uneven))
    assert planted["2px"] > 5 * smooth["2px"] and planted["4px"] < 1.5 * smooth["4px"]
    assert planted["levels"] > 5 * smooth["levels"]
    planted = artifacts.checkerboard(transposed(astronaut, 2, uneven))
    assert planted["4px"] > 5 * artifacts.checkerboard(transposed(astronaut, 2, even))["4px"]
    for blameless in (astronaut, cv2.GaussianBlur(astronaut, (0, 0), 2)):
        assert max(artifacts.checkerboard(blameless).values()) < 1.5


def test_checkerboard_levels_are_the_root_mean_square_of_the_pattern():
    image = np.random.default_rng(0).normal(128, 20, (256, 256, 3))
    image[::2] += 3
    image[1::2] -= 3
    found = artifacts.checkerboard(np.clip(np.round(image), 0, 255).astype(np.uint8))
    assert found["levels"] == pytest.approx(3, rel=0.25) and found["4px"] == pytest.approx(1, abs=0.3)
    constant = artifacts.checkerboard(np.full((64, 64, 3), 90, np.uint8))
    assert constant == pytest.approx({"2px": 1, "4px": 1, "levels": 0})


def test_the_grain_of_flat_areas_is_that_of_the_painting_where_the_photo_is_flat(astronaut):
    random = np.random.default_rng(0)
    photo = np.full((96, 96, 3), 60, np.uint8)
    photo[:, 48:] = random.integers(0, 255, (96, 48, 1), np.uint8)
    weave = np.where(np.add.outer(np.arange(96), np.arange(96)) % 2, 4, -4)[..., None]
    woven = np.clip(photo.astype(int) + weave, 0, 255).astype(np.uint8)
    assert artifacts.flat_grain(photo, photo) == pytest.approx(0, abs=0.3)
    assert artifacts.flat_grain(photo, woven) == pytest.approx(4, rel=0.1)
    elsewhere = photo.copy()
    elsewhere[:, 52:] = woven[:, 52:]
    assert artifacts.flat_grain(photo, elsewhere) == artifacts.flat_grain(photo, photo)
    slope = np.clip(photo + 0.5 * np.arange(96)[:, None, None], 0, 255).astype(np.uint8)
    assert artifacts.flat_grain(photo, slope) < 0.5  # a broad change is no grain
    assert artifacts.flat_grain(random.integers(0, 255, (64, 64, 3), np.uint8), astronaut[:64, :64]) is None


def test_a_band_along_the_border_is_an_error_and_a_change_everywhere_is_not(astronaut):
    darker = (astronaut * 0.8).astype(np.uint8)
    banded = astronaut.copy()
    for side in (np.s_[:8], np.s_[-8:], np.s_[:, :8], np.s_[:, -8:]):
        banded[side] = darker[side]
    assert artifacts.border_error(astronaut, astronaut) == 1
    assert artifacts.border_error(astronaut, banded) > 2
    assert artifacts.border_error(astronaut, darker) == pytest.approx(1, abs=0.2)


def test_a_plain_surface_is_near_constant_and_a_photo_is_not(astronaut):
    surface = np.full_like(astronaut, 100) + np.random.default_rng(0).integers(0, 6, astronaut.shape, np.uint8)
    assert artifacts.near_constant(surface) and not artifacts.near_constant(astronaut)


def test_one_palette_for_all_is_explained_and_a_colour_of_one_photo_is_not(astronaut):
    grid = artifacts.colour_grid(astronaut)
    lab = rgb2lab(cv2.resize(astronaut, (artifacts.GRID, artifacts.GRID), interpolation=cv2.INTER_AREA)).reshape(-1, 3)
    np.testing.assert_allclose(grid, lab, atol=1e-4)
    yellow = grid * [0.8, 0.5, 0.5] + [10, 0, 20]
    shift = artifacts.colour_shift(grid, yellow)
    assert shift["colour_shift"] == pytest.approx(deltaE_ciede2000(grid, yellow).mean(), rel=1e-4)
    assert shift["colour_shift"] > 10 and shift["colour_shift_unexplained"] < 1e-3
    photos = np.concatenate([grid, grid])
    shift = artifacts.colour_shift(photos, np.concatenate([grid, grid + np.array([0, 0, 40])]))
    assert shift["colour_shift_unexplained"] > 5


def test_blurred_and_checkered_outputs_score_worse_in_the_whole_evaluation(
    photos, paintings, inception, vgg_weights, of_identical, tmp_path
):  # fmt: skip
    def spoilt(image: np.ndarray) -> np.ndarray:
        image = cv2.GaussianBlur(image, (0, 0), 2).astype(int)
        image[::2, ::2] += 12
        return np.clip(image, 0, 255).astype(np.uint8)

    outputs = changed(photos, tmp_path / "spoilt", spoilt)
    result = scored(photos, paintings, inception, vgg_weights, outputs=outputs, masks=photos / "masks")
    best, worse = evaluation.headline(of_identical), evaluation.headline(result)
    for name in ("salient detail kept", "background detail kept"):
        assert worse[name] < best[name] - 0.2
    artifact_names = ("checkerboard", "checkerboard levels", "grain of flat areas", "colour shift")
    for name in ("salient VGG distance", "saliency change", *artifact_names):
        assert worse[name] > best[name]
    assert worse["checkerboard"] > 20


def test_batch_size_changes_nothing(photos, paintings, inception, vgg_weights, of_identical):
    again = scored(
        photos, paintings, inception, vgg_weights, outputs=photos / "photos", masks=photos / "masks", batch_size=3
    )
    for key in ("detail", "artifacts", "each", "settings"):
        assert again[key] == of_identical[key]
    for name, figures in of_identical["style"].items():
        assert again["style"][name] == pytest.approx(figures, rel=1e-4, abs=1e-6)


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing(photos, paintings, inception, vgg_weights, of_identical):
    again = scored(
        photos, paintings, inception, vgg_weights, outputs=photos / "photos", masks=photos / "masks", workers=2
    )
    assert again == of_identical


def test_the_command_scores_a_style_and_writes_table_json_sheet_and_pictures(
    photos, paintings, inception, vgg_weights, tmp_path, capsys
):  # fmt: skip
    torch.manual_seed(0)
    SDPGAN(base_channels=4, residual_blocks=1).save_pretrained(tmp_path / "random")
    command = ["--style", tmp_path / "random", "--photos", photos / "photos", "--paintings", paintings, "--masks",
               photos / "masks", "--inception", inception, "--feature_layer", LAYER, "--vgg_weights", vgg_weights,
               "--size", 96, "--limit", 5, "--device", "cpu", "--json", tmp_path / "result" / "all.json", "--sheet",
               tmp_path / "sheet.png", "--write", tmp_path / "pictures"]  # fmt: skip
    assert evaluation.main([str(part) for part in command]) == 0
    result = json.loads((tmp_path / "result" / "all.json").read_text())
    table = capsys.readouterr().out
    assert result["name"] == "random" and result["settings"]["photos"] == len(result["each"]) == 5
    assert str(tmp_path) not in json.dumps(result)
    assert f"| random | {result['style']['outputs'][f'KID-{LAYER}']:.5f}" in table
    assert f"| 5, 8 | 100 x 2 | {LAYER} | short side 96 px, centre square" in table and "untouched photos" in table
    kid = [result["style"][key][f"KID-{LAYER}"] for key in ("outputs", "photos")]
    assert kid[1] > 0 and f"KID-{LAYER} is {kid[0] / kid[1]:.2f} of the untouched photos'" in table
    assert "| half of the paintings |" in table and "| 4, 4 |" in table
    assert f"Salient detail kept: {result['detail']['salient']['detail_kept']:.3f}" in table
    assert pictures.read(tmp_path / "sheet.png").shape == (4 * 96, 5 * 96, 3)
    model = SDPGAN.from_pretrained(tmp_path / "random")
    painted = sorted((tmp_path / "pictures" / "outputs").rglob("*.png"))
    assert len(painted) == 5
    photo = tmp_path / "pictures" / "photos" / painted[0].relative_to(tmp_path / "pictures" / "outputs")
    assert np.array_equal(pictures.read(painted[0]), model.stylize(pictures.read(photo)))

    # what was written scores the same as another program's outputs
    again = scored(tmp_path / "pictures", paintings, inception, vgg_weights, outputs=tmp_path / "pictures" / "outputs",
                   masks=photos / "masks")  # fmt: skip
    assert again["detail"] == result["detail"] and again["style"]["outputs"] == result["style"]["outputs"]


def test_outputs_of_another_size_are_scaled_and_counted(photos, paintings, inception, vgg_weights, tmp_path):
    outputs = changed(photos, tmp_path / "double", lambda x: np.repeat(np.repeat(x, 2, 0), 2, 1))
    result = scored(photos, paintings, inception, vgg_weights, outputs=outputs, masks=photos / "masks")
    assert result["settings"]["outputs_resized"] == 6 and "6 outputs were of another size" in evaluation.table(result)
    assert result["detail"]["salient"]["ssim"] == pytest.approx(1, abs=1e-3)


def test_what_cannot_be_measured_is_one_sentence(photos, paintings, inception, vgg_weights, tmp_path):
    def refused(match: str, **arguments) -> None:
        with pytest.raises(SDPGANError, match=match):
            scored(**{"photos": photos, "paintings": paintings, "inception": inception, "vgg": vgg_weights} | arguments)

    outputs = changed(photos, tmp_path / "outputs", lambda x: x)
    (outputs / "coffee" / "1.png").unlink()
    refused("nothing made of coffee/1 .1 of 6", outputs=outputs)
    refused("--style or --outputs")
    refused("--style or --outputs", outputs=outputs, style_name="vangogh")
    refused("no style or folder 'nowhere'", style_name="nowhere")
    refused("size is 32; it must be at least 64", outputs=outputs, size=32)
    refused("limit is 2; it must be at least 4", outputs=outputs, limit=2)
    refused("batch_size is 0", outputs=outputs, batch_size=0)
    refused("6 photos and 2 paintings", outputs=outputs, paintings=photos / "masks")
    refused("No mask in", outputs=photos / "photos", masks=paintings)
    refused("feature_layer is '65'", outputs=outputs, feature_layer="65")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    refused("other.pth is not a state dict of torch-fidelity's", outputs=outputs, inception=tmp_path / "other.pth")
    torch.save([1], tmp_path / "list.pth")
    refused("list.pth holds a list", outputs=outputs, inception=tmp_path / "list.pth")
    refused("absent.pth is not a readable file", outputs=outputs, inception=tmp_path / "absent.pth")
    shutil.copytree(photos / "photos", tmp_path / "twins" / "photos")
    shutil.copy(photos / "photos/coffee/1.png", tmp_path / "twins/photos/coffee/1.bmp")
    refused("coffee/1 with several suffixes", photos=tmp_path / "twins", outputs=photos / "photos")
    (tmp_path / "twins/photos/coffee/1.bmp").unlink()
    (tmp_path / "twins/photos/coffee/1.png").write_bytes(b"no image")
    refused("coffee/1.png cannot be read as an image", photos=tmp_path / "twins", outputs=photos / "photos")


def test_weights_that_would_run_code_are_refused_and_do_not_run(tmp_path: Path):
    class Code:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "it ran"),)

    torch.save({"weight": Code()}, tmp_path / "code.pth")
    with pytest.raises(SDPGANError, match=r"code.pth is not a readable file of tensors"):
        style.InceptionFeatures(tmp_path / "code.pth", "768", torch.device("cpu"))
    assert not (tmp_path / "it ran").exists()


@pytest.mark.slow
def test_real_paintings_are_closer_to_their_other_half_than_photos_are(shared: Path, tmp_path: Path):
    import subprocess
    import sys

    weights = tmp_path / "inception_768.pth"
    subprocess.run([sys.executable, shared / "tools" / "fidelity_weights.py", weights], check=True, capture_output=True)
    network = style.InceptionFeatures(weights, "768", torch.device("cpu"), 256)
    files = [sorted((shared / "data" / part).iterdir())[:16] for part in ("paintings/vangogh/val", "photos/val")]
    paintings, photos = (network(paths, 4)["768"] for paths in files)
    floor = style.distance(*style.halves(paintings), "768")["KID-768"]
    assert style.distance(photos, paintings, "768")["KID-768"] > 5 * abs(floor)


def test_detail_skip_paints_with_more_of_the_photo_than_the_style_s_own(
    photos, paintings, inception, vgg_weights, tmp_path
):
    torch.manual_seed(0)
    SDPGAN(base_channels=4, residual_blocks=1, detail_skip=1.0).save_pretrained(tmp_path / "style")
    own, none = (
        scored(photos, paintings, inception, vgg_weights, style_name=str(tmp_path / "style"), detail_skip=share)
        for share in (None, 0.0)
    )
    assert (own["settings"]["detail_skip"], none["settings"]["detail_skip"]) == (1.0, 0.0)
    assert own["detail"]["salient"]["detail_kept"] > none["detail"]["salient"]["detail_kept"] + 0.05
    with pytest.raises(SDPGANError, match="detail_skip is for how a --style paints"):
        scored(photos, paintings, inception, vgg_weights, outputs=photos / "photos", detail_skip=0.5)
