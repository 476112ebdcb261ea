"""training/prepare.py: saliency references on disk, and every image read to its end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from assertions import refusal
from PIL import Image
from test_cli import picture

from sdpgan_hub.files import read_rgb
from sdpgan_hub.saliency import reference
from training import prepare as prepare_module
from training.data import cache as caches
from training.data.cache import PAINTINGS_READ, PHOTOS_READ, SALIENCY, prepare, result_path
from training.data.pictures import read_mask
from training.data.sources import image_files
from training.prepare import main

SCRIPT = Path(prepare_module.__file__)


def write_pictures(folder: Path, names: list[str]) -> Path:
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(seed=seed)).save(path)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def paintings(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "paintings", ["a.png", "b.JPG", "nested/deeper/c.jpeg"])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "photos", ["a.png", "nested/b.png"])


# reading


def test_read_rgb_lays_what_is_transparent_on_white_whatever_hides_there(tmp_path: Path):
    """In RGBA and in a palette, whose hidden colours were once learnt."""
    image = np.dstack([picture(4, 6), np.full((4, 6), 255, np.uint8)])
    image[:, :2, :3], image[:, :2, 3], image[:, 2, 3] = (250, 0, 250), 0, 51
    Image.fromarray(image).save(tmp_path / "cut.png")
    palette = Image.fromarray(np.tile(np.array([0, 1, 1, 0], np.uint8), (4, 1)))
    palette.putpalette([250, 0, 250, 10, 20, 30])
    palette.save(tmp_path / "palette.png", transparency=b"\x00\xff")
    read = read_rgb(tmp_path / "cut.png")
    assert (read[:, :2] == 255).all() and np.array_equal(read[:, 3:], image[:, 3:, :3])
    assert np.abs(read[:, 2] - (204 + image[:, 2, :3] / 5)).max() <= 0.5
    assert read_rgb(tmp_path / "palette.png")[0].tolist() == [[255] * 3, [10, 20, 30], [10, 20, 30], [255] * 3]


def test_read_rgb_gives_srgb(tmp_path: Path):
    """Half of the light is 128 in the linear profile and 188 in sRGB."""
    profile = (Path(__file__).parent / "profiles" / "linear_grey.icc").read_bytes()
    for values in (np.full((3, 4), 128, np.uint8), np.full((3, 4), 128 * 257, np.uint16)):
        Image.fromarray(values).save(tmp_path / "linear.png", icc_profile=profile)
        assert np.unique(read_rgb(tmp_path / "linear.png")).tolist() == [188]


def test_image_files_finds_nested_and_upper_case_names_and_no_hidden_ones(paintings: Path):
    (paintings / ".hidden.png").write_bytes((paintings / "a.png").read_bytes())
    (paintings / "notes.txt").write_text("not an image")
    names = [p.relative_to(paintings).as_posix() for p in image_files(paintings)]
    assert names == ["a.png", "b.JPG", "nested/deeper/c.jpeg"]


@pytest.mark.parametrize(
    "stored",
    [
        np.array([[0, 1], [1, 0]], np.uint8),
        np.array([[0, 255], [255, 0]], np.uint8),
        np.array([[0, 60000], [60000, 0]], np.uint16),
        np.array([[False, True], [True, False]]),
    ],
    ids=["0/1", "0/255", "16 bit", "1 bit"],
)
def test_a_mask_is_binary_whatever_its_file_calls_white(tmp_path: Path, stored):
    Image.fromarray(stored).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png", 2, 2).tolist() == [[0, 255], [255, 0]]


def test_a_mask_is_scaled_only_to_a_photo_of_the_same_proportions(tmp_path: Path):
    Image.fromarray(np.array([[0, 255]], np.uint8).repeat(10, 0).repeat(10, 1)).save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png", 20, 40)[0], [0] * 20 + [255] * 20)
    refusal(lambda: read_mask(tmp_path / "mask.png", 40, 40), "20x10")


# the cache


def test_only_the_missing_the_newer_and_the_replaced_are_done_again(paintings: Path, tmp_path: Path):
    cache = tmp_path / "cache"
    names = ["a.png", "b.JPG", "d.png", "e.png"]
    write_pictures(paintings, names)
    prepare(None, paintings, cache, workers=1, progress=False)
    result_path(cache, PAINTINGS_READ, paintings, paintings / "a.png").unlink()
    future = time.time() + 100
    os.utime(paintings / "b.JPG", (future, future))
    Image.fromarray(picture(30, 30, seed=9)).save(paintings / "d.png")
    os.utime(paintings / "d.png", (1, 1))
    summary = prepare(None, paintings, cache, workers=1, progress=False)
    assert (summary.made, summary.kept) == (3, 2)


def test_results_of_another_recipe_are_done_again(paintings: Path, tmp_path: Path, monkeypatch):
    arguments = {"masks": paintings, "workers": 1, "progress": False}
    prepare(paintings, paintings, tmp_path / "cache", **arguments)
    for recipe in (caches.READABLE_RECIPE, caches.MASK_RECIPE):
        monkeypatch.setitem(recipe, "version", 0)
        summary = prepare(paintings, paintings, tmp_path / "cache", **arguments)
        assert (summary.made, summary.kept) == (3, 3)
    assert "version" in caches.REFERENCE_RECIPE


def test_a_png_that_this_script_did_not_write_is_not_taken_for_a_result(paintings: Path, tmp_path: Path):
    foreign = result_path(tmp_path / "cache", PAINTINGS_READ, paintings, paintings / "a.png")
    foreign.parent.mkdir(parents=True)
    Image.fromarray(picture()).save(foreign)
    assert prepare(None, paintings, tmp_path / "cache", workers=1, progress=False).made == 3


def test_an_unreadable_file_is_named_and_skipped_and_tried_again(paintings: Path, tmp_path: Path, capsys):
    whole = (paintings / "a.png").read_bytes()
    (paintings / "a.png").write_bytes(whole[: len(whole) // 2])
    (paintings / "empty.jpg").write_bytes(b"")
    summary = prepare(None, paintings, tmp_path / "cache", workers=1, progress=False)
    assert summary.made == 2
    assert sorted(Path(name).name for name in summary.failed) == ["a.png", "empty.jpg"]
    warnings = capsys.readouterr().err
    assert "a.png" in warnings and "empty.jpg" in warnings and "Traceback" not in warnings
    assert not list((tmp_path / "cache").rglob("*a.png*"))
    (paintings / "a.png").write_bytes(whole)
    again = prepare(None, paintings, tmp_path / "cache", workers=1, progress=False)
    assert (again.made, again.kept, len(again.failed)) == (1, 2, 1)
    (paintings / "a.png").write_bytes(whole[: len(whole) // 2])  # it has a result, of before
    prepare(None, paintings, tmp_path / "cache", workers=1, progress=False)
    assert not list((tmp_path / "cache").rglob("*a.png*"))


def test_the_number_of_workers_does_not_change_a_byte(paintings: Path, tmp_path: Path):
    prepare(None, paintings, tmp_path / "one", workers=1, progress=False)
    prepare(None, paintings, tmp_path / "two", workers=2, progress=False)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize("references", [False, True])
def test_neither_reading_nor_references_import_the_program_again_or_torch_at_all(photos, tmp_path, references: bool):
    """A spawned process imports the program, and train.py imports torch: 16 of them took a minute before they read."""
    (tmp_path / "torch.py").write_text("""open("imported", "a").write("torch")""")
    program = tmp_path / "program.py"
    program.write_text(f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(SCRIPT.parents[1])!r})
open("imported", "a").write("once")
from training.data.cache import prepare
if __name__ == "__main__":
    summary = prepare(Path("photos"), None, "cache", references={references}, workers=2, progress=False)
    assert summary.made == 2, summary
""")
    done = subprocess.run([sys.executable, program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "imported").read_text() == "once"


def test_threads_read_and_processes_make_references(photos: Path, paintings: Path, tmp_path: Path, monkeypatch):
    class Refused:
        def __init__(self, *_, **__):
            raise RuntimeError("a process")

    monkeypatch.setattr(caches, "ProcessPoolExecutor", Refused)
    arguments = {"workers": 2, "progress": False}
    assert prepare(photos, paintings, tmp_path / "read", references=False, **arguments).made == 5
    assert prepare(photos, None, tmp_path / "masks", masks=photos, **arguments).masks == 2
    with pytest.raises(RuntimeError, match="a process"):
        prepare(photos, None, tmp_path / "references", **arguments)


def test_a_failed_write_leaves_nothing_behind_and_says_which_file(paintings: Path, tmp_path: Path, full_disk):
    refusal(lambda: prepare(None, paintings, tmp_path / "cache", workers=1, progress=False), "No space left")
    assert contents(tmp_path / "cache") == {}


def test_partial_files_of_a_killed_run_are_removed_once_old(paintings: Path, tmp_path: Path):
    results = tmp_path / "cache" / "readable" / "paintings"
    results.mkdir(parents=True)
    old, young = results / ".a.png.png.1.unfinished", results / ".b.JPG.png.2.unfinished"
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    os.utime(old, (1, 1))
    prepare(None, paintings, tmp_path / "cache", workers=1, progress=False)
    assert not old.exists() and young.exists()


# refusals


def test_an_empty_folder_a_missing_folder_and_a_cache_among_the_photos_are_one_sentence(
    paintings: Path, tmp_path: Path
):
    (tmp_path / "empty").mkdir()
    refusal(lambda: prepare(tmp_path / "empty", None, tmp_path / "cache"), "empty")
    refusal(lambda: prepare(tmp_path / "nowhere", None, tmp_path / "cache"), "nowhere")
    refusal(lambda: prepare(None, paintings, paintings / "cache"), paintings / "cache")
    refusal(lambda: prepare(None, paintings, tmp_path / "cache", workers=0), "workers")
    assert not (tmp_path / "cache").exists()


def test_masks_of_other_photos_are_refused(paintings: Path, tmp_path: Path):
    write_pictures(tmp_path / "masks", ["other.png"])
    refusal(lambda: prepare(paintings, None, tmp_path / "cache", masks=tmp_path / "masks", workers=1), "masks")


@pytest.mark.parametrize("arguments", [[], ["--cache", "c"]])
def test_the_command_line_without_folders_is_a_usage_error(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "error" in capsys.readouterr().err


def test_exit_codes_are_0_for_all_1_for_skipped_2_for_nothing_to_do(paintings: Path, tmp_path: Path, capsys):
    arguments = ["--cache", str(tmp_path / "cache"), "--workers", "1", "--quiet", "--paintings"]
    assert main([*arguments, str(paintings)]) == 0
    (paintings / "broken.png").write_bytes(b"no image")
    assert main([*arguments, str(paintings)]) == 1
    assert main([*arguments, str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.count("\n") == 2


# saliency references, Eq. 7


def test_the_reference_on_disk_is_sdpgan_hubs_rounded_to_8_bits(photos: Path, tmp_path: Path):
    prepare(photos, None, tmp_path / "cache", workers=1, progress=False)
    for photo in image_files(photos):
        with Image.open(result_path(tmp_path / "cache", SALIENCY, photos, photo)) as stored:
            assert stored.mode == "L"
            error = np.abs(np.asarray(stored) / 255 - reference(read_rgb(photo)))
        assert error.max() <= 0.5 / 255 + 1e-6


def test_a_mask_replaces_the_reference_of_its_photo_and_the_result_says_so(photos: Path, tmp_path: Path):
    drawn = np.zeros(picture().shape[:2], np.uint8)
    drawn[10:30, 20:40] = 255
    (tmp_path / "masks" / "nested").mkdir(parents=True)
    Image.fromarray(drawn).save(tmp_path / "masks" / "nested" / "b.png")
    cache = tmp_path / "cache"
    without = prepare(photos, None, cache, workers=1, progress=False)
    with_mask = prepare(photos, None, cache, masks=tmp_path / "masks", workers=1, progress=False)
    assert (without.made, with_mask.made, with_mask.kept, with_mask.masks) == (2, 1, 1, 1)
    made, masked = (Image.open(cache / "saliency" / name) for name in ("a.png.png", "nested/b.png.png"))
    assert np.array_equal(np.asarray(masked), drawn)
    methods = [json.loads(image.info[caches.RECIPE_KEY])["method"] for image in (made, masked)]
    assert methods == ["saliency reference", "human mask"]
    assert prepare(photos, None, cache, workers=1, progress=False).made == 1


def test_without_references_each_photo_is_read_once_and_a_bad_one_is_named(photos: Path, tmp_path: Path, capsys):
    whole, cache = (photos / "a.png").read_bytes(), tmp_path / "cache"
    (photos / "broken.png").write_bytes(whole[: len(whole) // 2])  # its header, and half of its pixels
    summary = prepare(photos, None, cache, references=False, workers=1, progress=False)
    assert (summary.made, [Path(name).name for name in summary.failed]) == (2, ["broken.png"])
    assert "skipped" in capsys.readouterr().err and not (cache / "saliency").exists()
    for name, is_noted in (("a.png", True), ("nested/b.png", True), ("broken.png", False)):
        assert result_path(cache, PHOTOS_READ, photos, photos / name).exists() == is_noted
    arguments = ["--photos", str(photos), "--cache", str(cache), "--workers", "1", "--quiet", "--no_references"]
    assert main(arguments) == 1
    assert "0 made, 2 already there, 1 skipped" in capsys.readouterr().out and not (cache / "saliency").exists()
    assert main([*arguments, "--masks", str(photos)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_photo_and_a_painting_of_one_name_do_not_stand_for_each_other(paintings: Path, photos: Path, tmp_path: Path):
    (paintings / "a.png").write_bytes(b"no image")
    cache, arguments = tmp_path / "cache", {"references": False, "workers": 1, "progress": False}
    assert prepare(photos, paintings, cache, **arguments).made == 2 + 2
    assert result_path(cache, PHOTOS_READ, photos, photos / "a.png").exists()
    assert not result_path(cache, PAINTINGS_READ, paintings, paintings / "a.png").exists()
    assert prepare(photos, paintings, cache, **arguments).kept == 2 + 2


def test_a_missing_library_is_one_error_and_not_one_for_every_photo(photos: Path, tmp_path: Path, monkeypatch):
    for name in ("skimage.segmentation", "skimage.morphology"):
        monkeypatch.setitem(sys.modules, name, None)
    refusal(lambda: prepare(photos, None, tmp_path / "cache", workers=1, progress=False), "pip install", "saliency")


# as a script


def test_ctrl_c_leaves_a_cache_of_whole_files_that_the_next_run_completes(tmp_path: Path):
    paintings, cache = tmp_path / "paintings", tmp_path / "cache"
    paintings.mkdir()
    Image.fromarray(picture(1200, 1200)).save(paintings / "000.jpg")
    for index in range(1, 200):
        os.link(paintings / "000.jpg", paintings / f"{index:03}.jpg")
    command = [sys.executable, str(SCRIPT), "--paintings", str(paintings), "--cache", str(cache), "--workers", "2"]
    run = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while run.poll() is None and not list(cache.glob("readable/paintings/*.png")):
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGINT)
    errors = run.communicate(timeout=30)[1]
    assert run.returncode == 130
    assert "Traceback" not in errors and "run the same command again" in errors
    done = sorted(cache.glob("readable/paintings/*.png"))
    assert 0 < len(done) < 200
    assert all(read_rgb(path).shape == (1, 1, 3) for path in done)
    assert not list(cache.rglob("*.unfinished"))
    summary = prepare(None, paintings, cache, workers=1, progress=False)
    assert (summary.made, summary.kept) == (200 - len(done), len(done))
