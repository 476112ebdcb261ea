"""training/evaluate.py and training/metrics: what each figure is, and that it catches what it is for."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import training_extra  # noqa: F401
from assertions import refusal
from skimage import data
from skimage.color import deltaE_ciede2000, rgb2lab
from torch import nn

from sdpgan_hub import SDPGAN
from sdpgan_hub.errors import SDPGANError
from sdpgan_hub.saliency import reference
from training import evaluate as evaluation
from training.data import pictures
from training.losses.perceptual import PerceptualFeatures
from training.metrics import artifacts, colour, deception, detail, report, robustness, saliency, style

LAYER = "64"
"""Of the FID network; the first, for speed."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six 96 x 112 parts of photos that come with scikit-image, and masks of their middle for two of them."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("astronaut", "chelsea", "coffee"):
        image = getattr(data, name)()
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
        noise = cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX)
        pictures.write(folder / f"{number}.png", noise.astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of twelve 96 x 112 images each: other photos, and the works of two painters, dots and stripes."""
    folder, random = tmp_path_factory.mktemp("classes"), np.random.default_rng(1)
    for number in range(12):
        image = (data.rocket(), data.stereo_motorcycle()[0], data.astronaut()[272:])[number % 3]
        top, left = 60 * (number // 3) % (len(image) - 239), 70 * (number // 3)
        crop = cv2.resize(image[top : top + 240, left : left + 280], (112, 96), interpolation=cv2.INTER_AREA)
        pictures.write(folder / "photos" / f"{number}.png", crop)
        dots = cv2.GaussianBlur(random.random((96, 112, 3)), (0, 0), 1)
        stripes = np.sin(random.random((1, 1, 3)) * 6 + np.arange(112)[None, :, None] * random.uniform(0.5, 0.8))
        for name, noise in (("dots", dots), ("stripes", stripes + 0 * dots)):
            noise = cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX)
            pictures.write(folder / name / f"{number}.png", noise.astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def classifier(classes, inception) -> deception.Classifier:
    return deception.Classifier(painters_of(classes), classes / "photos", inception, 96)


def painters_of(classes: Path) -> dict[str, Path]:
    return {name: classes / name for name in ("dots", "stripes")}


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[:192, 120:344])


def changed(photos: Path, folder: Path, change) -> Path:
    for path in sorted((photos / "photos").rglob("*.png")):
        pictures.write(folder / path.relative_to(photos / "photos"), change(pictures.read(path)))
    return folder


@pytest.fixture(scope="module")
def scored(photos, paintings, inception, vgg_weights) -> Callable[..., dict]:
    """`evaluate` of the photos and paintings, at the least cost; takes more arguments, and others in place of these."""
    given = {"photos": photos / "photos", "paintings": paintings, "inception": inception, "vgg_weights": vgg_weights}
    return partial(evaluation.evaluate, **given, feature_layer=LAYER, size=96, device="cpu")


@pytest.fixture(scope="module")
def of_identical(scored, photos) -> dict:
    return scored(outputs=photos / "photos", masks=photos / "masks")


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


def test_identical_sets_are_at_distance_0_from_each_other(photos, inception):
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


def test_chroma_is_0_for_grey_and_that_of_cielab_for_red():
    grey, red = np.full((4, 4, 3), 90, np.uint8), np.tile(np.uint8([255, 0, 0]), (4, 4, 1))
    assert colour.mean_chroma(grey) == pytest.approx(0, abs=0.01)
    assert colour.mean_chroma(red) == pytest.approx(104.55, abs=0.01)
    assert colour.mean_chroma(np.concatenate([grey, red])) == pytest.approx(104.55 / 2, abs=0.01)


def test_the_classifier_sees_the_fid_network_s_maps_before_they_are_averaged_at_one_size(photos, inception, tmp_path):
    image = pictures.read(photos / "photos/coffee/0.png")
    square = cv2.resize(image[:, :96], (299, 299))  # the size at which torch-fidelity does not scale
    pictures.write(tmp_path / "square.png", np.pad(square, ((0, 0), (30, 30), (0, 0))))  # the middle is looked at
    pictures.write(tmp_path / "double.png", square.repeat(2, 0).repeat(2, 1))
    found = deception.MapStatistics(inception, 299)([tmp_path / "square.png", tmp_path / "double.png"])
    network, maps = style.load_network(inception, ["768"], torch.device("cpu")), []
    for module in (network.MaxPool_2, network.Mixed_6e):
        module.register_forward_hook(lambda _, __, output: maps.append(output.flatten(2).numpy()))
    network(torch.from_numpy(square).permute(2, 0, 1)[None])
    expected = np.concatenate([statistic for each in maps for statistic in (each.mean(2)[0], each.std(2)[0])])
    assert [each.shape[1] for each in maps] == [192, 768] and found.shape == (2, 1920)
    for row in found:
        np.testing.assert_allclose(row, expected, rtol=1e-3, atol=1e-3 * expected.mean())


def test_a_painter_s_own_works_deceive_and_photos_and_the_other_painter_s_do_not(classes, classifier, photos):
    assert classifier.held_back_accuracy == 1 and classifier.classes == ["photo", "dots", "stripes"]
    assert classifier.images == {"photo": 9, "dots": 9, "stripes": 9}
    assert classifier.held_back == {name: {"images": 3, "recognised": 1} for name in classifier.images}
    dots, stripes = (sorted((classes / name).iterdir()) for name in ("dots", "stripes"))
    shares = {"photo": 0, "dots": 0.75, "stripes": 0.25}
    mixed = classifier.rate([*dots[:9], *stripes[:3]], "dots")
    assert mixed == {"rate": 0.75, "taken_for_photo": 0, "per_class": shares, "images": 12}
    assert classifier.rate([*dots[:9], *stripes[:3]], "stripes")["rate"] == 0.25
    untouched = classifier.rate(sorted((photos / "photos").rglob("*.png")), "dots")
    assert untouched["taken_for_photo"] == 1 and untouched["rate"] == 0


def test_the_same_images_give_the_same_classifier_and_a_seed_chooses_whom_to_hold_back(
    classes, classifier, inception, monkeypatch
):
    seen = []
    monkeypatch.setattr(
        deception.MapStatistics, "__call__", lambda self, files, **_: seen.append(list(files)) or rows(files)
    )

    def rows(files: list[Path]) -> np.ndarray:
        return np.array([["dots" in str(file), "stripes" in str(file), int(file.stem)] for file in files], float)

    models = [deception.Classifier(painters_of(classes), classes / "photos", inception, 96, seed=seed)
              for seed in (0, 0, 1)]  # fmt: skip
    first, again, other = seen[:6], seen[6:12], seen[12:]
    assert first == again and first[3:] != other[3:]  # three classes to learn, then what was held back of each
    assert np.array_equal(models[0].model[-1].coef_, models[1].model[-1].coef_)


def test_held_back_folders_and_limits_are_kept_to_and_enlarged_images_are_counted(
    classes, inception, tmp_path, monkeypatch
):
    shutil.copytree(classes / "photos", tmp_path / "others")
    monkeypatch.setattr(deception.MapStatistics, "__call__", lambda self, files, **_: np.eye(len(files), 3))
    one = deception.Classifier({"dots": [classes / "dots", classes / "stripes"]}, classes / "photos", inception, 100,
                               held_back={"photo": tmp_path / "others"}, limit=6)  # fmt: skip
    assert one.images == {"photo": 6, "dots": 4} and one.held_back["photo"]["images"] == 6
    assert one.enlarged == {"photo": 12, "dots": 6}  # all of 96 px
    named = deception.Classifier({"dots": classes / "dots"}, classes / "photos", inception, 96)
    assert set(named.enlarged.values()) == {0}


def test_a_class_of_more_images_weighs_no_more(classes, inception, monkeypatch):
    monkeypatch.setattr(deception.MapStatistics, "__call__", lambda self, files, **_: np.zeros((len(files), 2)))
    one = deception.Classifier({"both": [classes / "dots", classes / "stripes"]}, classes / "photos", inception, 96)
    assert one.images == {"photo": 9, "both": 19}
    np.testing.assert_allclose(one.model.predict_proba(np.zeros((1, 2))), 0.5, atol=1e-4)


def test_what_cannot_be_classified_is_one_sentence(classes, inception, tmp_path):
    refusal(
        lambda: deception.Classifier({"photo": classes / "dots"}, classes / "photos", inception, 96),
        'none of them "photo"',
    )
    refusal(lambda: deception.Classifier(painters_of(classes), classes / "photos", inception, 64), "of 64 px")
    refusal(
        lambda: deception.Classifier({"dots": classes / "dots"}, classes / "photos", inception, 96,
                                     held_back={"dots": classes}),
        classes / "dots", "held back",
    )  # fmt: skip
    shutil.copytree(classes / "dots", tmp_path / "dots", ignore=lambda _, names: sorted(names)[4:])
    refusal(
        lambda: deception.Classifier({"few": [tmp_path / "dots"] * 2}, classes / "photos", inception, 96),
        "few has 4 images",
    )


class Painter:
    """Stands in for an SDPGAN; `change` is what it does to a photo."""

    def __init__(self, change):
        self.change = change

    def stylize(self, photo: np.ndarray, keep_detail: float | None = None) -> np.ndarray:
        assert keep_detail == 0  # of the generator alone
        return np.clip(self.change(photo.astype(float)), 0, 255).astype(np.uint8)


def test_a_painter_of_tones_keeps_them_and_one_that_normalises_does_not(astronaut):
    photos = [astronaut[:96, :96], astronaut[96:, 100:200]]
    seen: list[float] = []
    tones = robustness.tone(Painter(lambda x: seen.append(x.mean()) or x), photos)
    np.testing.assert_allclose(seen[:4], photos[0].mean() * np.array([0.1, 0.25, 0.5, 1]), atol=0.5)
    assert tones == {"correlation": pytest.approx(1), "pairs": 8, "black": 0, "white": 255}
    tones = robustness.tone(Painter(lambda x: (x - x.mean()) / max(x.std(), 1) * 50 + 120), photos)
    assert abs(tones["correlation"]) < 0.7 and tones["black"] == tones["white"] == 120
    assert robustness.tone(Painter(lambda x: 0 * x + 9), photos)["correlation"] is None


def test_a_painter_bound_to_the_pixel_grid_changes_when_the_photo_moves_and_a_filter_does_not(astronaut):
    def columns(x: np.ndarray) -> np.ndarray:
        return np.full_like(x, 100) + 20 * (np.arange(x.shape[1])[None, :, None] % 2)

    assert robustness.shift(Painter(lambda x: cv2.blur(x, (5, 5))), [astronaut]) == {"1": 0, "2": 0, "3": 0}
    for rows_or_columns in (columns, lambda x: columns(x.transpose(1, 0, 2)).transpose(1, 0, 2)):
        assert robustness.shift(Painter(rows_or_columns), [astronaut]) == {"1": 20, "2": 0, "3": 20}
    refusal(lambda: robustness.robustness(Painter(columns), [astronaut[:60]]), "at least 68 pixels")


def test_a_map_that_is_the_mask_is_without_error_and_its_negative_is_all_error(photos):
    def mask_of_all(image: np.ndarray) -> np.ndarray:
        mask = np.zeros(image.shape[:2])
        mask[24:72, 28:84] = 1
        return mask

    pairs = saliency.pairs(photos / "photos", photos / "masks")
    assert [path.parent.name for pair in pairs for path in pair] == ["astronaut", "astronaut", "coffee", "coffee"]
    best = saliency.accuracy(pairs, mask_of_all)
    assert best["images"] == 2 and list(best["figures"]) == ["S", "RBD", "MB+", "mean"]
    perfect = {key: pytest.approx(0 if key == "MAE" else 1, abs=1e-6) for key in saliency.SHOWN}
    assert {key: best["figures"]["S"][key] for key in saliency.SHOWN} == perfect
    scores = saliency.Accuracy()
    scores.step(1 - mask_of_all(np.zeros((96, 112, 3))), np.uint8(255) * (mask_of_all(np.zeros((96, 112, 3))) > 0))
    assert scores.results()["MAE"] == pytest.approx(1) and scores.results()["AUC"] < 0.5
    for name in ("RBD", "MB+", "mean"):
        assert 0 < best["figures"][name]["MAE"] < 1
    refusal(lambda: saliency.pairs(photos / "masks", photos / "photos/chelsea"), "No mask in")
    refusal(lambda: saliency.pairs(photos / "masks", photos / "masks"), "No mask in")


def test_spoilt_outputs_score_worse_and_of_another_size_are_scaled_and_counted(scored, photos, of_identical, tmp_path):
    def spoilt(image: np.ndarray) -> np.ndarray:
        image = cv2.GaussianBlur(image, (0, 0), 2).astype(int)
        image[::2, ::2] += 12
        grey = image.mean(2, keepdims=True)
        image = np.clip(grey + (image - grey) / 2, 0, 255).astype(np.uint8)
        return image.repeat(2, 0).repeat(2, 1)

    outputs = changed(photos, tmp_path / "spoilt", spoilt)
    result = scored(outputs=outputs, masks=photos / "masks")
    best, worse = report.headline(of_identical), report.headline(result)
    for name in ("salient detail kept", "background detail kept"):
        assert worse[name] < best[name] - 0.2
    artifact_names = ("checkerboard", "checkerboard levels", "grain of flat areas", "colour shift")
    for name in ("salient VGG distance", "saliency change", *artifact_names):
        assert worse[name] > best[name]
    assert worse["checkerboard"] > 20
    chroma = of_identical["colour"]
    assert chroma["outputs"] == chroma["photos"] and chroma["ratio"] == chroma["outputs"] / chroma["paintings"]
    assert worse["chroma / paintings'"] == pytest.approx(best["chroma / paintings'"] / 2, rel=0.1)
    assert result["settings"]["outputs_resized"] == 6 and "6 outputs were of another size" in report.table(result)
    photo = pictures.read(photos / "photos/coffee/0.png")
    assert np.array_equal(pictures.scaled(photo.repeat(2, 0).repeat(2, 1), *photo.shape[:2]), photo)


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing(scored, photos, of_identical):
    assert scored(outputs=photos / "photos", masks=photos / "masks", workers=2) == of_identical


@pytest.fixture(scope="module")
def of_a_style(photos, paintings, classes, inception, vgg_weights, tmp_path_factory) -> Path:
    """What the command leaves of a style with keep_detail 1: style/, table.md, all.json, sheet.png, pictures/."""
    folder = tmp_path_factory.mktemp("of_a_style")
    torch.manual_seed(0)
    SDPGAN(base_channels=4, residual_blocks=1, keep_detail=1.0).save_pretrained(folder / "style")
    command = ["--style", folder / "style", "--photos", photos / "photos", "--paintings", paintings, "--masks",
               photos / "masks", "--inception", inception, "--feature_layer", LAYER, "--vgg_weights", vgg_weights,
               "--size", 96, "--limit", 5, "--device", "cpu", "--json", folder / "result" / "all.json", "--sheet",
               folder / "sheet.png", "--write", folder / "pictures", "--painters", f"dots={classes / 'dots'}",
               f"stripes={classes / 'stripes'}", "--painter", "dots", "--classifier_photos", classes / "photos",
               "--robustness"]  # fmt: skip
    with (folder / "table.md").open("w") as file, contextlib.redirect_stdout(file):
        assert evaluation.main([str(part) for part in command]) == 0
    return folder


def test_the_command_scores_a_style_and_writes_table_json_sheet_and_pictures(of_a_style):
    result = json.loads((of_a_style / "result" / "all.json").read_text())
    table = (of_a_style / "table.md").read_text()
    assert result["name"] == "style" and result["settings"]["photos"] == len(result["each"]) == 5
    assert str(of_a_style) not in json.dumps(result)
    assert f"| style, keep_detail 1 | {result['style']['outputs'][f'KID-{LAYER}']:.5f}" in table
    assert f"| 5, 8 | 100 x 2 | {LAYER} | short side 96 px, centre square" in table and "untouched photos" in table
    kid = result["generator"]["style"]["outputs"][f"KID-{LAYER}"], result["style"]["photos"][f"KID-{LAYER}"]
    assert kid[1] > 0 and f"KID-{LAYER} is {kid[0] / kid[1]:.2f} of the untouched photos'" in table
    assert "| half of the paintings |" in table and "| 4, 4 |" in table
    assert pictures.read(of_a_style / "sheet.png").shape == (4 * 96, 5 * 96, 3)
    assert f"| {result['robustness']['tone']['correlation']:.3f} |" in table
    assert result["robustness"]["photos"] == 5 and result["robustness"]["tone"]["pairs"] == 20


def test_the_headline_pair_is_the_generator_s_alone_and_what_keeps_detail_stands_beside_it(of_a_style):
    result = json.loads((of_a_style / "result" / "all.json").read_text())
    table, headline = (of_a_style / "table.md").read_text(), report.headline(result)
    alone, kept = result["generator"]["detail"]["salient"]["detail_kept"], result["detail"]["salient"]["detail_kept"]
    assert kept > alone + 0.05 and list(headline)[:2] == ["deception rate", "salient detail kept"]
    assert headline["salient detail kept"] == alone
    assert headline["deception rate"] == result["generator"]["deception"]["rate"]
    assert f"salient detail kept {alone:.3f}** of the generator alone" in table
    for label, figure in (("generator alone", alone), ("keep_detail 1", kept)):
        assert f"| style, {label} | salient | {figure:.3f} |" in table
    model = SDPGAN.from_pretrained(of_a_style / "style")
    for folder, share in (("outputs", None), ("generator", 0)):
        painted = sorted((of_a_style / "pictures" / folder).rglob("*.png"))
        photo = of_a_style / "pictures" / "photos" / painted[0].relative_to(of_a_style / "pictures" / folder)
        assert len(painted) == 5
        assert np.array_equal(pictures.read(painted[0]), model.stylize(pictures.read(photo), keep_detail=share))


def test_the_deception_rate_comes_with_the_photos_and_with_the_classifier_s_accuracy(of_a_style, classifier):
    result = json.loads((of_a_style / "result" / "all.json").read_text())
    found, folder = result["deception"], of_a_style / "pictures"
    files = {name: sorted((folder / name).rglob("*.png")) for name in ("photos", "outputs", "generator")}
    assert found["photos"] == classifier.rate(files["photos"], "dots") and found["photos"]["taken_for_photo"] == 1
    assert found["held_back_accuracy"] == classifier.held_back_accuracy == 1
    assert {key: found[key] for key in ("rate", "taken_for_photo", "per_class", "images")} == classifier.rate(
        files["outputs"], "dots"
    )
    assert result["generator"]["deception"]["per_class"] == classifier.rate(files["generator"], "dots")["per_class"]
    assert found["learnt_from"] == {"photo": 9, "dots": 9, "stripes": 9} and found["size"] == 96
    assert "recognises 1.000 of held-back images" in (of_a_style / "table.md").read_text()
    assert "| untouched photos | 1.000 | 0.000 | 0.000 | 5 |" in (of_a_style / "table.md").read_text()


def test_what_was_written_scores_the_same_as_outputs_of_another_program_in_any_batches(scored, photos, of_a_style):
    result, written = json.loads((of_a_style / "result" / "all.json").read_text()), of_a_style / "pictures"
    masks = photos / "masks"
    again = scored(photos=written / "photos", outputs=written / "generator", masks=masks, batch_size=3)
    for key in ("detail", "artifacts", "colour"):
        assert again[key] == result["generator"][key]
    for name, figures in again["style"].items():
        assert figures == pytest.approx(result["generator"]["style"][name], rel=1e-4, abs=1e-6)
    assert again["deception"] is None and again["generator"] is None
    assert report.headline(again)["deception rate"] is None
    assert report.headline(again)["salient detail kept"] == report.headline(result)["salient detail kept"]


def test_the_saliency_command_prints_the_network_beside_the_references(photos, of_a_style, tmp_path, capsys):
    command = ["saliency", "--style", of_a_style / "style", "--images", photos / "photos", "--masks", photos / "masks",
               "--json", tmp_path / "saliency.json", "--device", "cpu"]  # fmt: skip
    assert evaluation.main([str(part) for part in command]) == 0
    result, printed = json.loads((tmp_path / "saliency.json").read_text()), capsys.readouterr().out
    assert result["images"] == 2 and list(result["figures"]) == ["S", "RBD", "MB+", "mean"]
    model = SDPGAN.from_pretrained(of_a_style / "style")
    expected = saliency.accuracy(saliency.pairs(photos / "photos", photos / "masks"), model.saliency_map)
    assert result["figures"]["S"] == expected["figures"]["S"] != result["figures"]["mean"]
    of_the_reference = saliency.accuracy(saliency.pairs(photos / "photos", photos / "masks"), reference)
    assert result["figures"]["mean"] == pytest.approx(of_the_reference["figures"]["S"], abs=0.01)
    assert "| method | MAE | max F (mean P, R) | max F (mean F) | AUC | S-measure |" in printed
    for name, figures in result["figures"].items():
        assert f"| {name} | {figures['MAE']:.3f} | {figures['max F (mean P, R)']:.3f} |" in printed
    torch.manual_seed(0)
    SDPGAN(base_channels=4, residual_blocks=1, feature_concatenation=False, saliency_network=False).save_pretrained(
        tmp_path / "blind"
    )
    command[2] = tmp_path / "blind"
    assert evaluation.main([str(part) for part in command]) == 2
    assert "has no saliency maps" in capsys.readouterr().err


def test_what_cannot_be_measured_is_one_sentence(scored, photos, paintings, classes, tiny, tmp_path):
    def refused(match: str, **arguments) -> None:
        with pytest.raises(SDPGANError, match=match):
            scored(**arguments)

    outputs = changed(photos, tmp_path / "outputs", lambda x: x)
    before = {path: path.read_bytes() for path in outputs.rglob("*.png")}
    refused("--write", outputs=outputs, write=tmp_path)
    refused("--write", outputs=outputs, photos=photos / "photos", write=photos)
    assert before == {path: path.read_bytes() for path in outputs.rglob("*.png")}
    (outputs / "coffee" / "1.png").unlink()
    refused("nothing made of coffee/1 .1 of 6", outputs=outputs)
    refused("'nowhere'", style_name="nowhere")
    refused("size.*32.*64", outputs=outputs, size=32)
    refused("limit.*2.*4", outputs=outputs, limit=2)
    refused("batch_size is 0", outputs=outputs, batch_size=0)
    refused("seed is -1", outputs=outputs, seed=-1)
    refused("--device is 'chip'", outputs=outputs, device="chip")
    refused("6 photos and 2 paintings", outputs=outputs, paintings=photos / "masks")
    refused("No mask in", outputs=photos / "photos", masks=paintings)
    refused("keep_detail and robustness.*--style", outputs=photos / "photos", keep_detail=0.5)
    refused("keep_detail and robustness.*--style", outputs=photos / "photos", robustness=True)
    refused("keep_detail is 2", style_name=str(tiny), keep_detail=2)
    judge = evaluation.Judge("dots", {"dots": classes / "dots"}, photos / "photos")
    refused("0.png.*6 of 6", outputs=photos / "photos", judge=judge)
    judge = evaluation.Judge("monet", {"dots": classes / "dots"}, classes / "photos")
    refused("'monet'.*dots", outputs=photos / "photos", judge=judge)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    refused("other.pth", outputs=photos / "photos", inception=tmp_path / "other.pth")
    torch.save([1], tmp_path / "list.pth")
    refused("list.pth holds a list", outputs=photos / "photos", inception=tmp_path / "list.pth")
    refused("absent.pth", outputs=photos / "photos", inception=tmp_path / "absent.pth")
    shutil.copytree(photos / "photos", tmp_path / "twins")
    shutil.copy(photos / "photos/coffee/1.png", tmp_path / "twins/coffee/1.bmp")
    refused("coffee/1 with several suffixes", photos=tmp_path / "twins", outputs=photos / "photos")
    (tmp_path / "twins/coffee/1.bmp").unlink()
    (tmp_path / "twins/coffee/1.png").write_bytes(b"no image")
    refused("coffee/1.png", photos=tmp_path / "twins", outputs=photos / "photos")


@pytest.mark.parametrize("command", [["--help"], ["saliency", "--help"]])
def test_each_command_has_help(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        evaluation.main(command)
    assert "--style NAME|FOLDER|HUB_ID" in capsys.readouterr().out


def test_arguments_of_the_classifier_go_together(capsys):
    common = ["--outputs", "o", "--photos", "p", "--paintings", "q"]
    for more, said in (
        (["--painter", "dots"], "--classifier_photos"),
        (["--painters", "dots", "--painter", "dots", "--classifier_photos", "c"], "'dots'"),
    ):
        assert evaluation.main([*common, *more]) == 2
        assert said in capsys.readouterr().err
    options = vars(evaluation.parse_arguments([*common, "--painters", "a=1", "b=2", "--painters", "a=3", "--painter",
                                               "a", "--classifier_photos", "c", "--held_back", "photo=4"]))  # fmt: skip
    judge = evaluation._judge(options)
    assert judge.painters == {"a": [Path("1"), Path("3")], "b": [Path("2")]}
    assert (judge.painter, judge.photos, judge.held_back) == ("a", [Path("c")], {"photo": [Path("4")]})


def test_weights_that_would_run_code_are_refused_and_do_not_run(tmp_path: Path):
    class Code:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "it ran"),)

    torch.save({"weight": Code()}, tmp_path / "code.pth")
    refusal(
        lambda: style.InceptionFeatures(tmp_path / "code.pth", "768", torch.device("cpu")),
        "code.pth is not a readable file of tensors",
    )
    assert not (tmp_path / "it ran").exists()


@pytest.fixture(scope="module")
def inception_768(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real network's weights up to layer 768."""
    weights = tmp_path_factory.mktemp("inception") / "768.pth"
    subprocess.run([sys.executable, shared / "tools" / "fidelity_weights.py", weights], check=True, capture_output=True)
    return weights


@pytest.mark.slow
def test_real_paintings_are_closer_to_their_other_half_than_photos_are(shared: Path, inception_768: Path):
    network = style.InceptionFeatures(inception_768, "768", torch.device("cpu"), 256)
    files = [sorted((shared / "data" / part).iterdir())[:16] for part in ("paintings/vangogh/val", "photos/val")]
    paintings, photos = (network(paths, 4)["768"] for paths in files)
    floor = style.distance(*style.halves(paintings), "768")["KID-768"]
    assert style.distance(photos, paintings, "768")["KID-768"] > 5 * abs(floor)


@pytest.mark.slow
def test_real_painters_are_told_from_each_other_and_from_photos(shared: Path, inception_768: Path):
    data = shared / "data"
    painters = {name: data / "paintings" / name / "train" for name in ("vangogh", "monet", "ukiyoe")}
    held_back = {name: folder.parent / "val" for name, folder in painters.items()} | {"photo": data / "photos/val"}
    known = deception.Classifier(painters, data / "photos/train", inception_768, held_back=held_back, limit=100)
    assert known.held_back_accuracy > 0.9 and known.held_back["photo"]["recognised"] > 0.9
