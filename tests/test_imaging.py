"""Every kind of image goes in and comes out as `sdpgan_hub.imaging` promises, and what is no image is refused."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
import torch
from assertions import refusal
from PIL import ImageOps
from test_color import P3

from sdpgan_hub import color, imaging

ORIENTATION = 0x0112


def back_and_forth(image):
    picture = imaging.read(image)
    return picture.restore(picture.signed)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_from_signed_inverts_to_signed_on_every_whole_value(dtype):
    values = torch.arange(torch.iinfo(dtype).max + 1, dtype=torch.int64).to(dtype)
    signed = imaging.to_signed(values)
    assert signed.dtype == torch.float32
    assert (signed[0], signed[-1]) == (-1, 1)
    assert torch.equal(imaging.from_signed(signed, dtype), values)


def test_to_signed_inverts_from_signed_on_floats():
    signed = torch.linspace(-1, 1, 1001)
    torch.testing.assert_close(imaging.to_signed(imaging.from_signed(signed, torch.float32)), signed, atol=1e-6, rtol=0)


def test_from_signed_clips_to_the_range_and_rounds_to_the_nearest():
    signed = torch.tensor([-1.5, 0.4 / 127.5, 0.6 / 127.5, 1.5])
    assert imaging.from_signed(signed).tolist() == [0, 128, 128, 255]
    assert imaging.from_signed(imaging.to_signed(torch.tensor(7, dtype=torch.uint8)) + 0.4 / 127.5) == 7
    assert imaging.from_signed(imaging.to_signed(torch.tensor(7, dtype=torch.uint8)) + 0.6 / 127.5) == 8


def test_signed_is_rgb_channels_first(photo):
    signed = imaging.read(photo).signed
    assert signed.shape == (1, 3, 61, 44)
    np.testing.assert_allclose(signed[0, :, 5, 9].numpy(), photo[5, 9] / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "float16", "float32", "float64"])
def test_numpy_rgb_and_rgba_come_back_exactly_with_their_dtype(photo, dtype):
    scale = 257 if dtype.endswith(("16", "u2")) and "f" not in dtype else 1
    for channels in (3, 4):
        image = np.dstack([photo, photo[..., 1] | 128])[..., :channels].astype(np.float64)
        image = (image / 255 if "float" in dtype else image * scale).astype(dtype)
        result = back_and_forth(image)
        assert result.dtype == image.dtype and result.flags.c_contiguous
        tolerance = 1e-6 if "float" in dtype else 0
        np.testing.assert_allclose(result.astype(np.float64), image.astype(np.float64), atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 9, 5), (4, 9, 5), (2, 3, 9, 5), (2, 4, 9, 5)])
def test_tensors_come_back_exactly_with_their_dtype_and_shape(dtype, shape):
    image = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image[..., 3:, :, :] |= 128  # what is seen less takes on its neighbours' colours
    image = (image / 255).to(dtype) if dtype.is_floating_point else image
    result = back_and_forth(image)
    assert result.dtype == dtype and result.shape == image.shape
    torch.testing.assert_close(result, image, atol=1e-6 if dtype.is_floating_point else 0, rtol=0)


def test_numpy_and_tensor_alpha_is_kept_bit_by_bit():
    alpha = np.array([[0.1, np.nextafter(0.3, 1)], [1e-9, 1.0]])
    image = np.dstack([np.full((2, 2, 3), 0.5), alpha])
    np.testing.assert_array_equal(back_and_forth(image)[..., 3], alpha)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    assert torch.equal(back_and_forth(tensor)[3], torch.from_numpy(alpha))


def test_a_grey_image_is_read_as_three_equal_channels(photo):
    grey = photo[..., 0]
    for array in (grey, grey[..., None]):
        np.testing.assert_array_equal(back_and_forth(array), np.dstack([grey] * 3))
    tensor = torch.from_numpy(grey.copy())[None]
    assert torch.equal(back_and_forth(tensor), tensor.expand(3, -1, -1))


def test_arrays_that_are_read_only_or_strided_or_mirrored_are_read(photo):
    frozen = photo.copy()
    frozen.flags.writeable = False
    for image in (frozen, photo[::2, ::3], photo[::-1, ::-1], np.asfortranarray(photo), photo[..., ::-1]):
        np.testing.assert_array_equal(back_and_forth(image), image)


def test_the_input_is_never_changed(photo):
    image, tensor = photo.copy(), torch.from_numpy(photo / 255).permute(2, 0, 1).float()
    before = tensor.clone()
    imaging.read(image).signed.mul_(0)
    imaging.read(tensor).signed.mul_(0)
    np.testing.assert_array_equal(image, photo)
    assert torch.equal(tensor, before)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "LA", "PA", "RGBA"])
def test_a_pil_image_comes_back_as_what_pillow_makes_rgb_of_it_with_the_same_alpha(photo, mode):
    kind = "RGBA" if "A" in mode else "RGB"
    image = PIL.Image.fromarray(np.dstack([photo, ~photo[..., 0] | 128])).convert(kind).convert(mode)
    result = back_and_forth(image)
    assert result.mode == kind and result.size == image.size
    np.testing.assert_array_equal(np.asarray(result), np.asarray(image.convert(kind)))


@pytest.mark.parametrize(("straight", "premultiplied"), [("RGBA", "RGBa"), ("LA", "La")])
def test_premultiplied_alpha_is_kept(photo, straight, premultiplied):
    image = PIL.Image.fromarray(np.dstack([photo, photo[..., 0] | 128])).convert(straight).convert(premultiplied)
    result = back_and_forth(image)
    assert result.mode == "RGBA"
    np.testing.assert_array_equal(np.asarray(result.getchannel("A")), np.asarray(image.getchannel("a")))


def test_a_palette_with_a_transparent_colour_comes_back_as_rgba(photo):
    image = PIL.Image.fromarray(photo).quantize(8)
    image.info["transparency"] = 3
    alpha = np.where(np.asarray(image) == 3, 0, 255)
    assert 0 < (alpha == 0).mean() < 1
    np.testing.assert_array_equal(np.asarray(back_and_forth(image))[..., 3], alpha)


@pytest.mark.parametrize(
    ("depth", "colours", "row", "key"),
    [(2, 1, b"\x1b", (1,)), (4, 1, b"\x01\x23", (1,)), (8, 1, b"\x00\x01\x02\x03", (1,)),
     (16, 1, b"\x12\x34\x12\x35\x00\x00\xff\xff", (0x1235,)),
     (16, 3, b"\0\1\0\2\0\3\x12\x34\x56\x78\x9a\xbc" + bytes(12), (0x1234, 0x5678, 0x9ABC))],
)  # fmt: skip
def test_a_png_with_a_transparent_colour_is_read_with_it_at_every_depth(tmp_path, depth, colours, row, key):
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 4, 1, depth, 0 if colours == 1 else 2, 0, 0, 0)
    chunks = {
        "IHDR": header,
        "tRNS": struct.pack(f">{colours}H", *key),
        "IDAT": zlib.compress(b"\0" + row),
        "IEND": b"",
    }
    content = b"".join(chunk(name.encode(), content) for name, content in chunks.items())
    (tmp_path / "one.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    result = back_and_forth(tmp_path / "one.png")
    assert result.mode == "RGBA" and np.asarray(result)[0, :, 3].tolist() == [255, 0, 255, 255]


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_sixteen_bit_grey_comes_back_as_rgb_of_eight_bits(mode):
    values = (np.arange(256) * 257 + 100).clip(max=65535).astype(np.uint16).reshape(16, 16)  # two bytes that differ
    image = PIL.Image.fromarray(values.astype(np.int32) if mode == "I" else values)
    if mode == "I;16B":
        image = PIL.Image.frombytes("I;16B", (16, 16), values.astype(">u2").tobytes())
    result = back_and_forth(image)
    assert image.mode == mode and result.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(result), np.arange(256).reshape(16, 16, 1).repeat(3, axis=2))


def test_a_float_pil_image_in_unit_range_is_read():
    values = (np.arange(256, dtype=np.float32) / 255).reshape(16, 16)
    result = back_and_forth(PIL.Image.fromarray(values))
    np.testing.assert_array_equal(np.asarray(result)[..., 1].ravel(), np.arange(256))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_stored_sideways_comes_out_upright(photo, tmp_path, orientation):
    path = tmp_path / "photo.png"
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = orientation
    PIL.Image.fromarray(photo).save(path, exif=exif)
    expected = ImageOps.exif_transpose(PIL.Image.open(path))
    for image in (path, str(path), PIL.Image.open(path)):
        result = back_and_forth(image)
        assert ORIENTATION not in result.getexif()
        np.testing.assert_array_equal(np.asarray(result), np.asarray(expected))
    assert expected.size == ((61, 44) if orientation > 4 else (44, 61))


def test_an_unreadable_exif_block_does_not_hide_whole_pixels(photo):
    image = PIL.Image.fromarray(photo)
    image.info["exif"] = b"Exif\x00\x00no TIFF header"
    np.testing.assert_array_equal(np.asarray(back_and_forth(image)), photo)


def test_a_profile_is_applied_and_the_result_is_in_srgb(photo):
    """What each profile does is tested in test_color.py."""
    image = PIL.Image.fromarray(photo)
    image.info["icc_profile"] = P3
    result = back_and_forth(image)
    expected = color.to_srgb(image, "")
    assert np.abs(np.asarray(expected).astype(int) - photo).mean() > 3
    np.testing.assert_array_equal(np.asarray(result), np.asarray(expected))
    assert "icc_profile" not in result.info


def hidden(photo: np.ndarray, colour: int, haze: int = 0) -> np.ndarray:
    """The photo cut out to its middle, uint8 H x W x 4, with some colour under what is cut away, seen by `haze`."""
    image = np.dstack([photo, np.full(photo.shape[:2], 255, np.uint8)])
    image[:20, :, :3], image[:20, :, 3] = colour, haze
    image[:, 30:, :3], image[:, 30:, 3] = colour, haze
    return image


@pytest.mark.parametrize("haze", [0, 1])
@pytest.mark.parametrize(
    "make",
    [
        PIL.Image.fromarray,
        lambda image: image,
        lambda image: image.astype(np.uint16) * 257,
        lambda image: torch.from_numpy(image / 255).permute(2, 0, 1),
        lambda image: torch.from_numpy(image).permute(2, 0, 1)[None].repeat(2, 1, 1, 1),
    ],
)
def test_what_is_hidden_under_transparency_never_reaches_the_network(photo, make, haze):
    black, white = (imaging.read(make(hidden(photo, colour, haze))).signed for colour in (0, 255))
    assert (black - white).abs().max() <= 2.1 * 2 / 255 * haze
    assert black.shape[-3:] == (3, 61, 44)


def test_what_is_hidden_is_filled_with_the_nearest_colour_that_is_seen(photo):
    filled = imaging.read(hidden(photo, 0)).signed
    expected = imaging.read(photo).signed
    assert torch.equal(filled[..., 20:, :30], expected[..., 20:, :30])
    for (y, x), (near_y, near_x) in (((5, 7), (20, 7)), ((40, 43), (40, 29)), ((0, 43), (20, 29))):
        assert torch.equal(filled[0, :, y, x], expected[0, :, near_y, near_x])


def test_a_picture_that_is_transparent_all_over_is_read(photo):
    nothing = np.dstack([photo, np.zeros_like(photo[..., 0])])
    assert (imaging.read(nothing).signed == 1).all()
    faint = np.dstack([photo, np.full_like(photo[..., 0], 40)])
    torch.testing.assert_close(imaging.read(faint).signed, imaging.read(photo).signed)


def test_limited_size_bounds_the_longer_side_and_keeps_the_proportions():
    assert imaging.limited_size(3000, 4000, 1000) == (750, 1000)
    assert imaging.limited_size(300, 400, 1000) == (300, 400)
    assert imaging.limited_size(300, 400, None) == (300, 400)
    assert imaging.limited_size(1, 100000, 100) == (1, 100)


@pytest.mark.parametrize(
    ("image", "named"),
    [
        (np.zeros((3, 8, 9), np.uint8), "3 x 8 x 9"),
        (np.zeros((2, 8, 9, 3), np.uint8), "2 x 8 x 9 x 3"),
        (np.zeros((8, 9, 2), np.uint8), "8 x 9 x 2"),
        (np.zeros(5, np.uint8), "shape 5"),
        (np.array(3, np.uint8), "()"),
        (np.zeros((0, 9, 3), np.uint8), "0 x 9 x 3"),
        (np.zeros((8, 9, 3), np.int64), "int64"),
        (np.zeros((8, 9, 3), bool), "bool"),
        (np.zeros((8, 9, 3), complex), "complex128"),
        (np.zeros((8, 9, 3), object), "object"),
        (np.full((8, 9, 3), np.nan), "NaN"),
        (np.full((8, 9, 3), np.inf), "infinite"),
        (np.full((8, 9, 3), 255.0), "255"),
        (np.full((8, 9, 3), -0.5, np.float32), "-0.5"),
        (torch.zeros(8, 9, 3), "8 x 9 x 3"),
        (torch.zeros(8, 9), "8 x 9"),
        (torch.zeros(1, 2, 3, 8, 9), "1 x 2 x 3 x 8 x 9"),
        (torch.zeros(0, 3, 8, 9), "0 x 3 x 8 x 9"),
        (torch.zeros(3, 0, 9), "3 x 0 x 9"),
        (torch.zeros(3, 8, 9, dtype=torch.int64), "int64"),
        (torch.full((3, 8, 9), -1.0), "-1"),
        (torch.full((3, 8, 9), float("nan")), "NaN"),
        (PIL.Image.new("RGB", (0, 4)), "0 x 4"),
        (PIL.Image.fromarray(np.full((4, 4), 70000, np.int32)), "70000"),
        (PIL.Image.fromarray(np.full((4, 4), 255, np.float32)), "255"),
        (b"bytes", "bytes"),
        (None, "NoneType"),
        (3, "int"),
    ],
)
def test_what_is_no_image_is_refused_in_one_sentence_that_names_the_fault(image, named):
    refusal(lambda: imaging.read(image), named)


def test_floats_a_rounding_error_outside_the_unit_range_are_clipped():
    image = np.full((4, 4, 3), 1 + 1e-6)
    np.testing.assert_array_equal(back_and_forth(image), 1)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("absent.png", None, "no such file"),
        ("notes.txt", b"no image at all", "known format"),
        ("empty.png", b"", "known format"),
        ("cut.png", "half of a photo", "whole"),
        ("", None, "is a folder"),
    ],
)
def test_what_is_no_whole_image_file_is_refused_by_name(tmp_path, photo, name, content, named):
    path = tmp_path / name
    if content == "half of a photo":
        PIL.Image.fromarray(photo).save(path)
        content = path.read_bytes()[: path.stat().st_size // 2]
    if content is not None:
        path.write_bytes(content)
    refusal(lambda: imaging.read(path), path, named)


def test_a_lazily_opened_image_that_is_cut_short_is_refused(tmp_path, photo):
    path = tmp_path / "cut.png"
    PIL.Image.fromarray(photo).save(path)
    image = PIL.Image.open(io.BytesIO(path.read_bytes()[: path.stat().st_size // 2]))
    refusal(lambda: imaging.read(image), "cannot be decoded")


def test_a_decompression_bomb_is_refused_by_name(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    PIL.Image.new("1", (300, 300)).save(path)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1000)
    refusal(lambda: imaging.read(path), path, "more pixels than Pillow decodes")
