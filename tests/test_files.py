"""sdpgan_hub/files.py: image files of every kind are found, decoded and written, or refused by name in a sentence."""

from __future__ import annotations

import io
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from assertions import not_root, refusal
from PIL import Image, ImageDraw

from sdpgan_hub import files
from sdpgan_hub.errors import SDPGANWarning


def scene(height: int = 120, width: int = 96, seed: int = 0) -> Image.Image:
    """A smooth picture with noise in it, so that no two rows are alike."""
    rows, columns = np.mgrid[:height, :width]
    noise = np.random.default_rng(seed).integers(0, 30, (height, width, 3))
    ground = np.stack([rows * 1.5, columns * 2, 200 - rows], axis=-1)
    return Image.fromarray((ground + noise).clip(0, 255).astype(np.uint8))


def saved(image: Image.Image, format: str, **settings) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **settings)
    return file.getvalue()


def encoded_again(
    data: bytes, format: str, paint: Callable[[np.ndarray, int], np.ndarray] = lambda colours, _: colours
) -> tuple[Image.Image, files.Belongings]:
    """A file read frame by frame and written anew, the colours of each frame as `paint` gives them with its number."""
    belongings = files.Belongings()
    with files.opened(io.BytesIO(data)) as image:
        frames = []
        for frame in files.frames(image, "a", files.frame_count(image), belongings):
            values = np.array(frame.convert("RGBA" if frame.has_transparency_data else "RGB"))
            values[..., :3] = paint(values[..., :3], len(frames))
            frames.append(Image.fromarray(values))
    return Image.open(io.BytesIO(files.encode(frames, format, belongings))), belongings


def refused(source: object, name: str = "photo") -> str:
    return refusal(lambda: files.open_image(source, name), name)


# reading


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.avif", "AVIF"),
        ("a.jfif", "JPEG"),
        ("a.jp2", "JPEG2000"),
        ("a.apng", "PNG"),
        ("a.JPE", "JPEG"),
        ("a.mpo", "MPO"),
    ],
)
@pytest.mark.filterwarnings("error")  # the second picture of an MPO is no page
def test_each_format_is_an_image_by_its_name_and_is_read(tmp_path, name, format):
    extra = {"save_all": True, "append_images": [scene(seed=1)]} if format == "MPO" else {}
    (tmp_path / name).write_bytes(saved(scene(), format, **extra))
    assert files.is_image_name(tmp_path / name)
    read = files.read_rgb(tmp_path / name)
    assert np.abs(read - np.asarray(scene()).astype(int)).mean() < 12


def test_heic_without_its_library_is_named_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "can_read_heif", lambda: False)
    (tmp_path / "IMG.HEIC").write_bytes(b"\0\0\0\x24ftypheic\0\0\0\0mif1MiHEmiafMiHBheic" + bytes(400))
    assert 'pip install "sdpgan_hub[heif]"' in refused(tmp_path / "IMG.HEIC", "IMG.HEIC")
    assert not files.is_image_name(tmp_path / "IMG.HEIC")


def test_heic_is_read_where_its_library_is(monkeypatch):
    registered = []
    library = types.SimpleNamespace(register_heif_opener=lambda: registered.append(True))
    monkeypatch.setitem(sys.modules, "pillow_heif", library)
    files.can_read_heif.cache_clear()
    try:
        assert files.can_read_heif() and files.is_image_name(Path("IMG.HEIC")) and registered == [True]
    finally:
        files.can_read_heif.cache_clear()


def test_heic_is_decoded(tmp_path):
    pytest.importorskip("pillow_heif")
    assert files.can_read_heif()
    scene().save(tmp_path / "a.heic", quality=100)
    assert np.abs(files.read_rgb(tmp_path / "a.heic") - np.asarray(scene()).astype(int)).mean() < 8


def test_the_extra_for_heic_is_the_one_that_the_message_names():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["heif"] == ["pillow-heif"]
    assert f"{project['name']}[heif]" in files.INSTALL_HEIF


@pytest.mark.parametrize("settings", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("short", [1, 2, 40])
def test_a_jpeg_short_of_its_last_bytes_is_read_with_a_warning(settings, short):
    data = saved(scene(), "JPEG", quality=90, **settings)
    with pytest.warns(SDPGANWarning, match=r"photo is short of its last bytes"):
        read = files.open_image(io.BytesIO(data[:-short]), "photo")
    whole = np.asarray(Image.open(io.BytesIO(data)))
    assert np.array_equal(np.asarray(read)[:100], whole[:100])
    if short <= 2:
        assert np.array_equal(np.asarray(read), whole)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_half_of_a_jpeg_is_refused(share):
    data = saved(scene(400, 300), "JPEG", quality=90)
    said = refused(io.BytesIO(data[: int(share * len(data))]))
    assert "rows are missing" in said and "OSError" not in said


def test_a_tiff_whose_pixels_pillow_would_mix_up_is_refused(tmp_path):
    """Channels apart, 16 bits, not packed: Pillow shows colour noise. Floats it does not know at all."""
    values = np.asarray(scene()).transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / "deep.tif", values.astype(np.uint16) * 257, photometric="rgb", planarconfig="separate")
    assert "16 bits" in refused(tmp_path / "deep.tif", "deep.tif")
    tifffile.imwrite(tmp_path / "float.tif", np.asarray(scene()).astype(np.float32) / 255, photometric="rgb")
    assert "floats" in refused(tmp_path / "float.tif", "float.tif")
    grey = values[0].astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "white is 0.tif", grey, photometric="miniswhite")
    assert "16 bits" in refused(tmp_path / "white is 0.tif", "white is 0.tif")
    packed = saved(Image.fromarray(grey), "TIFF")
    entry = packed.index(bytes([2, 1, 3, 0, 1, 0, 0, 0, 16, 0]))  # BitsPerSample, of 16
    assert "12 bits" in refused(io.BytesIO(packed[: entry + 8] + bytes([12, 0]) + packed[entry + 10 :]))
    tifffile.imwrite(tmp_path / "white is 0, of 8.tif", 255 - values[0], photometric="miniswhite")
    assert np.array_equal(files.read_rgb(tmp_path / "white is 0, of 8.tif")[..., 0], values[0])
    tifffile.imwrite(tmp_path / "plain.tif", values, photometric="rgb", planarconfig="separate")
    assert np.array_equal(files.read_rgb(tmp_path / "plain.tif"), np.asarray(scene()))


def test_a_still_of_a_file_of_several_is_never_taken_in_silence():
    data = saved(scene(), "GIF", save_all=True, append_images=[scene(seed=1), scene(seed=2)])
    with pytest.warns(SDPGANWarning, match="photo has 3 frames, and this is the first"):
        files.open_image(io.BytesIO(data), "photo")
    data = saved(scene(), "TIFF", save_all=True, append_images=[scene(seed=1)])
    with pytest.warns(SDPGANWarning, match="photo has 2 pages"):
        files.open_image(io.BytesIO(data), "photo")


# writing


def moving(mode: str) -> list[Image.Image]:
    """A disc that moves over a bar, on transparency in RGBA and on blue in RGB; few colours, so that GIF holds them."""
    frames = []
    for number in range(4):
        image = Image.new(mode, (40, 30), (0, 0, 0, 0) if mode == "RGBA" else (200, 220, 240))
        draw = ImageDraw.Draw(image)
        draw.ellipse((3 + 6 * number, 5, 15 + 6 * number, 20), fill=(250, 200 - 20 * number, 30))
        draw.rectangle((0, 26, 40, 30), fill=(20, 90, 200))
        frames.append(image)
    return frames


def seen(image: Image.Image, number: int) -> np.ndarray:
    """Frame `number` as a viewer shows it, what is transparent as zeros."""
    image.seek(number)
    rgba = np.asarray(image.convert("RGBA")).astype(int)
    return np.where(rgba[..., 3:] > 127, rgba, 0)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("target", ["GIF", "PNG"])
@pytest.mark.parametrize(
    ("source", "disposal"),
    [("GIF", 1), ("GIF", [1, 2, 3, 2]), ("GIF", 3), ("PNG", 0), ("PNG", 1), ("PNG", [0, 2, 1, 0]), ("WEBP", None)],
)
def test_an_animation_keeps_its_pictures_and_timing(mode, source, disposal, target):
    """Whatever is painted: here a block that covers a part of where it was before."""

    def block(colours: np.ndarray, number: int) -> np.ndarray:
        painting = np.full_like(colours, 90)
        painting[5:25, 4 * number : 4 * number + 20] = 220
        return painting

    settings = {"save_all": True, "append_images": moving(mode)[1:], "duration": [50, 100, 200, 70], "loop": 0}
    settings |= {"lossless": True} if source == "WEBP" else {"disposal": disposal}
    data = saved(moving(mode)[0], source, **settings)
    known = Image.open(io.BytesIO(data))
    result, _ = encoded_again(data, target, block)
    assert result.n_frames == known.n_frames == 4
    for number in range(4):
        expected = seen(known, number)
        expected[..., :3] = np.where(expected[..., 3:] > 0, block(expected[..., :3], number), 0)
        assert np.array_equal(seen(result, number), expected)
        assert result.info["duration"] == known.info["duration"]


@pytest.mark.parametrize(
    ("source", "loop", "target", "expected"),
    [
        ("GIF", 0, "GIF", 0),
        ("GIF", 2, "GIF", 2),
        ("GIF", None, "GIF", None),
        ("GIF", None, "PNG", 1),
        ("GIF", 0, "WEBP", 0),
        ("GIF", 2, "WEBP", 3),
        ("PNG", 1, "GIF", None),
        ("PNG", 3, "GIF", 2),
        ("WEBP", 4, "PNG", 4),
    ],
)
def test_an_animation_runs_as_often_as_before(source, loop, target, expected):
    """GIF counts repetitions and the others how often it is shown; 0 is for ever in all."""
    settings = {} if loop is None else {"loop": loop}
    data = saved(moving("RGB")[0], source, save_all=True, append_images=moving("RGB")[1:], **settings)
    assert encoded_again(data, target)[0].info.get("loop") == expected


def test_the_still_of_a_png_for_old_viewers_is_no_frame():
    first, *others = moving("RGB")
    data = saved(first, "PNG", save_all=True, append_images=others, default_image=True, duration=[50, 60, 70])
    result, belongings = encoded_again(data, "GIF")
    assert result.n_frames == 3 and belongings.durations == [50, 60, 70]
    assert np.array_equal(seen(result, 0)[..., :3], np.asarray(others[0]))


def test_the_small_copy_in_a_tiff_is_no_page():
    small = scene().resize((24, 30))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    data = saved(scene(), "TIFF", save_all=True, append_images=[small])
    with files.opened(io.BytesIO(data)) as image:
        assert image.n_frames == 2 and files.frame_count(image) == 1


@pytest.mark.parametrize("format", ["JPEG", "BMP"])
def test_what_is_transparent_turns_white_where_there_is_no_transparency(format):
    image = scene().convert("RGBA")
    image.paste((250, 0, 250, 0), (0, 0, 96, 64))
    result = np.asarray(Image.open(io.BytesIO(files.encode([image], format, quality=100))))
    assert result.shape == (120, 96, 3) and result[:56].min() > 250 and result[72:].mean() < 200


@pytest.mark.parametrize(("format", "orientation"), [("JPEG", 6), ("TIFF", 8), ("JPEG", 3)])
def test_the_resolution_turns_with_the_photo(format: str, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(scene(40, 30), format, exif=exif, dpi=(72, 144))
    belongings = files.Belongings()
    with files.opened(io.BytesIO(data), "photo") as image:
        (frame,) = files.frames(image, "photo", 1, belongings)
    lies = orientation >= 5
    assert frame.size == ((40, 30) if lies else (30, 40))
    assert belongings.dpi == pytest.approx((144, 72) if lies else (72, 144))


def test_a_resolution_that_no_file_holds_is_left_out():
    data = files.encode([scene()], "PNG", files.Belongings(dpi=(2e8, 2e8)))
    assert "dpi" not in Image.open(io.BytesIO(data)).info


@pytest.mark.parametrize(("format", "kept"), [("PNG", True), ("TIFF", True), ("JPEG", False)])
def test_a_resolution_that_a_format_cannot_hold_is_left_out(format, kept):
    data = files.encode([scene()], format, files.Belongings(dpi=(101600, 101600)))
    found = Image.open(io.BytesIO(data)).info.get("dpi")
    assert found == (pytest.approx((101600, 101600)) if kept else None)


@pytest.mark.parametrize("format", sorted(files.LARGEST_SIDE.keys() - {"AVIF"}))
def test_the_largest_side_of_a_format_is_written_and_no_more(format):
    """AVIF takes seconds."""
    side = files.LARGEST_SIDE[format]
    Image.new("L", (side, 1)).save(io.BytesIO(), format)
    with pytest.raises(Exception):  # noqa: B017  (whatever the encoder raises)
        Image.new("L", (side + 1, 1)).save(io.BytesIO(), format)


# folders


def test_hidden_folders_are_passed_over_and_links_are_followed_once(tmp_path):
    for name in ("root/a.png", "root/sub/b.png", "root/.cache/c.png", "root/.d.png", "far/e.png", "far/deep/f.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    root = tmp_path / "root"
    links = {"a link": "far", "again": "far", "sub/up": "root", "sub/deep": "far/deep", "0sub": "root/sub",
             "gone": "nowhere", "g.png": "far/e.png"}  # fmt: skip
    for link, target in links.items():
        (root / link).symlink_to(tmp_path / target)
    found = [path.relative_to(root).as_posix() for path in files.files_below(root)]
    assert found == ["a link/deep/f.png", "a link/e.png", "a.png", "g.png", "sub/b.png"]


XMP = """<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><r:RDF
 xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><r:Description xmlns:d="http://purl.org/dc/elements/1.1/"
 xmlns:e="http://ns.adobe.com/exif/1.0/" e:GPSLatitude="48,51N"><d:creator><r:Seq><r:li>Zoë</r:li><r:li>Bo</r:li>
</r:Seq></d:creator><d:rights><r:Alt><r:li xml:lang="x-default">© Zoë &amp; Bo</r:li><r:li xml:lang="de">anders</r:li>
</r:Alt></d:rights></r:Description></r:RDF></x:xmpmeta><?xpacket end="w"?>""".encode()


def with_iptc(datasets: dict[int, list[bytes]]) -> dict[str, bytes]:
    """Settings of a JPEG file that has these texts of IPTC's second record in Photoshop's segment."""
    sets = [(number, text) for number, texts in datasets.items() for text in texts]
    block = b"".join(b"\x1c\x02" + bytes([number]) + len(text).to_bytes(2, "big") + text for number, text in sets)
    content = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + len(block).to_bytes(4, "big") + block + b"\0" * (len(block) % 2)
    return {"extra": b"\xff\xed" + (len(content) + 2).to_bytes(2, "big") + content}


@pytest.mark.parametrize(
    ("format", "settings", "artist", "copyright"),
    [
        ("JPEG", {"xmp": XMP}, "Zoë; Bo", "© Zoë & Bo"),
        ("WEBP", {"xmp": XMP}, "Zoë; Bo", "© Zoë & Bo"),
        ("JPEG", {"xmp": XMP, "artist": " \0"}, "Zoë; Bo", "© Zoë & Bo"),
        ("JPEG", {"xmp": XMP, "artist": "Ada"}, "Ada", "© Zoë & Bo"),
        ("JPEG", with_iptc({80: [b"Zo\xc3\xab", b"Bo"], 90: [b"Paris"]}), "Zoë; Bo", None),
        ("JPEG", {"xmp": XMP, **with_iptc({80: [b"Di"], 116: [b"(c)"]})}, "Zoë; Bo", "© Zoë & Bo"),
        ("JPEG", {"xmp": XMP[:200], **with_iptc({116: [b"(c)"]})}, None, "(c)"),
        ("JPEG", {}, None, None),
    ],
)  # fmt: skip
def test_author_and_copyright_are_those_of_exif_else_of_xmp_else_of_iptc(format, settings, artist, copyright):
    settings, exif = dict(settings), Image.Exif()
    if "artist" in settings:
        exif[0x013B] = settings.pop("artist")
    _, belongings = encoded_again(saved(scene(), format, exif=exif, **settings), "JPEG")
    data = files.encode([scene()], "JPEG", belongings, keep_metadata=True)
    with Image.open(io.BytesIO(data)) as result:
        kept = {tag: text.encode("latin-1").decode() for tag, text in result.getexif().items()}
    assert kept == {tag: text for tag, text in ((0x013B, artist), (0x8298, copyright)) if text}


@pytest.mark.parametrize("mode", [0, 0o444])
def test_a_folder_that_may_not_be_read_is_named_and_left_out(here, mode):
    for name in ("a.png", "open/b.png", "closed/c.png", "closed/below/d.png"):
        Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
        Path("photos", name).touch()
    Path("photos/closed").chmod(mode)
    with not_root(), pytest.warns(SDPGANWarning) as noted:
        found = files.files_below("photos")
        refusal(lambda: files.files_below("photos/closed/"), "photos/closed cannot be read")
    Path("photos/closed").chmod(0o755)
    assert [path.as_posix() for path in found] == ["photos/a.png", "photos/open/b.png"]
    assert [str(warning.message).split()[0] for warning in noted] == ["photos/closed"]


def test_a_file_appears_whole_or_not_at_all(tmp_path, full_disk):
    refusal(
        lambda: files.write_whole(tmp_path / "new" / "out.png", b"data"), "out.png cannot be written: No space left"
    )
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("name", ["x" * 251, "日" * 83])
def test_the_longest_name_can_be_written(tmp_path, name):
    files.write_whole(tmp_path / f"{name}.png", b"data")
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.png"]
