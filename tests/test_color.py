"""sdpgan_hub/color.py: pixels of every profile come to sRGB, and go back where the profile holds more."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from sdpgan_hub import color
from sdpgan_hub.errors import SDPGANWarning

pytestmark = pytest.mark.filterwarnings("error")
PROFILES = Path(__file__).parent / "profiles"
P3 = (PROFILES / "display_p3.icc").read_bytes()
LINEAR_GREY = (PROFILES / "linear_grey.icc").read_bytes()
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def narrower(share: float, of: bytes = P3) -> bytes:
    """Display P3, or another RGB profile, with its three colours moved towards grey, by `share` of the way."""
    profile = bytearray(of)
    tags = {bytes(profile[at : at + 4]): int.from_bytes(profile[at + 4 : at + 8], "big") for at in range(132, 300, 12)}
    places = [slice(tags[name] + 8, tags[name] + 20) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
    colours = np.array([np.frombuffer(bytes(profile[place]), ">i4") for place in places])
    moved = colours + share * (colours.mean(axis=0) - colours)
    for place, colour in zip(places, moved, strict=True):
        profile[place] = np.rint(colour).astype(">i4").tobytes()
    return bytes(profile)


def cube() -> np.ndarray:
    """Colours over all of RGB, uint8 12 x 18 x 3."""
    steps = np.linspace(0, 255, 6).astype(np.uint8)
    return np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(12, 18, 3)


def image_of(values: np.ndarray, profile: bytes | None, mode: str | None = None) -> Image.Image:
    image = Image.fromarray(values)
    image = image.convert(mode) if mode else image
    image.info["icc_profile"] = profile
    return image


def distance(one: Image.Image | np.ndarray, other: Image.Image | np.ndarray) -> np.ndarray:
    return np.abs(np.asarray(one).astype(int) - np.asarray(other))


def test_a_p3_copy_of_srgb_colours_comes_back_to_them():
    known = Image.fromarray(cube())
    there = ImageCms.profileToProfile(known, color.SRGB, ImageCms.ImageCmsProfile(io.BytesIO(P3)))
    there.info["icc_profile"] = P3
    assert distance(there, known).mean() > 5
    assert distance(color.to_srgb(there, "a"), known).mean() < 0.5


def test_grey_goes_through_its_own_profile_with_8_bits_16_bits_and_floats():
    """The profile's gamma is 1, so half of the light is 128 in it and 188 in sRGB."""
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    light = np.arange(256) / 255
    encoded = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * 255
    for values in (grey, grey.astype(np.uint16) * 257, grey.astype(np.int32) * 257, (grey / 255).astype(np.float32)):
        result = color.to_srgb(image_of(values, LINEAR_GREY), "a")
        assert result.mode == "RGB"
        assert np.abs(np.asarray(result) - encoded.reshape(16, 16, 1)).max() < 0.6


@pytest.mark.parametrize("mode", ["L", "1", "P", "YCbCr", "HSV", "RGBA", "RGBX"])
def test_an_rgb_profile_holds_for_every_way_of_storing_rgb(mode):
    image = image_of(cube(), P3, mode)
    expected = color.to_srgb(image_of(np.asarray(image.convert("RGB")), P3), "a")
    assert distance(color.to_srgb(image, "a"), expected).max() == 0


def test_lab_needs_no_profile():
    to_lab = ImageCms.buildTransform(color.SRGB, ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(Image.fromarray(cube()), to_lab)
    result = color.to_srgb(lab, "a")
    assert result.mode == "RGB" and distance(result, cube()).mean() < 3


def test_a_press_profile_is_applied(cases):
    """cmyk_profile.jpg is srgb.png in print, whose ink holds fewer colours; without its profile it is far off."""
    with Image.open(cases / "cmyk_profile.jpg") as image, Image.open(cases / "srgb.png") as screen:
        managed, plain = color.to_srgb(image, "a"), image.convert("RGB")
        assert distance(managed, screen).mean() < 0.6 * distance(plain, screen).mean()


def test_srgb_is_known_by_what_it_does_and_nothing_is_changed_for_it():
    image = image_of(cube(), SRGB)
    assert color.to_srgb(image, "a") is image
    assert color.from_srgb(image, SRGB) == (image, SRGB)
    assert color.is_srgb(SRGB) and not color.is_srgb(LINEAR_GREY)
    assert not any(map(color.is_srgb, (P3, narrower(0.1), narrower(0.2), narrower(0.4))))


def test_a_profile_that_differs_from_srgb_by_a_level_is_srgb_and_by_two_is_not():
    known, differences = Image.fromarray(cube()), set()
    for share in np.linspace(0, 0.002, 21):
        profile = narrower(share, SRGB)
        shown = ImageCms.profileToProfile(known, ImageCms.ImageCmsProfile(io.BytesIO(profile)), color.SRGB)
        difference = distance(shown, known).max()
        differences.add(int(difference))
        assert color.is_srgb(profile) == (difference <= 1)
    assert {0, 1, 2, 3} <= differences


@pytest.mark.parametrize(
    ("profile", "mode", "named"),
    [
        (bytes(200), None, "cannot open profile"),
        (b"no profile", None, "cannot open profile"),
        (P3[: len(P3) // 2], None, "a.jpg"),
        (LINEAR_GREY, None, "GRAY"),
        (P3, "CMYK", "CMYK"),
    ],
)
def test_a_profile_that_is_broken_or_for_other_pixels_is_ignored_and_said(profile, mode, named):
    image = image_of(cube(), profile, mode)
    with pytest.warns(SDPGANWarning, match=r"a\.jpg has a colour profile that cannot be used") as said:
        assert color.to_srgb(image, "a.jpg") is image
    assert len(said) == 1 and named in str(said[0].message)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_result_goes_back_to_a_wider_profile_which_is_embedded(mode):
    known = Image.fromarray(cube()).convert(mode)
    result, profile = color.from_srgb(known, P3)
    assert profile == P3 and result.mode == mode
    assert distance(result, known)[..., :3].mean() > 5
    result.info["icc_profile"] = P3
    assert distance(color.to_srgb(result, "a"), known.convert("RGB")).mean() < 0.5


@pytest.mark.parametrize("profile", [None, b"", LINEAR_GREY, b"no profile", bytes(200), narrower(0.4)])
def test_a_result_stays_in_srgb_without_a_wider_profile(profile):
    known = Image.fromarray(cube())
    assert color.from_srgb(known, profile) == (known, None)
