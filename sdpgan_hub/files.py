"""Image files: the one place that finds, opens, decodes and writes them. Needs Pillow and no torch.

Read: JPEG (with JFIF and MPO), PNG and APNG, WebP, TIFF, GIF, AVIF, JPEG 2000, BMP, and HEIC where pillow-heif is
installed. Written: the formats of `OUTPUT_FORMATS`.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import IO, Any, cast
from xml.etree import ElementTree

import numpy as np
import PIL.Image
from PIL import ExifTags, ImageFile, ImageOps, IptcImagePlugin

from . import color
from .errors import SDPGANError, SDPGANWarning

UNFINISHED = ".unfinished"
"""The suffix of a file that is being written."""

Source = str | os.PathLike | IO[bytes]

INPUT_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
    *(".avif", ".jp2", ".j2k", ".jpf", ".jpx"),
)
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
INSTALL_HEIF = 'pip install "sdpgan_hub[heif]"'
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
VIDEO_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""Containers that are written; .avi keeps no times of frames."""
INSTALL_VIDEO = 'pip install "sdpgan_hub[video]"'
OUTPUT_FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".avif": "AVIF",
    ".gif": "GIF",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
WITHOUT_ALPHA = ("JPEG", "BMP")
WITHOUT_METADATA = ("BMP", "GIF")
WITHOUT_PROFILE = ("BMP", "GIF")
ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")
LARGEST_SIDE = {"JPEG": 65500, "WEBP": 16383, "GIF": 65535, "AVIF": 65536}
"""Pixels; the other formats hold more than Pillow decodes."""

KEPT_EXIF = (0x0132, 0x013B, 0x8298, 0x9C9D)
"""Date, artist, copyright, author."""
KEPT_EXIF_OF_THE_CAMERA = (0x9003, 0x9004, 0x9010, 0x9011, 0x9012, 0x9290, 0x9291, 0x9292)
"""When the photo was taken and digitized, with time zone and fractions of a second."""
EXIF_IFD = 0x8769
XMP_NAMES = {"dc": "http://purl.org/dc/elements/1.1/", "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#"}
SUBFILE_TYPE, THUMBNAIL_OR_MASK, BITS, COMPRESSION, PLANAR_CONFIGURATION = 254, 1 | 4, 258, 259, 284
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0

MISSING_ROWS, MISSING_SHARE = 32, 0.05
"""A JPEG may be short of so much of its bottom: two rows of blocks, or a twentieth."""
END_OF_IMAGE = b"\xff\xd9"


@dataclass
class Belongings:
    """What belongs to an image file beside its pixels; `frames` fills it in.

    Attributes:
        profile: its ICC profile.
        dpi: pixels an inch, horizontally and vertically.
        metadata: of the EXIF data when the photo was taken, by whom and whose it is; never where. By whom and whose
            is taken from XMP or IPTC where EXIF does not say.
        plays: how often an animation runs, 0 for ever.
        durations: of each frame, in milliseconds.
    """

    profile: bytes | None = None
    dpi: tuple[float, float] | None = None
    metadata: PIL.Image.Exif = field(default_factory=PIL.Image.Exif)
    plays: int = 0
    durations: list[int] = field(default_factory=list)


@contextmanager
def file_errors(name: str) -> Iterator[None]:
    """A file that is not there or may not be read, as an SDPGANError that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise SDPGANError(f"{name}: no such file.") from error
    except PermissionError as error:
        raise SDPGANError(f"{name} may not be read: permission denied.") from error


@contextmanager
def image_errors(name: str) -> Iterator[None]:
    """Whatever Pillow raises about a file, as an SDPGANError that names it."""
    try:
        with file_errors(name):
            yield
    except SDPGANError:
        raise
    except IsADirectoryError as error:
        raise SDPGANError(f"{name} is a folder; give an image file.") from error
    except PIL.Image.DecompressionBombError as error:
        raise SDPGANError(
            f"{name} has more pixels than Pillow decodes; shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS."
        ) from error
    except Exception as error:  # a broken file makes Pillow's decoders raise anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SDPGANError(f"{name} cannot be decoded; is it whole? ({reason})") from error


@contextmanager
def opened(source: Source, name: str | None = None) -> Iterator[PIL.Image.Image]:
    """The image file at a path or in a binary file, its header read and its pixels not.

    name: what messages call it; a path by default.

    Raises:
        SDPGANError: if there is no such file, or it is of no known format, or of one whose pixels come out wrong.
    """
    name = name or _name(source)
    can_read_heif()
    with image_errors(name):
        try:
            image = PIL.Image.open(source)
        except PIL.UnidentifiedImageError as error:
            raise _explained(error, source, name) from error
    with image:
        _set_transparent_colour(image)
        tags = getattr(image, "tag_v2", {})
        bits = max(tags.get(BITS, (1,)))
        if tags.get(PLANAR_CONFIGURATION) == 2 and tags.get(COMPRESSION) == 1 and bits > 8:
            raise SDPGANError(
                f"{name} is a TIFF that keeps its channels apart with {bits} bits each, which is not read; "
                "save it with 8 bits, or with the channels side by side (interleaved)."
            )
        if bits == 12 or (bits > 8 and tags.get(PHOTOMETRIC) == WHITE_IS_ZERO):
            raise SDPGANError(
                f"{name} is a grey TIFF of {bits} bits that is not read right; save it with 8 bits, or with 16 and 0 "
                "for black."
            )
        yield image


def open_image(source: Source, name: str | None = None) -> PIL.Image.Image:
    """The first frame or page of an image file, decoded whole and upright, in the mode it is stored in.

    A file of several frames or pages gives its first with an SDPGANWarning, as does a JPEG that is short of its last
    bytes.

    Raises:
        SDPGANError: if there is no such file, or it is not a whole image of a known format, or it is too large.
    """
    name = name or _name(source)
    with opened(source, name) as image:
        if (count := frame_count(image)) > 1:
            kind = "pages" if image.format == "TIFF" else "frames"
            warnings.warn(f"{name} has {count} {kind}, and this is the first.", SDPGANWarning, stacklevel=2)
        return upright(image, name)


def frame_count(image: PIL.Image.Image) -> int:
    """How many frames an opened animation has, or pages a TIFF; 1 for a still.

    The small copies and masks that cameras and editors put into a TIFF or beside a JPEG (MPO), and the still of a PNG
    for viewers that know no animations, are not counted.
    """
    return len(_numbers(image))


def frames(image: PIL.Image.Image, name: str, count: int, belongings: Belongings) -> Iterator[PIL.Image.Image]:
    """The first `count` frames of an opened image file as a viewer shows them, decoded and upright.

    Fills in `belongings`: what is of the whole file with the first frame, timing with each.

    Raises:
        SDPGANError: naming the file where a frame cannot be decoded.
    """
    for index, number in enumerate(_numbers(image)[:count]):
        if count > 1:
            with image_errors(name):
                image.seek(number)
        lies = index == 0 and _orientation(image) >= 5  # before it is decoded: Pillow turns a TIFF by itself
        frame = upright(image, name)
        if count > 1 and frame is image:
            frame = image.copy()
        if index == 0:
            belongings.profile = image.info.get("icc_profile")
            dpi = image.info.get("dpi")
            belongings.dpi = dpi[::-1] if dpi and lies else dpi
            belongings.metadata = _metadata(image)
            belongings.plays = _plays(image)
        if count > 1 and image.format in ANIMATED:
            belongings.durations.append(round(image.info.get("duration", 0)))
        yield frame


def upright(image: PIL.Image.Image, name: str) -> PIL.Image.Image:
    """`image`, decoded, where its EXIF has no orientation to heed, else a copy, turned and mirrored as it says."""
    with image_errors(name):
        try:
            image.load()
        except OSError:
            if image.format not in ("JPEG", "MPO"):
                raise
            image = _without_its_end(image, name)
    try:
        return image if _orientation(image) == 1 else ImageOps.exif_transpose(image)
    except Exception:  # an orientation in EXIF that Pillow cannot write again
        return image


def _orientation(image: PIL.Image.Image) -> int:
    """EXIF's, 1 to 8: 1 upright, from 5 on lying on a side."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # EXIF that Pillow cannot parse says nothing about the orientation; the pixels are whole
        return 1
    return found if found in range(1, 9) else 1


def pixels(image: PIL.Image.Image, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """A decoded PIL image of any mode in sRGB.

    Returns:
        Values H x W x 1 (grey) or H x W x 3 (RGB), uint8 or uint16 from 0 to their largest value or float32 in [0, 1],
        and the alpha channel, uint8 H x W, where the image is transparent.

    Raises:
        SDPGANError: for 16-bit grey beyond 65535 and floats outside of [0, 1].
    """
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65535:
            raise SDPGANError(f"{name} has values from {deep.min()} to {deep.max()}; 16-bit grey ends at 65535.")
    if image.mode == "F":
        check_floats(np.asarray(image).min(), np.asarray(image).max(), name)
    with image_errors(name):
        if image.mode in ("La", "RGBa"):
            image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
        alpha = None
        if image.mode.startswith("I") and "transparency" in image.info:  # which Pillow's conversion looks for in 8 bits
            alpha = np.where(deep == image.info["transparency"], 0, 255).astype(np.uint8)
        elif image.has_transparency_data:
            alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        managed = color.to_srgb(image, name)
        if managed.mode.startswith("I"):
            return np.asarray(managed).astype(np.uint16)[..., None], alpha
        if managed.mode == "F":
            return np.asarray(managed)[..., None], None
        # a palette's transparent colour has to be given up by way of RGBA
        return np.asarray((managed.convert("RGBA") if alpha is not None else managed).convert("RGB")), alpha


def check_floats(lowest: float, highest: float, name: str) -> None:
    """SDPGANError where floats from `lowest` to `highest` are no image in [0, 1], but for rounding errors."""
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise SDPGANError(f"{name} holds NaN or infinite values.")
    if lowest < -1e-3 or highest > 1 + 1e-3:
        raise SDPGANError(
            f"{name} has floats from {lowest:.4g} to {highest:.4g}; scale or clip them to [0, 1], or give uint8."
        )


def read_rgb(source: Source, name: str | None = None) -> np.ndarray:
    """The image file as uint8 H x W x 3, in sRGB, upright, what is transparent laid on white: what a training sees.

    Raises:
        SDPGANError: as `open_image` and `pixels`.
    """
    name = name or _name(source)
    values, alpha = pixels(open_image(source, name), name)
    if values.dtype != np.uint8:
        white = 1 if values.dtype.kind == "f" else 65535
        values = np.clip(np.rint(values.astype(np.float32) * (255 / white)), 0, 255).astype(np.uint8)
    if alpha is not None:
        share = alpha[..., None].astype(np.float32) / 255
        values = np.rint(255 + (values.astype(np.float32) - 255) * share).astype(np.uint8)
    return np.array(np.broadcast_to(values, (*values.shape[:2], 3)))


def encode(
    images: Sequence[PIL.Image.Image],
    format: str,
    belongings: Belongings | None = None,
    *,
    quality: int = 92,
    keep_metadata: bool = False,
) -> bytes:
    """The bytes of a file of `format` (a value of `OUTPUT_FORMATS`) with these frames, L, RGB or RGBA in sRGB.

    Colours are stored in the file's own profile where it is wider than sRGB. Transparent parts turn white in a format
    that has no transparency. belongings: what is kept of the file that was read: its profile, resolution, timing, and
    with `keep_metadata` date, author and copyright.
    """
    kept = belongings or Belongings()
    profile = None
    stored = []
    transparent = any("A" in image.getbands() for image in images)
    for image in images:
        image = image.convert("RGBA") if transparent else image
        if transparent and format in WITHOUT_ALPHA:
            image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image).convert("RGB")
        if format not in WITHOUT_PROFILE:
            image, profile = color.from_srgb(image, kept.profile)
        stored.append(_paletted(image) if format == "GIF" and image.mode != "L" else image)
    settings_of: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": quality, "subsampling": "4:4:4"},
        "PNG": {"compress_level": 3},
        "WEBP": {"quality": quality},
        "AVIF": {"quality": quality, "subsampling": "4:4:4"},
    }
    settings = settings_of.get(format, {})
    if profile:
        settings["icc_profile"] = profile
    largest = 65535 if format == "JPEG" else 1e8  # of more, as a microscope has, Pillow writes the lower bits
    if kept.dpi and 1 < min(kept.dpi) <= max(kept.dpi) <= largest:
        settings["dpi"] = tuple(map(float, kept.dpi))
    if keep_metadata and format not in WITHOUT_METADATA and len(kept.metadata):
        settings |= {"tiffinfo": dict(kept.metadata)} if format == "TIFF" else {"exif": kept.metadata}
    if len(stored) > 1:
        settings |= {"save_all": True, "append_images": stored[1:], **_timing(kept, format, transparent)}
    buffer = BytesIO()
    stored[0].save(buffer, format, **settings)
    return buffer.getvalue()


def write_whole(path: str | os.PathLike, content: bytes) -> None:
    """Puts `content` in the file at `path`, and makes its folder; a reader, or a crash, never meets half of it.

    Raises:
        SDPGANError: naming the file that cannot be written.
    """
    path = Path(path)
    short = f"{path.name[:40]}.{zlib.crc32(os.fsencode(path.name)):08x}"  # a name may be of 255 bytes already
    unfinished = path.with_name(f".{short}.{os.getpid()}{UNFINISHED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    except OSError as error:
        raise SDPGANError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def files_below(folder: str | os.PathLike) -> list[Path]:
    """Every file below `folder`, sorted; hidden files and folders passed over, each linked folder entered once.

    A folder below it that may not be read is left out with an SDPGANWarning.

    Raises:
        SDPGANError: `folder` itself cannot be read.
    """

    root = Path(folder)

    def leave_out(error: OSError) -> None:
        if error.filename == os.fspath(root):
            raise SDPGANError(f"{root} cannot be read: {error.strerror}.") from error
        message = f"{error.filename} cannot be read ({error.strerror}), and what is in it is left out."
        warnings.warn(message, SDPGANWarning, stacklevel=3)

    found: list[Path] = []
    entered: set[str] = set()
    waiting = [root]
    for start in waiting:  # links to folders are added at the end, after all that is really there
        for parent, folders, names in os.walk(start, onerror=leave_out, followlinks=False):
            if os.path.realpath(parent) in entered:
                folders.clear()
                continue
            entered.add(os.path.realpath(parent))
            if not os.access(parent, os.X_OK):  # its names can be listed, and none of it be opened
                leave_out(PermissionError(errno.EACCES, os.strerror(errno.EACCES), parent))
                folders.clear()
                continue
            folders[:] = [name for name in sorted(folders) if not name.startswith(".")]
            waiting += [Path(parent, name) for name in folders if os.path.islink(os.path.join(parent, name))]
            found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.is_file())


def is_image_name(path: Path) -> bool:
    """Whether the suffix is one of an image that can be read here."""
    suffix = path.suffix.lower()
    return suffix in INPUT_SUFFIXES or (suffix in HEIF_SUFFIXES and can_read_heif())


def is_video_name(path: Path) -> bool:
    """Whether the suffix is one of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


@lru_cache(1)
def can_read_heif() -> bool:
    """Whether HEIC is read, which Pillow learns from pillow-heif where that is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def can_read_video() -> bool:
    """Whether PyAV is installed."""
    return importlib.util.find_spec("av") is not None


def _name(source: Source) -> str:
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else "The image"


def _explained(error: PIL.UnidentifiedImageError, source: Source, name: str) -> SDPGANError:
    """Why a file is of no known format, by its first bytes."""
    if isinstance(source, (str, os.PathLike)):
        with open(source, "rb") as file:
            start = file.read(12)
    else:
        source.seek(0)
        start = source.read(12)
    if start[4:8] == b"ftyp" and start[8:12] in HEIF_BRANDS:
        if can_read_heif():
            return SDPGANError(f"{name} is a HEIC file that cannot be decoded; is it whole?")
        return SDPGANError(f"{name} is a HEIC photo, which takes another library: {INSTALL_HEIF}.")
    if start[:4] in (b"II*\0", b"MM\0*"):
        return SDPGANError(
            f"{name} is a TIFF of a kind that is not read (colours as floats, 32 bits); save it with 8 or 16 bits."
        )
    return SDPGANError(f"{name} is not an image of a known format.")


def _set_transparent_colour(image: PIL.Image.Image) -> None:
    """A PNG's transparent colour in 8 bits, as Pillow decodes 2, 4 and 3 x 16; it leaves the colour as it is stored."""
    key, tiles = image.info.get("transparency"), getattr(image, "tile", ()) if image.format == "PNG" else ()
    stored = tiles[0].args if tiles else None
    if key is not None and stored in ("L;2", "L;4"):
        image.info["transparency"] = key * {"L;2": 85, "L;4": 17}[stored]
    elif key is not None and stored == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in key)


def _numbers(image: PIL.Image.Image) -> list[int]:
    """The numbers of the frames or pages that count; the first of them is what the image is at then."""
    try:
        every = range(getattr(image, "n_frames", 1) if image.format in (*ANIMATED, "TIFF") else 1)
        numbers = [number for number in every if not _is_beside(image, number)] if len(every) > 1 else []
        if numbers:
            image.seek(numbers[0])
    except Exception:  # what is wrong with a broken file Pillow says when it decodes
        numbers = []
    return numbers or [0]


def _is_beside(image: PIL.Image.Image, number: int) -> bool:
    """Whether this frame is the still of a PNG's animation, or this page a small copy of another or a mask."""
    if image.format == "PNG":
        return number == 0 and image.info.get("default_image", False)
    if image.format != "TIFF":
        return False
    image.seek(number)
    return bool(image.tag_v2.get(SUBFILE_TYPE, 0) & THUMBNAIL_OR_MASK)  # type: ignore[attr-defined]


def _metadata(image: PIL.Image.Image) -> PIL.Image.Exif:
    kept = PIL.Image.Exif()
    for tag, text in _credits(image):
        if text:
            kept[tag] = text
    with suppress(Exception):  # as in `upright`
        exif = image.getexif()
        for tag in KEPT_EXIF:
            if str(exif.get(tag, "")).strip("\0 "):
                # a text as the file's own bytes, UTF-8 for one: of a str Pillow writes what is ASCII
                kept[tag] = exif[tag].encode("latin-1") if isinstance(exif[tag], str) else exif[tag]
        camera = exif.get_ifd(EXIF_IFD)
        if times := {tag: camera[tag] for tag in KEPT_EXIF_OF_THE_CAMERA if tag in camera}:
            kept[EXIF_IFD] = times
    return kept


def _credits(image: PIL.Image.Image) -> Iterator[tuple[int, bytes]]:
    """EXIF's tags of artist and copyright, with what IPTC and then XMP say of them, and of nothing else."""
    with suppress(Exception):
        iptc: Any = IptcImagePlugin.getiptcinfo(cast(ImageFile.ImageFile, image))
        for tag, number in ((ExifTags.Base.Artist, 80), (ExifTags.Base.Copyright, 116)):
            texts = iptc.get((2, number), b"")
            yield tag, b"; ".join(texts if isinstance(texts, list) else [texts])
    with suppress(Exception):
        xmp = ElementTree.fromstring(image.info["xmp"].rstrip(b"\0 "))
        for tag, name, count in ((ExifTags.Base.Artist, "creator", None), (ExifTags.Base.Copyright, "rights", 1)):
            items = xmp.findall(f".//dc:{name}//rdf:li", XMP_NAMES)[:count]  # of rights, the first language
            yield tag, "; ".join(item.text or "" for item in items).encode()


def _plays(image: PIL.Image.Image) -> int:
    loop = image.info.get("loop")
    if image.format == "GIF":  # counts repetitions
        return 1 if loop is None else loop and loop + 1
    return loop or 0


def _timing(kept: Belongings, format: str, transparent: bool) -> dict[str, Any]:
    if format not in ANIMATED:
        return {}
    timing: dict[str, Any] = {"duration": kept.durations}
    if format == "GIF":
        # the file's own may be 3, before which Pillow compares with the wrong frame and leaves out what differs
        timing["disposal"] = 2 if transparent else 1
        if kept.plays != 1:
            timing["loop"] = max(0, kept.plays - 1)
    elif format in ("PNG", "WEBP"):
        timing["loop"] = kept.plays
    return timing


def _paletted(image: PIL.Image.Image) -> PIL.Image.Image:
    """RGB or RGBA in the colours a GIF holds; what is more than half transparent becomes wholly so."""
    if "A" not in image.getbands():
        return image.quantize(256)
    paletted = image.convert("RGB").quantize(255)
    paletted.paste(255, mask=image.getchannel("A").point(lambda alpha: 255 * (alpha < 128)))
    paletted.info["transparency"] = 255
    return paletted


def _without_its_end(image: PIL.Image.Image, name: str) -> PIL.Image.Image:
    """A JPEG that is short of its last bytes, as every viewer shows it; OSError where more than that is missing.

    What is missing is where two guesses at the rest differ.
    """
    filename, file = getattr(image, "filename", ""), cast("IO[bytes]", getattr(image, "fp", None))
    if filename:
        data = Path(filename).read_bytes()
    else:
        file.seek(0)
        data = file.read()
    data = data.rstrip(b"\xff")

    def decoded(rest: bytes) -> PIL.Image.Image:
        whole = PIL.Image.open(BytesIO(data + rest + END_OF_IMAGE))
        whole.load()
        return whole

    first, second = decoded(b""), decoded(b"\x55" * len(data))
    height = first.height
    differing = (np.asarray(first) != np.asarray(second)).reshape(height, -1).any(axis=1)
    missing = height - int(np.argmax(differing)) if differing.any() else 0
    if missing > max(MISSING_ROWS, MISSING_SHARE * height):
        raise OSError(f"{missing} of its {height} rows are missing")
    rows = f", and {missing} of its {height} rows may be wrong" if missing else ""
    warnings.warn(f"{name} is short of its last bytes{rows}.", SDPGANWarning, stacklevel=3)
    return first
