"""sdpgan_hub/cli.py: the `sdpgan` command. Which images and styles are refused is tested where that is raised."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from assertions import not_root, one_line
from PIL import Image
from test_color import P3

import sdpgan_hub
from sdpgan_hub import SDPGAN, color, imaging, saliency, styles, visualization
from sdpgan_hub import files as files_module
from sdpgan_hub.cli import main
from sdpgan_hub.scene import Scene

COMMAND = [sys.executable, "-m", "sdpgan_hub"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(sdpgan_hub.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
EXIF_ORIENTATION, EXIF_ARTIST = 0x0112, 0x013B


def picture(height: int = 33, width: int = 46, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.integers(0, 120, (height, width, 3), dtype=np.uint8), (0, 0), 2)
    cv2.circle(image, (width // 2, height // 2), min(height, width) // 4, (240, 180, 60), -1)
    return image


@pytest.fixture(scope="module")
def model(tiny: Path) -> SDPGAN:
    return SDPGAN.from_pretrained(tiny)


@pytest.fixture
def here(here: Path) -> Path:
    """A working directory with photo.png and the folder photos/{a.png,B.JPG,nested/c.webp}."""
    Image.fromarray(picture()).save("photo.png")
    Path("photos/nested").mkdir(parents=True)
    for seed, name in enumerate(["a.png", "B.JPG", "nested/c.webp"], start=1):
        Image.fromarray(picture(seed=seed)).save(Path("photos", name))
    Path("photos/notes.txt").write_text("no image")
    return here


def files(folder: str | Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


# stylize


def test_a_folder_that_may_not_be_read_is_named_and_the_others_are_painted(here, tiny, capsys):
    Path("photos/closed").mkdir(mode=0)
    Path("photos.tiny").mkdir(mode=0o777)
    for name in ("a.png", "B.jpg", "nested/c.webp"):
        Path("photos.tiny", name).parent.mkdir(exist_ok=True)
        Path("photos.tiny", name).touch()
    with not_root():
        assert main(["stylize", "photos", "--style", str(tiny), "--skip-existing"]) == 0
        assert main(["stylize", "photos/closed/d.png", "--style", str(tiny)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3 and "photos/closed" in said[0] and "3 there already" in said[1]
    assert "photos/closed/d.png may not be read" in said[2]


def test_without_o_the_result_lies_beside_the_photo_and_its_path_is_printed(here, tiny, capsys):
    assert main(["stylize", "photo.png", "photos/B.JPG", "--style", str(tiny)]) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert written == [Path("photo.tiny.png"), Path("photos/B.tiny.jpg")]
    assert all(path.is_file() for path in written)


def test_a_folder_becomes_a_folder_of_the_same_structure_with_a_progress_bar_on_stderr(here, tiny, capsys):
    assert main(["stylize", "photos", "--style", str(tiny)]) == 0
    assert files("photos.tiny") == ["B.jpg", "a.png", "nested/c.webp"]
    captured = capsys.readouterr()
    assert "3/3" in captured.err and "%" not in captured.out


def test_files_and_folders_go_into_one_output_folder_in_the_format_asked_for(here, tiny):
    assert main(["stylize", "photo.png", "photos", "-o", "out", "--format", "jpg", "--style", str(tiny)]) == 0
    assert files("out") == ["B.jpg", "a.jpg", "nested/c.jpg", "photo.jpg"]


def test_an_output_folder_among_the_inputs_is_not_painted_again(here, tiny):
    arguments = ["stylize", "photos", "-o", "photos/painted", "--style", str(tiny)]
    assert main(arguments) == 0
    assert main([*arguments, "--overwrite"]) == 0
    assert files("photos/painted") == ["B.jpg", "a.png", "nested/c.webp"]


def test_a_folder_called_by_two_dots_has_its_results_beside_it(here, tiny, monkeypatch):
    monkeypatch.chdir("photos/nested")
    assert main(["stylize", "..", "--style", str(tiny)]) == 0
    assert files(here / "photos.tiny") == ["B.jpg", "a.png", "nested/c.webp"]


def test_neither_an_input_by_another_name_nor_the_mask_is_overwritten(here, tiny, capsys):
    """As on a disk where upper and lower case do not differ, where IMG.JPG would become IMG.jpg."""
    os.link("photos/B.JPG", "photos/B.jpg")
    for wish in (["photos/B.JPG", "-o", "photos/B.jpg"], ["photo.png", "--mask", "photos/a.png", "-o", "photos/a.png"]):
        before = {path: path.read_bytes() for path in Path("photos").glob("*.*")}
        assert main(["stylize", *wish, "--overwrite", "--style", str(tiny)]) == 2
        assert "is an input" in one_line(capsys)
        assert before == {path: path.read_bytes() for path in Path("photos").glob("*.*")}


@pytest.mark.parametrize(
    "arguments",
    [
        ["stylize", "photo.png", "-o", "locked/out.png"],
        ["stylize", "photos", "-o", "locked/out"],
        ["saliency", "photo.png", "-o", "locked/out.png"],
        ["export", "locked/out.onnx"],
        ["stylize", "photo.png", "-o", 300 * "x" + ".png"],
    ],
)
def test_the_name_of_an_output_that_cannot_be_looked_up_is_no_traceback(here, capsys, arguments):
    Path("locked").mkdir(mode=0o700)
    with not_root():
        assert main([*arguments, "--style", "nowhere"]) == 2
    assert "nowhere" in one_line(capsys)


def test_results_may_go_where_the_folder_of_photos_lies(here, tiny):
    assert main(["stylize", "photos/nested", "-o", "photos", "--format", "png", "--style", str(tiny)]) == 0
    assert files("photos") == ["B.JPG", "a.png", "c.png", "nested/c.webp", "notes.txt"]


@pytest.mark.parametrize("suffix", ["jpg", "jfif", "png", "webp", "avif", "gif", "bmp", "tif", "tiff"])
def test_every_output_format_is_what_its_suffix_says(here, tiny, suffix):
    assert main(["stylize", "photo.png", "-o", f"out.{suffix}", "--style", str(tiny)]) == 0
    with Image.open(f"out.{suffix}") as image:
        assert image.format == {"jpg": "JPEG", "jfif": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper())


def test_a_higher_quality_makes_a_jpeg_larger_and_closer_to_the_painting(here, tiny, model):
    painting = np.asarray(model.stylize("photo.png")).astype(float)
    for quality in ("20", "95"):
        assert main(["stylize", "photo.png", "-o", f"{quality}.jpg", "--quality", quality, "--style", str(tiny)]) == 0
    low, high = (np.abs(pixels(f"{quality}.jpg") - painting).mean() for quality in (20, 95))
    assert high < low / 2
    assert Path("95.jpg").stat().st_size > Path("20.jpg").stat().st_size


def test_transparency_stays(here, tiny):
    """What becomes of it in a format that has none is tested in test_files.py."""
    alpha = np.full((33, 46, 1), 255, np.uint8)
    alpha[:, :20] = 0
    Image.fromarray(np.concatenate([picture(), alpha], 2)).save("clear.png")
    assert main(["stylize", "clear.png", "-o", "out.png", "--style", str(tiny)]) == 0
    assert np.array_equal(pixels("out.png")[..., 3:], alpha)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif", "tif"])
def test_a_wide_profile_and_the_resolution_stay_and_the_cameras_data_does_not(here, tiny, model, suffix):
    """The painting itself is of the photo in sRGB."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION], exif[EXIF_ARTIST] = 6, "somebody"
    Image.fromarray(picture()).save("camera.png", icc_profile=P3, exif=exif, dpi=(300, 300))
    assert main(["stylize", "camera.png", "-o", f"out.{suffix}", "--quality", "100", "--style", str(tiny)]) == 0
    with Image.open(f"out.{suffix}") as result:
        assert result.info["icc_profile"] == P3
        if suffix not in ("webp", "avif"):  # which hold none
            assert result.info["dpi"] == pytest.approx((300, 300), abs=0.01)
        assert result.size == (33, 46)
        assert EXIF_ARTIST not in result.getexif() and EXIF_ORIENTATION not in result.getexif()
        in_srgb = np.asarray(color.to_srgb(result, "")).astype(float)
    assert np.abs(in_srgb - pixels(f"out.{suffix}")).max() > 10
    if suffix != "webp":  # which stores half of the colours, and an untrained network's are noise
        assert np.abs(in_srgb - np.asarray(model.stylize("camera.png"))).mean() < 2


def test_keep_metadata_keeps_date_author_and_copyright_and_never_the_place(here, tiny):
    artist, copyright = "Zoë".encode(), "© Zoë".encode()  # as cameras write them
    exif = Image.Exif()
    exif[EXIF_ARTIST], exif[0x8298], exif[0x0132], exif[0x010F] = artist, copyright, "2026:01:02 03:04:05", "Camera"
    exif[EXIF_ORIENTATION] = 6
    exif.get_ifd(0x8769).update({0x9003: "2026:01:02 03:04:05", 0xA434: "Lens"})
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 0.0)})
    Image.fromarray(picture()).save("camera.jpg", exif=exif)
    for suffix in ("jpg", "png", "webp", "avif", "tif"):
        arguments = ["stylize", "camera.jpg", "-o", f"out.{suffix}", "--style", str(tiny), "--keep-metadata"]
        assert main(arguments) == 0
        with Image.open(f"out.{suffix}") as result:
            kept = result.getexif()
            assert [kept[tag].encode("latin-1") for tag in (EXIF_ARTIST, 0x8298)] == [artist, copyright]
            assert kept[0x0132] == "2026:01:02 03:04:05" and EXIF_ORIENTATION not in kept
            assert dict(kept.get_ifd(0x8769)) == {0x9003: "2026:01:02 03:04:05"}
            assert not kept.get_ifd(0x8825) and 0x8825 not in kept and 0x010F not in kept


def test_an_animation_is_painted_steadily_frame_by_frame_in_its_timing(here, tiny, model):
    still = [Image.fromarray(picture(seed=seed)) for seed in range(3)]
    still[0].save("in.webp", save_all=True, append_images=still[1:], duration=[50, 120, 70], loop=2, lossless=True)
    assert main(["stylize", "in.webp", "-o", "out.png", "--style", str(tiny)]) == 0
    scene = Scene()
    with Image.open("out.png") as result:
        assert (result.n_frames, result.info["loop"]) == (3, 2)
        for number, (frame, duration) in enumerate(zip(still, (50, 120, 70), strict=True)):
            result.seek(number)
            assert result.info["duration"] == duration
            painting = np.asarray(model.stylize(frame, scene=scene)).astype(int)
            assert np.abs(np.asarray(result.convert("RGB")) - painting).max() <= 1


def test_a_tiff_of_pages_of_several_sizes_is_painted_page_by_page(here, tiny, model):
    pages = [Image.fromarray(picture(height, 40, seed=height)) for height in (30, 44)]
    pages[0].save("in.tif", save_all=True, append_images=pages[1:])
    assert main(["stylize", "in.tif", "-o", "out.tif", "--style", str(tiny)]) == 0
    with Image.open("out.tif") as result:
        assert result.n_frames == 2
        for number, page in enumerate(pages):
            result.seek(number)
            assert np.array_equal(np.asarray(result), np.asarray(model.stylize(page)))


def test_first_frame_paints_the_first_alone(here, tiny, model):
    still = [Image.fromarray(picture(seed=seed)) for seed in range(2)]
    still[0].save("in.webp", save_all=True, append_images=still[1:], lossless=True)
    assert main(["stylize", "in.webp", "-o", "out.png", "--style", str(tiny), "--first-frame"]) == 0
    with Image.open("out.png") as result:
        assert getattr(result, "n_frames", 1) == 1
        assert np.array_equal(np.asarray(result.convert("RGB")), np.asarray(model.stylize(still[0])))


@pytest.mark.parametrize(
    ("source", "output", "named"),
    [
        ("in.gif", "out.jpg", "2 frames"),
        ("in.tif", "out.png", "2 pages"),
        ("wide.png", "out.webp", "16383"),
        ("wide.png", "out.jpg", None),
    ],
)
def test_what_the_output_cannot_hold_is_said_before_painting(here, tiny, monkeypatch, capsys, source, output, named):
    still = [Image.fromarray(picture(seed=seed)) for seed in range(2)]
    for name in ("in.gif", "in.tif"):
        still[0].save(name, save_all=True, append_images=still[1:])
    Image.new("RGB", (16384, 2)).save("wide.png")
    monkeypatch.setattr(SDPGAN, "stylize", break_stylize)
    assert main(["stylize", source, "-o", output, "--style", str(tiny)]) == 1
    line = one_line(capsys)
    assert source in line and (named or "a bug") in line


def test_a_file_not_wholly_in_order_is_painted_with_a_warning_that_names_it(here, tiny, capsys):
    Image.fromarray(picture()).save("odd.jpg", icc_profile=b"no profile")
    Path("odd.jpg").write_bytes(Path("odd.jpg").read_bytes()[:-2])
    assert main(["stylize", "odd.jpg", "-o", "out.png", "--style", str(tiny)]) == 0
    warned = capsys.readouterr().err.splitlines()
    assert len(warned) == 2 and all(line.startswith("warning: odd.jpg") for line in warned)
    assert "last bytes" in warned[0] and "profile" in warned[1]


def test_what_a_folder_holds_and_is_not_painted_is_counted_in_the_last_line_by_kind(here, tiny, monkeypatch, capsys):
    monkeypatch.setattr(files_module, "can_read_heif", lambda: False)
    monkeypatch.setattr(files_module, "can_read_video", lambda: False)
    for name in ("photos/clip.mp4", "photos/nested/clip.MP4", "photos/IMG.HEIC", "photos/.DS_Store", "photos/LICENCE"):
        Path(name).write_bytes(b"")
    assert main(["stylize", "photos", "-o", "out", "--style", str(tiny)]) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert "1 .heic" in last and 'pip install "sdpgan_hub[heif]"' in last and "DS_Store" not in last
    assert '2 .mp4 (pip install "sdpgan_hub[video]")' in last and "1 .txt" in last and "1 without a suffix" in last


def test_two_inputs_of_one_name_give_two_results(here, tiny):
    Path("more").mkdir()
    for name in ("more/a.png", "photos/photo.png"):
        Image.fromarray(picture(seed=7)).save(name)
    assert main(["stylize", "photos", "more", "-o", "out", "--style", str(tiny)]) == 0
    assert files("out") == ["more/a.png", "photos/B.jpg", "photos/a.png", "photos/nested/c.webp", "photos/photo.png"]
    assert main(["stylize", "photo.png", "photos/photo.png", "-o", "two/", "--style", str(tiny)]) == 0
    assert files("two") == ["photo.png", "photos/photo.png"]


def test_a_message_names_the_options_of_the_command_line(here, tiny, monkeypatch, capsys):
    out_of_memory = RuntimeError("DefaultCPUAllocator: not enough memory")
    monkeypatch.setattr("sdpgan_hub.networks.Generator.forward", Mock(side_effect=out_of_memory))
    assert main(["stylize", "photo.png", "-o", "out.png", "--style", str(tiny)]) == 1
    line = one_line(capsys)
    assert "--max-size, such as" in line and "max_size" not in line
    assert "--tile, such as" in line and "tile=" not in line


def test_a_folder_with_the_name_of_an_option_is_named_as_it_is(here, tiny, capsys):
    Path("keep_detail").mkdir()
    Path("keep_detail/a.png").write_bytes(b"no image")
    assert main(["stylize", "keep_detail/a.png", "-o", "out.png", "--style", str(tiny)]) == 1
    line = one_line(capsys)
    assert "keep_detail/a.png" in line and "--keep-detail" not in line


def test_the_options_of_stylize_are_those_of_python(here, tiny, model):
    mask = Image.new("L", (46, 33), 255)
    mask.putalpha(Image.fromarray(np.tile(np.uint8([[0, 255]]), (33, 23))))
    mask.save("mask.png")
    given = ["--brush", "2", "--strength", "0.8", "--keep-color", "--mask", "mask.png", "--tile", "16"]
    wishes = {"brush": 2, "strength": 0.8, "keep_color": True, "mask": "mask.png", "tile": 16}
    assert main(["stylize", "photo.png", "-o", "out.png", "--style", str(tiny), *given]) == 0
    assert np.array_equal(pixels("out.png"), np.asarray(model.stylize("photo.png", **wishes)))
    for option, value, wish in (
        ("--tile", "off", {"tile": None}),
        ("--keep-detail", "0.5", {"keep_detail": 0.5}),
        ("--max-size", "24", {"max_size": 24}),
    ):
        arguments = ["stylize", "photo.png", "-o", "out.png", "--overwrite", "--style", str(tiny), option, value]
        assert main(arguments) == 0
        assert np.array_equal(pixels("out.png"), np.asarray(model.stylize("photo.png", **wish)))


@pytest.mark.parametrize("content", [None, b"no image"])
def test_a_mask_that_cannot_be_read_is_a_usage_error(here, tiny, capsys, content):
    if content:
        Path("no.png").write_bytes(content)
    assert main(["stylize", "photo.png", "-o", "out.png", "--style", str(tiny), "--mask", "no.png"]) == 2
    assert "no.png" in one_line(capsys) and not Path("out.png").exists()


def test_the_mask_of_a_folder_is_read_once_and_its_warning_said_once(here, tiny, model, capsys, monkeypatch):
    page = Image.fromarray(np.tile(np.uint16([[0, 65535]]), (33, 23)))
    page.save("mask.tiff", save_all=True, append_images=[page])
    expected = np.asarray(model.stylize("photos/a.png", mask=page))
    reads = []
    read = imaging.read
    monkeypatch.setattr(imaging, "read", lambda image: reads.append(image) or read(image))
    assert main(["stylize", "photos", "-o", "out", "--quiet", "--style", str(tiny), "--mask", "mask.tiff"]) == 0
    assert reads.count("mask.tiff") == 1 and len(files("out")) == 3
    assert np.array_equal(pixels("out/a.png"), expected)
    assert "mask.tiff has 2 pages" in one_line(capsys)


# failures and exit codes


def test_a_broken_file_is_named_and_the_others_are_done_with_exit_code_1(here, tiny, capsys):
    Path("photos/broken.png").write_bytes(Path("photos/a.png").read_bytes()[:100])
    Path("photos/empty.jpg").write_bytes(b"")
    assert main(["stylize", "photos", "-o", "out", "--quiet", "--style", str(tiny)]) == 1
    captured = capsys.readouterr()
    assert files("out") == ["B.jpg", "a.png", "nested/c.webp"]
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 2
    assert "broken.png" in lines[0] and "empty.jpg" in lines[1]


def test_json_is_one_document_with_input_output_seconds_and_error_of_each(here, tiny, capsys):
    Path("photos/broken.png").write_bytes(b"no image")
    assert main(["stylize", "photos", "-o", "out", "--json", "--style", str(tiny)]) == 1
    rows = {Path(row["input"]).name: row for row in json.loads(capsys.readouterr().out)}
    assert sorted(rows) == ["B.JPG", "a.png", "broken.png", "c.webp"]
    assert all(set(row) == {"input", "output", "seconds", "error"} for row in rows.values())
    assert rows["broken.png"]["output"] is None and "broken.png" in rows["broken.png"]["error"]
    assert Path(rows["a.png"]["output"]).is_file() and rows["a.png"]["error"] is None and rows["a.png"]["seconds"] > 0


def test_an_output_below_a_file_is_one_sentence_and_leaves_nothing_behind(here, tiny, capsys):
    before = files(".")
    assert main(["stylize", "photo.png", "-o", "photos/notes.txt/out.png", "--style", str(tiny)]) == 1
    assert "photos/notes.txt/out.png" in one_line(capsys)
    assert files(".") == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nowhere.jpg"], "nowhere.jpg"),
        (["photo.png", "-o", "out.heic"], "out.heic"),
        (["photo.png", "-o", "out"], ".jpg, .jpeg, .jfif, .png, .webp, .avif, .gif, .bmp, .tif, .tiff"),
        (["photos", "-o", "out.png"], "out.png"),
        (["photo.png", "photos/a.png", "-o", "out.png"], "out.png"),
        (["photos", "-o", "photos/notes.txt"], "photos/notes.txt"),
        (["photos/nested/..", "-o", "photos", "--overwrite"], "overwritten"),
        (["photo.png", "-o", "./photo.png", "--overwrite"], "./photo.png"),
        (["empty"], "empty"),
        (["films"], "1 .mp4"),
        (["photos", "-o", "-"], "photos"),
        (["photo.png", "photos/a.png", "-o", "-"], "stdout"),
        (["photo.png", "-o", "-", "--json"], "--json"),
        (["-", "--json"], "--json"),
        (["photo.png", "-o", "photos/a.png"], "photos/a.png"),
        (["photo.png", "--style", "no such style"], "'no such style'"),
    ],
)
def test_what_cannot_be_done_is_one_line_with_exit_code_2_and_writes_nothing(
    here, tiny, monkeypatch, capsys, arguments, named
):
    monkeypatch.setattr(files_module, "can_read_video", lambda: False)
    Path("empty").mkdir()
    Path("films").mkdir()
    Path("films/clip.mp4").write_bytes(b"")
    Image.fromarray(picture(seed=5)).save("photos/photo.png")
    before = {name: Path(name).read_bytes() for name in files(".")}
    assert main(["stylize", "--style", str(tiny), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("sdpgan stylize: error: ") and captured.err.count("\n") == 1
    assert named in captured.err
    assert {name: Path(name).read_bytes() for name in files(".")} == before


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["paint"],
        ["stylize"],
        ["stylize", "photo.png", "--overwrite", "--skip-existing"],
        ["saliency", "photo.png", "--method", "guess"],
        ["saliency", "photo.png", "--view", "cube"],
        *(["stylize", "photo.png", f"--brush={value}"] for value in ("0", "-1", "nan", "broad")),
        *(["stylize", "photo.png", f"--strength={value}"] for value in ("-1", "inf", "x")),
        *(["stylize", "photo.png", f"--tile={value}"] for value in ("8", "none", "-16")),
        *(["stylize", "photo.png", f"--quality={value}"] for value in ("0", "high")),
        ["stylize", "photo.png", "--max-size=3"],
        *(["stylize", "photo.png", f"--keep-detail={value}"] for value in ("1.5", "much")),
    ],
)
def test_wrong_arguments_are_a_usage_error_that_names_the_last(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    message = capsys.readouterr().err.splitlines()[-1]
    assert "error: " in message
    assert all(part in message for part in (*arguments[-1:], "")[0].split("="))


def test_a_result_that_exists_is_kept_refused_or_replaced_as_asked(here, tiny):
    arguments = ["stylize", "photos", "-o", "out", "--style", str(tiny)]
    assert main(arguments) == 0
    Path("out/a.png").write_bytes(b"mine")
    Path("out/B.jpg").unlink()
    assert main(arguments) == 2
    assert not Path("out/B.jpg").exists()
    assert main([*arguments, "--skip-existing"]) == 0
    assert Path("out/B.jpg").exists() and Path("out/a.png").read_bytes() == b"mine"
    assert main([*arguments, "--overwrite"]) == 0
    assert pixels("out/a.png").shape == picture().shape
    assert main([*arguments, "--skip-existing", "--json"]) == 0


def break_stylize(*_, **__):
    raise ZeroDivisionError("a bug")


@pytest.mark.parametrize(("debug", "tracebacks"), [(None, 0), ("", 0), ("0", 0), ("1", 1)])
def test_sdpgan_debug_prints_the_traceback_of_each_failure_before_its_line(
    here, tiny, monkeypatch, capsys, debug, tracebacks
):
    if debug is None:
        monkeypatch.delenv("SDPGAN_DEBUG", raising=False)
    else:
        monkeypatch.setenv("SDPGAN_DEBUG", debug)
    assert main(["stylize", "nowhere.jpg", "--style", str(tiny)]) == 2
    usage = capsys.readouterr().err
    monkeypatch.setattr(SDPGAN, "stylize", break_stylize)
    assert main(["stylize", "photo.png", "--style", str(tiny)]) == 1
    bug = capsys.readouterr().err
    for errors, named, place in ((usage, "nowhere.jpg", "_checked_input"), (bug, "a bug", "break_stylize")):
        assert errors.count("Traceback") == errors.count(f"in {place}") == tracebacks
        assert named in errors.splitlines()[-1] and (tracebacks or errors.count("\n") == 1)


# saliency


def test_the_map_of_the_network_is_its_saliency_map_in_8_bit_grey(here, tiny, model):
    assert main(["saliency", "photo.png", "--style", str(tiny)]) == 0
    with Image.open("photo.saliency.png") as image:
        assert image.mode == "L"
    expected = np.rint(model.saliency_map("photo.png") * 255)
    assert np.array_equal(pixels("photo.saliency.png"), expected)


@pytest.mark.parametrize(
    ("view", "draw"),
    [
        ("heat", lambda _, saliency: visualization.heat_map(saliency)),
        ("overlay", visualization.overlay),
        ("contour", visualization.contour),
    ],
)
def test_each_view_is_the_one_of_the_visualization_module(here, tiny, model, view, draw):
    assert main(["saliency", "photo.png", "-o", "out.png", "--view", view, "--style", str(tiny)]) == 0
    assert np.array_equal(pixels("out.png"), draw(picture(), model.saliency_map("photo.png")))


@pytest.mark.parametrize(
    ("method", "function"), [("reference", "reference"), ("rbd", "robust_background"), ("mbd", "minimum_barrier")]
)
def test_each_classic_method_is_its_detector_and_needs_no_style(here, method, function):
    assert main(["saliency", "photo.png", "-o", "map.png", "--method", method]) == 0
    expected = getattr(saliency, function)(picture())
    assert np.abs(pixels("map.png") / 255 - expected).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize(
    "given", ["--style=vangogh", "--revision=main", "--local-files-only", "--max-size=64", "--tile=64", "--tile=off"]
)
def test_a_classic_method_refuses_what_only_the_network_has(here, capsys, given):
    assert main(["saliency", "photo.png", "-o", "map.png", "--method", "rbd", given]) == 2
    line = one_line(capsys)
    assert given.split("=")[0] in line and "--method rbd" in line and not Path("map.png").exists()


@pytest.mark.parametrize(("given", "tile"), [([], "auto"), (["--tile", "off"], None), (["--tile", "64"], 64)])
def test_the_network_finds_what_is_salient_in_the_tiles_asked_for(here, tiny, monkeypatch, given, tile):
    seen, real = [], SDPGAN.saliency_map
    monkeypatch.setattr(SDPGAN, "saliency_map", lambda *args, **limits: seen.append(limits) or real(*args, **limits))
    assert main(["saliency", "photo.png", "-o", "map.png", "--style", str(tiny), *given]) == 0
    assert [limits["tile"] for limits in seen] == [tile]


def test_maps_of_a_folder_are_png_and_a_jpg_and_a_png_of_one_name_keep_apart(here, tiny):
    Image.fromarray(picture(seed=9)).save("photos/a.jpg")
    assert main(["saliency", "photos", "--style", str(tiny)]) == 0
    assert files("photos.saliency") == ["B.png", "a.jpg.png", "a.png.png", "nested/c.png"]


def test_a_missing_extra_is_one_line_with_exit_code_2_that_says_what_to_install(here, monkeypatch, capsys):
    for name in ("skimage.segmentation", "skimage.morphology"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["saliency", "photo.png", "-o", "map.png", "--method", "rbd"]) == 2
    assert "[saliency]" in one_line(capsys)


# styles


def test_styles_lists_every_shipped_style_with_its_folder(capsys):
    assert main(["styles", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"]: Path(row["path"]) for row in rows} == styles.available()
    assert all(row["bytes"] > 0 for row in rows)
    assert main(["styles"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [row["name"] for row in rows]


# stdin and stdout


@pytest.mark.parametrize(("data", "named"), [(b"rubbish", "format"), (b"", "nothing")])
def test_rubbish_on_stdin_is_one_line_with_exit_code_1(here, tiny, monkeypatch, capsys, data, named):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert main(["stylize", "-", "-o", "out.png", "--style", str(tiny)]) == 1
    line = one_line(capsys)
    assert line.startswith("-: ") and named in line
    assert not Path("out.png").exists()


# as a process


def test_version_and_help_answer_without_loading_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from sdpgan_hub.cli import main; main(sys.argv[1:])"
    for argument, expected in (("--version", sdpgan_hub.__version__), ("--help", "stylize")):
        done = subprocess.run([sys.executable, "-c", script, argument], env=ENVIRONMENT, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert expected in done.stdout


def test_a_photo_comes_in_on_stdin_and_the_painting_goes_out_on_stdout(here, tiny):
    command = [*COMMAND, "stylize", "--style", str(tiny)]
    subprocess.run([*command, "photo.png", "-o", "expected.png"], env=ENVIRONMENT, check=True)
    done = subprocess.run([*command, "-"], env=ENVIRONMENT, input=Path("photo.png").read_bytes(), capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    with Image.open(io.BytesIO(done.stdout)) as painting, Image.open("expected.png") as expected:
        assert painting.format == "PNG"
        np.testing.assert_array_equal(np.asarray(painting), np.asarray(expected))


def test_ctrl_c_ends_quietly_with_130_whole_files_and_a_whole_json_document(here, tiny):
    for index in range(200):
        Image.fromarray(picture(256, 256, seed=index % 3)).save(f"photos/{index:02}.png", compress_level=1)
    started = subprocess.Popen(
        [*COMMAND, "stylize", "photos", "-o", "out", "--json", "--style", str(tiny)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    while started.poll() is None and len(list(Path().glob("out/*.png"))) < 3:  # the last may not be noted yet
        time.sleep(0.01)
    os.killpg(started.pid, signal.SIGINT)
    out, errors = started.communicate(timeout=30)
    assert started.returncode == 130
    assert b"Traceback" not in errors and errors.endswith(b"stopped\n")
    done = json.loads(out)
    assert 0 < len(done) < 203
    assert not list(Path("out").rglob(f"*{files_module.UNFINISHED}"))


def test_a_reader_that_went_away_ends_it_quietly_with_141():
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [*COMMAND, "styles", "--json"]
    piped = subprocess.run(command, env=ENVIRONMENT, stdout=write_end, stderr=subprocess.PIPE, timeout=60)
    os.close(write_end)
    assert (piped.returncode, piped.stderr) == (141, b"")
