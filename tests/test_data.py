"""training/data.py: what is wrong with a training's images, and samples from every kind of source."""

from __future__ import annotations

import io
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sdpgan_hub.errors import SDPGANError
from training.data import UnpairedImages, check
from training.prepare import prepare
from training.sources import fetch


def write(folder: Path, count: int, size: tuple[int, int] = (64, 64), start: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(start, start + count):
        noise = np.random.default_rng(seed).integers(256, size=(*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{seed:03}.png")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write(tmp_path / "photos", 20)


@pytest.fixture
def paintings(tmp_path: Path) -> Path:
    return write(tmp_path / "paintings", 20)


def test_enough_images_as_large_as_the_crop_are_no_warning(photos: Path, paintings: Path):
    assert check(photos, paintings, 64, 64) == []
    assert check(photos, paintings, 256, 64) == []


@pytest.mark.parametrize("kind", ["photos", "paintings"])
def test_an_empty_folder_and_one_without_a_readable_image_are_refused(
    photos: Path, paintings: Path, tmp_path, kind: str
):
    sources = {"photos": photos, "paintings": paintings}
    bad = tmp_path / "bad"
    bad.mkdir()
    with pytest.raises(SDPGANError, match="bad holds no image"):
        check(**sources | {kind: bad}, image_size=64, crop_size=64)
    (bad / "a.jpg").write_bytes(b"no image")
    with pytest.raises(SDPGANError, match=f"None of the 1 {kind} of .*bad can be read"):
        check(**sources | {kind: bad}, image_size=64, crop_size=64)


def test_one_painting_is_refused_three_are_a_warning_and_twenty_are_none(photos: Path, tmp_path: Path):
    style = write(tmp_path / "style", 1)
    with pytest.raises(SDPGANError, match="style holds one painting"):
        check(photos, style, 64, 64)
    write(style, 2, start=1)
    (warning,) = check(photos, style, 64, 64)
    assert "style holds only 3 paintings" in warning
    write(style, 17, start=3)
    assert check(photos, style, 64, 64) == []


def test_photos_smaller_than_the_crop_are_one_warning_that_counts_and_names_them(photos: Path, paintings: Path):
    write(photos, 5, size=(200, 40), start=50)
    (warning,) = check(photos, paintings, 80, 64)
    assert "5 of 25 photos" in warning and "below the crop of 64 px" in warning and "by 2.0 at most" in warning
    assert "050.png" in warning and "052.png and 2 more" in warning and "053" not in warning


def test_photos_below_half_the_crop_are_refused_where_they_are_more_than_one_in_ten(photos: Path, paintings: Path):
    write(photos, 2, size=(31, 200), start=50)
    (warning,) = check(photos, paintings, 64, 64)
    assert "2 of 22 photos" in warning
    write(photos, 1, size=(31, 200), start=52)
    with pytest.raises(SDPGANError, match=r"3 of 23 photos of .* is below half the crop, 64 px"):
        check(photos, paintings, 64, 64)
    assert len(check(photos, paintings, 62, 62)) == 1


def test_unreadable_and_missing_images_are_named_in_a_warning_each(photos: Path, paintings: Path):
    (photos / "broken.jpg").write_bytes(b"no image")
    listing = photos.parent / "photos.txt"
    listing.write_text("\n".join(f"photos/{name}" for name in [*(p.name for p in photos.iterdir()), "gone.png"]))
    missing, unreadable = check(listing, paintings, 64, 64)
    assert missing.startswith("1 of the photos") and "cannot be found" in missing and "gone.png" in missing
    assert unreadable.startswith("1 of the photos") and "cannot be read" in unreadable and "broken.jpg" in unreadable


def test_the_same_images_as_both_and_a_crop_above_the_image_size_are_refused(photos: Path):
    with pytest.raises(SDPGANError, match="both photos and paintings"):
        check(photos, f"{photos}/", 64, 64)
    with pytest.raises(SDPGANError, match="crop_size 65 is larger than image_size 64"):
        check(photos, photos, 64, 65)


def test_the_check_reads_headers_only(photos: Path, paintings: Path):
    for path in photos.iterdir():
        path.write_bytes(path.read_bytes()[:64])
    assert check(photos, paintings, 64, 64) == []


def test_samples_of_a_folder_a_list_and_shards_of_the_same_images_are_equal(tmp_path: Path):
    pytest.importorskip("webdataset")
    pytest.importorskip("skimage")
    pytest.importorskip("numba")
    photos, paintings, cache = write(tmp_path / "photos", 3), write(tmp_path / "paintings", 4), tmp_path / "cache"
    (tmp_path / "photos.txt").write_text("\n".join(f"photos/{seed:03}.png" for seed in range(3)))
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        for seed in range(3):
            content = (photos / f"{seed:03}.png").read_bytes()
            entry = tarfile.TarInfo(f"{seed:03}.png")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    folder = photos
    datas = []
    for source in (folder, tmp_path / "photos.txt", tmp_path / "photos.tar"):
        prepare(source, paintings, cache, workers=1, progress=False)
        datas.append(UnpairedImages(source, paintings, cache, 48, 32, seed=3))
    (tmp_path / "photos.tar").unlink()
    for number in (0, 1, 7):
        first, *others = (data[number] for data in datas)
        assert all(torch.equal(first[key], other[key]) for other in others for key in first)
    (few_photos, few_paintings) = check(tmp_path / "photos.tar", paintings, 48, 32, cache)
    assert "only 3 photos" in few_photos and "only 4 paintings" in few_paintings
    again = pickle.loads(pickle.dumps(datas[2]))
    assert torch.equal(again[5]["photo"], datas[0][5]["photo"])


def test_a_source_to_be_fetched_is_not_looked_into_before(paintings: Path, tmp_path: Path):
    pytest.importorskip("webdataset")
    assert check(tmp_path / "a.tar", paintings, 64, 64, tmp_path / "cache") == []
    with pytest.raises(SDPGANError, match=r"a\.tar does not exist"):
        fetch(tmp_path / "a.tar", tmp_path / "cache")
    with pytest.raises(SDPGANError, match=r"a\.tar .* not been fetched"):
        UnpairedImages(tmp_path / "a.tar", paintings, tmp_path / "cache")


def test_without_references_a_sample_is_the_same_but_for_its_reference(photos: Path, paintings: Path, tmp_path: Path):
    cache = tmp_path / "cache"
    prepare(photos, paintings, cache, references=False, workers=1, progress=False)
    shutil.copytree(cache / "edge_blurred", cache / "saliency")  # photos and paintings have the same names and sizes
    without, with_ = (UnpairedImages(photos, paintings, cache, 48, 32, 3, references) for references in (False, True))
    assert without.photos == with_.photos
    for number in (0, 19, 33):
        expected = with_[number]
        assert expected.pop("reference").shape == (1, 32, 32)
        assert without[number].keys() == expected.keys() == {"photo", "painting", "edge_blurred"}
        assert all(torch.equal(without[number][key], value) for key, value in expected.items())


def test_images_without_a_result_in_the_cache_are_left_out(photos: Path, paintings: Path, tmp_path: Path):
    prepare(None, paintings, tmp_path / "cache", workers=1, progress=False)
    shutil.copytree(tmp_path / "cache" / "edge_blurred", tmp_path / "cache" / "saliency")
    (tmp_path / "cache" / "saliency" / "004.png.png").unlink()
    data = UnpairedImages(photos, paintings, tmp_path / "cache", 64, 64)
    assert len(data) == 19 and photos / "004.png" not in data.photos
