"""training/data/dataset.py: what is wrong with images, edge-blurred paintings, and samples of every source."""

import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from assertions import refusal
from PIL import Image
from test_prepare import picture
from test_sources import shard

from sdpgan_hub.files import read_rgb
from training.data.cache import SALIENCY, prepare, result_path
from training.data.dataset import UnpairedImages, check, edge_blurred
from training.data.sources import fetch, image_files
from training.run.config import TrainingConfig


def write(folder: Path, count: int, size: tuple[int, int] = (64, 64), start: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(start, start + count):
        noise = np.random.default_rng(seed).integers(256, size=(*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{seed:03}.png")
    return folder


def write_references(photos: Path, cache: Path) -> None:
    """Made-up references where prepare.py would put those of the photos of 64 x 64 px."""
    for path in image_files(photos):
        result = result_path(cache, SALIENCY, photos, path)
        result.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(result)


SMALL = TrainingConfig(image_size=48, crop_size=32, seed=3)
NO_REFERENCES = TrainingConfig(image_size=48, crop_size=32, seed=3, train_saliency=False)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write(tmp_path / "photos", 20)


@pytest.fixture
def paintings(tmp_path: Path) -> Path:
    return write(tmp_path / "paintings", 20)


@pytest.mark.parametrize("kind", ["photos", "paintings"])
def test_an_empty_folder_and_one_without_a_readable_image_are_refused(
    photos: Path, paintings: Path, tmp_path, kind: str
):
    sources = {"photos": photos, "paintings": paintings}
    bad = tmp_path / "bad"
    bad.mkdir()
    refusal(lambda: check(**sources | {kind: bad}, crop_size=64), bad)
    (bad / "a.jpg").write_bytes(b"no image")
    refusal(lambda: check(**sources | {kind: bad}, crop_size=64), f"1 {kind} of {bad}")


def test_one_painting_is_refused_three_are_a_warning_and_twenty_are_none(photos: Path, tmp_path: Path):
    style = write(tmp_path / "style", 1)
    refusal(lambda: check(photos, style, 64), style)
    write(style, 2, start=1)
    (warning,) = check(photos, style, 64)
    assert str(style) in warning and "3 paintings" in warning
    write(style, 17, start=3)
    assert check(photos, style, 64) == []


def test_photos_smaller_than_the_crop_are_one_warning_that_counts_and_names_them(photos: Path, paintings: Path):
    write(photos, 5, size=(200, 40), start=50)
    (warning,) = check(photos, paintings, 64)
    assert "5 of 25 photos" in warning and "64 px" in warning
    assert "050.png" in warning and "052.png and 2 more" in warning and "053" not in warning


def test_photos_below_half_the_crop_are_refused_where_they_are_more_than_one_in_ten(photos: Path, paintings: Path):
    write(photos, 2, size=(31, 200), start=50)
    (warning,) = check(photos, paintings, 64)
    assert "2 of 22 photos" in warning
    write(photos, 1, size=(31, 200), start=52)
    refusal(lambda: check(photos, paintings, 64), "3 of 23 photos")
    assert len(check(photos, paintings, 62)) == 1


def test_unreadable_and_missing_images_are_named_in_a_warning_each(photos: Path, paintings: Path):
    (photos / "broken.jpg").write_bytes(b"no image")
    listing = photos.parent / "photos.txt"
    listing.write_text("\n".join(f"photos/{name}" for name in [*(p.name for p in photos.iterdir()), "gone.png"]))
    missing, unreadable = check(listing, paintings, 64)
    assert "gone.png" in missing and "broken.jpg" in unreadable


def test_the_same_images_as_both_are_refused(photos: Path):
    refusal(lambda: check(photos, f"{photos}/", 64), photos)
    refusal(lambda: check(photos, os.path.relpath(photos), 64), photos)


def test_the_check_reads_headers_only(photos: Path, paintings: Path):
    for path in photos.iterdir():
        path.write_bytes(path.read_bytes()[:64])
    assert check(photos, paintings, 64) == []


def test_samples_of_a_folder_a_list_and_shards_that_are_deleted_once_prepared_are_equal(tmp_path: Path):
    pytest.importorskip("datasets")
    photos, paintings, cache = write(tmp_path / "photos", 3), write(tmp_path / "paintings", 4), tmp_path / "cache"
    (tmp_path / "photos.txt").write_text("\n".join(f"photos/{seed:03}.png" for seed in range(3)))
    shard(tmp_path / "shards/0.tar", {path.name: path.read_bytes() for path in sorted(photos.iterdir())})
    datas = []
    for source in (photos, tmp_path / "photos.txt", f"{tmp_path}/shards:train"):
        prepare(source, paintings, cache, references=False, workers=1, progress=False)
        datas.append(UnpairedImages(source, paintings, cache, NO_REFERENCES))
    (tmp_path / "shards/0.tar").unlink()
    for number in (0, 1, 7):
        first, *others = (data[number] for data in datas)
        assert all(torch.equal(first[key], other[key]) for other in others for key in first)
    assert prepare(f"{tmp_path}/shards:train", None, cache, references=False, workers=1, progress=False).made == 0
    (few_photos, few_paintings) = check(f"{tmp_path}/shards:train", paintings, 32, cache)
    assert "3 photos" in few_photos and "4 paintings" in few_paintings
    again = pickle.loads(pickle.dumps(datas[2]))
    assert torch.equal(again[5]["photo"], datas[0][5]["photo"])


def test_a_source_to_be_fetched_is_not_looked_into_before(paintings: Path, tmp_path: Path):
    pytest.importorskip("datasets")
    (tmp_path / "empty").mkdir()
    source = f"{tmp_path}/empty:train"
    assert check(source, paintings, 64, tmp_path / "cache") == []
    refusal(lambda: fetch(source, tmp_path / "cache"), source)
    refusal(lambda: UnpairedImages(source, paintings, tmp_path / "cache", SMALL), source)


def test_without_references_a_sample_is_the_same_but_for_its_reference(photos: Path, paintings: Path, tmp_path: Path):
    cache = tmp_path / "cache"
    prepare(photos, paintings, cache, references=False, workers=1, progress=False)
    write_references(photos, cache)
    without, with_ = (UnpairedImages(photos, paintings, cache, config) for config in (NO_REFERENCES, SMALL))
    assert without.photos == with_.photos
    for number in (0, 19, 33):
        expected = with_[number]
        assert expected.pop("reference").shape == (1, 32, 32)
        assert without[number].keys() == expected.keys() == {"photo", "painting", "edge_blurred"}
        assert all(torch.equal(without[number][key], value) for key, value in expected.items())


def test_images_without_a_result_in_the_cache_are_left_out(photos: Path, paintings: Path, tmp_path: Path):
    prepare(None, paintings, tmp_path / "cache", workers=1, progress=False)
    write_references(photos, tmp_path / "cache")
    (tmp_path / "cache" / "saliency" / "004.png.png").unlink()
    (tmp_path / "cache" / "readable" / "paintings" / "005.png.png").unlink()
    data = UnpairedImages(photos, paintings, tmp_path / "cache", SMALL)
    assert len(data) == 19 and photos / "004.png" not in data.photos
    assert len(data.paintings) == 19 and paintings / "005.png" not in data.paintings


# edge_blurred, Sec. III-B


def test_edge_blur_leaves_every_pixel_far_from_an_edge_as_it_was_and_softens_the_edge():
    step = np.full((64, 64, 3), 30, np.uint8)
    step[:, 32:] = 220
    grain = np.random.default_rng(0).integers(0, 12, step.shape, dtype=np.uint8)
    image = step + grain
    blurred = edge_blurred(image)
    near = np.abs(np.arange(64) - 31.5) < 1
    far = np.abs(np.arange(64) - 31.5) > 4
    assert np.array_equal(blurred[:, far], image[:, far])
    slope = [np.ptp(x[:, near].astype(int)) for x in (image, blurred)]
    assert slope[1] < 0.6 * slope[0]


def test_edge_blur_inside_the_dilated_edges_is_opencvs_5x5_gaussian():
    image = picture()
    changed = (edge_blurred(image) != image).any(2)
    assert 0.05 < changed.mean() < 0.6
    assert np.array_equal(edge_blurred(image)[changed], cv2.GaussianBlur(image, (5, 5), 0)[changed])


def test_edge_blur_takes_the_brushwork_out_of_real_van_goghs_and_leaves_flat_paint_alone(shared: Path):
    # were strokes left sharp in what D learns to reject, G would not paint any
    for path in image_files(shared / "data" / "paintings" / "vangogh" / "val")[::4]:
        image = read_rgb(path)
        blurred = edge_blurred(image)
        sharpness = [cv2.Laplacian(cv2.cvtColor(one, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var() for one in (blurred, image)]
        assert sharpness[0] < 0.5 * sharpness[1], path.name
        assert 0.02 < (blurred == image).all(2).mean() < 0.9, path.name
