"""Colour profiles (ICC): pixels to sRGB before a network sees them, and back where a file's own profile holds more."""

from __future__ import annotations

import io
import warnings
from functools import lru_cache

import numpy as np
import PIL.Image
from PIL import ImageCms

from .errors import SDPGANWarning

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
GREY = ("1", "L", "LA", "I", "F")
INTENT = ImageCms.Intent.PERCEPTUAL
"""As browsers show a photo: by a press profile's tables; for a profile that is a matrix all intents are one."""


def to_srgb(image: PIL.Image.Image, name: str) -> PIL.Image.Image:
    """`image` without its alpha, as its colour profile says: RGB, 8 bit, in sRGB; as it is without a profile.

    A profile that is broken or not made for this kind of pixels is ignored with a warning that names the image.
    16-bit and float grey goes through its profile with 16 bits; the profile of an image in sRGB changes nothing.
    """
    data: bytes = image.info.get("icc_profile") or b""
    if not data and image.mode != "LAB":
        return image
    try:
        space, profile = (b"Lab ", LAB) if image.mode == "LAB" else _opened(data)
        if data and space == b"RGB " and is_srgb(data):
            return image
        mode = _mode(space, image.mode)
        pixels = image if image.mode == mode else _converted(image, mode)
        if space == b"GRAY":
            return _grey_through(pixels, profile)
        transform = ImageCms.buildTransform(profile, SRGB, mode, "RGB", INTENT)
        return _transformed(pixels, transform)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        warnings.warn(
            f"{name} has a colour profile that cannot be used ({error}); it is read without one.",
            SDPGANWarning,
            stacklevel=2,
        )
        return image


def from_srgb(image: PIL.Image.Image, profile: bytes | None) -> tuple[PIL.Image.Image, bytes | None]:
    """An RGB or RGBA image in sRGB as a file with `profile` holds it, and the profile to embed, or None for sRGB.

    `profile` itself where it is sRGB, or an RGB profile that holds all of sRGB and more; else the result is in sRGB.
    """
    if not profile or image.mode not in ("RGB", "RGBA"):
        return image, None
    try:
        if is_srgb(profile):
            return image, profile
        if not _is_wider(profile):
            return image, None
        mode = image.mode
        transform = ImageCms.buildTransform(SRGB, _opened(profile)[1], mode, mode, INTENT)
        return _transformed(image, transform), profile
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image, None


@lru_cache(32)
def is_srgb(profile: bytes) -> bool:
    """Whether the profile shows every RGB value as sRGB does, to a level."""
    space, opened = _opened(profile)
    if space != b"RGB ":
        return False
    steps = np.arange(0, 256, 51, dtype=np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    return _distance(cube, _through(cube, opened, SRGB)) <= 1


@lru_cache(32)
def _is_wider(profile: bytes) -> bool:
    """Whether the RGB profile holds the corners of sRGB, and sRGB does not hold all of the profile's own."""
    space, opened = _opened(profile)
    if space != b"RGB ":
        return False
    corners = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255], [0, 255, 255]]], np.uint8)
    there_and_back = _distance(corners, _through(_through(corners, SRGB, opened), opened, SRGB))
    back_and_there = _distance(corners, _through(_through(corners, opened, SRGB), SRGB, opened))
    return there_and_back <= 4 and back_and_there > 8


def _opened(profile: bytes) -> tuple[bytes, ImageCms.ImageCmsProfile]:
    """The colour space that the profile is for, four characters, and the profile."""
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return opened.profile.xcolor_space.ljust(4).encode(), opened


def _mode(space: bytes, mode: str) -> str:
    """The Pillow mode in which pixels of `mode` go through a profile for `space`."""
    grey = mode in GREY or mode.startswith("I;16")
    if space == b"GRAY" and grey:
        return "I;16" if mode.startswith(("I", "F")) else "L"
    if space == b"RGB " and mode != "CMYK" and not mode.startswith(("I", "F")):
        return "RGB"
    if (space, mode) in ((b"CMYK", "CMYK"), (b"Lab ", "LAB")):
        return mode
    raise ValueError(f"it is for {space.decode().strip()}, and the pixels are {mode}")


def _converted(image: PIL.Image.Image, mode: str) -> PIL.Image.Image:
    if mode == "I;16":
        values = np.asarray(image)
        deep = np.rint(values * 65535) if values.dtype.kind == "f" else values
        return PIL.Image.fromarray(np.clip(deep, 0, 65535).astype(np.uint16))
    return image.convert(mode)


def _grey_through(image: PIL.Image.Image, profile: ImageCms.ImageCmsProfile) -> PIL.Image.Image:
    """L or I;16 to RGB in sRGB, by a table: LittleCMS's own for grey is seven levels off in the shadows."""
    values = np.asarray(image)
    every = np.arange(np.iinfo(values.dtype).max + 1, dtype=values.dtype).reshape(-1, 256)
    transform = ImageCms.buildTransform(profile, SRGB, image.mode, "RGB", INTENT, ImageCms.Flags.NOOPTIMIZE)
    table = np.asarray(_transformed(PIL.Image.fromarray(every), transform)).reshape(-1, 3)
    return PIL.Image.fromarray(table[values])


def _transformed(image: PIL.Image.Image, transform: ImageCms.ImageCmsTransform) -> PIL.Image.Image:
    result = ImageCms.applyTransform(image, transform)
    assert result is not None  # it is with inPlace=True
    return result


def _through(pixels: np.ndarray, source: ImageCms.ImageCmsProfile, target: ImageCms.ImageCmsProfile) -> np.ndarray:
    transform = ImageCms.buildTransform(source, target, "RGB", "RGB", INTENT)
    return np.asarray(_transformed(PIL.Image.fromarray(pixels), transform))


def _distance(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other).max())
