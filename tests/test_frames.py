"""training/data/frames.py: films to a folder of paintings without duplicates, Sec. IV-A."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
from assertions import refusal
from skimage import data

from sdpgan_hub.errors import SDPGANError
from sdpgan_hub.files import read_rgb
from training import prepare
from training.data.frames import extract, is_duplicate
from training.data.sources import image_files

SIZE = (160, 120)


def scene(seed: int) -> np.ndarray:
    """Ten coloured ellipses, other ones for every seed; uint8 120 x 160 x 3."""
    random = np.random.default_rng(seed)
    image = np.full((*SIZE[::-1], 3), random.integers(256, size=3), np.uint8)
    for _ in range(10):
        centre, axes = random.integers(0, SIZE).tolist(), random.integers(10, 50, 2).tolist()
        cv2.ellipse(image, centre, axes, int(random.integers(180)), 0, 360, random.integers(256, size=3).tolist(), -1)
    return image


def film(path: Path, images: Iterable[np.ndarray], rate: float = 10, codec: str = "MJPG") -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), rate, SIZE)
    if not writer.isOpened():
        pytest.skip(f"this OpenCV writes no {codec} film")
    for image in images:
        writer.write(image)
    writer.release()
    return path


def numbers(folder: Path) -> list[int]:
    return sorted(int(path.stem.rsplit("_", 1)[1]) for path in folder.iterdir())


@pytest.fixture(scope="module")
def three_shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames 0-9 show one scene, 10-19 another, 20-29 a third, each with grain of its own."""
    grain = np.random.default_rng(0)
    shots = [scene(number // 10) for number in range(30)]
    noisy = [np.clip(shot + grain.normal(0, 3, shot.shape), 0, 255).astype(np.uint8) for shot in shots]
    return film(tmp_path_factory.mktemp("film") / "shots.avi", noisy)


def test_of_every_shot_one_frame_is_kept_the_first(three_shots: Path, tmp_path: Path):
    assert extract(three_shots, tmp_path, every=1, progress=False) == (30, 3)
    assert numbers(tmp_path) == [0, 10, 20]
    for number in (0, 10, 20):
        kept = read_rgb(tmp_path / f"shots_{number:07d}.jpg").astype(int)
        assert np.abs(kept - scene(number // 10)[..., ::-1]).mean() < 8


def test_a_shot_that_comes_back_is_kept_again_since_the_last_kept_frame_is_what_counts(tmp_path: Path):
    path = film(tmp_path / "dialogue.avi", [scene(number // 5 % 2) for number in range(20)])
    extract(path, tmp_path / "frames", every=1, progress=False)
    assert numbers(tmp_path / "frames") == [0, 5, 10, 15]


def test_slow_changes_add_up_to_a_new_frame(tmp_path: Path):
    wide = np.concatenate([scene(0), scene(1)], axis=1)
    path = film(tmp_path / "pan.avi", [wide[:, shift : shift + SIZE[0]] for shift in range(0, 40)])
    _, kept = extract(path, tmp_path / "frames", every=1, progress=False)
    assert 5 <= kept <= 30 and numbers(tmp_path / "frames")[-1] > 30


def test_frames_are_taken_by_number_or_by_seconds_of_the_film(three_shots: Path, tmp_path: Path):
    everything = {"ssim": 1, "psnr": float("inf"), "progress": False}
    for name, settings, expected in (
        ("every", {"every": 7}, range(0, 30, 7)),
        ("second", {"per_second": 2}, range(0, 30, 5)),
        ("third", {"per_second": 3}, [0, 4, 7, 10, 14, 17, 20, 24, 27]),
        ("default", {}, range(0, 30, 5)),
        ("more than there are", {"per_second": 100}, range(30)),
    ):
        extract(three_shots, tmp_path / name, **settings, **everything)
        assert numbers(tmp_path / name) == list(expected)


def test_dark_scenes_that_psnr_takes_for_equal_are_told_apart_by_ssim():
    first = cv2.cvtColor((data.astronaut() * 0.12).astype(np.uint8), cv2.COLOR_RGB2GRAY)
    second = np.rot90(first)
    assert is_duplicate(first, second, -1, 25) and not is_duplicate(first, second, 0.8, 25)


def test_brightness_that_ssim_takes_for_equal_is_told_apart_by_psnr():
    first = cv2.cvtColor(scene(0), cv2.COLOR_BGR2GRAY)
    second = (first * 0.8).astype(np.uint8)
    assert is_duplicate(first, second, 0.8, 0) and not is_duplicate(first, second, 0.8, 25)


def test_a_compressed_copy_is_a_duplicate_at_the_default_thresholds(tmp_path: Path):
    path = film(tmp_path / "still.mp4", [scene(3)] * 12, codec="mp4v")
    assert extract(path, tmp_path / "frames", every=1, progress=False) == (12, 1)


def test_frames_of_another_run_are_not_mixed_in_and_of_another_film_not_touched(three_shots: Path, tmp_path: Path):
    (tmp_path / "shots_two_0000000.jpg").write_bytes(b"another film's")
    (tmp_path / "shots_0000001.jpg").write_bytes(b"of other settings")
    refusal(
        lambda: extract(three_shots, tmp_path, progress=False), "holds frames of shots.avi already; add --overwrite"
    )
    extract(three_shots, tmp_path, every=1, overwrite=True, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "shots_0000000.jpg", "shots_0000010.jpg", "shots_0000020.jpg", "shots_two_0000000.jpg"
    ]  # fmt: skip


def test_what_is_no_film_is_one_sentence(three_shots: Path, tmp_path: Path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a film " * 100)
    (tmp_path / "half.avi").write_bytes(three_shots.read_bytes()[:300])
    cv2.imwrite(str(tmp_path / "one.png"), scene(0))
    for name, sentence in (
        ("nowhere.mp4", "is not a file"),
        ("empty.mp4", "is not a film that OpenCV can open"),
        ("text.mp4", "is not a film that OpenCV can open"),
        ("half.avi", "No frame of|is not a film"),
        ("one.png", "is an image"),
    ):
        with pytest.raises(SDPGANError, match=sentence):
            extract(tmp_path / name, tmp_path / "frames", progress=False)
    assert not (tmp_path / "frames").exists()


@pytest.mark.parametrize("settings", [{"every": 0}, {"per_second": 0}, {"ssim": 2}])
def test_settings_out_of_range_are_refused_by_name(three_shots: Path, tmp_path: Path, settings: dict):
    refusal(lambda: extract(three_shots, tmp_path, progress=False, **settings), next(iter(settings)))


def test_the_command_extracts_several_films_and_refuses_two_of_one_name(three_shots: Path, tmp_path: Path, capsys):
    other = film(tmp_path / "other.avi", [scene(7), scene(8)])
    films = [str(three_shots), str(other)]
    assert prepare.main(["frames", *films, "--output", str(tmp_path / "paintings"), "--quiet", "--every", "1"]) == 0
    assert "3 frames kept, 27 duplicates dropped" in capsys.readouterr().out
    assert len(image_files(tmp_path / "paintings")) == 5
    assert prepare.main(["frames", str(other), str(tmp_path / "other.mp4"), "--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_script_says_one_line_for_a_damaged_film_whatever_the_decoder_prints(tmp_path: Path):
    path = film(tmp_path / "still.mp4", [scene(3)] * 12, codec="mp4v")
    path.write_bytes(path.read_bytes()[:-200])
    command = [sys.executable, prepare.__file__, "frames", str(path), "--output", str(tmp_path / "frames"), "--quiet"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 2 and run.stdout == ""
    assert run.stderr.startswith("error: ") and run.stderr.count("\n") == 1
