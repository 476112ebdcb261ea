"""Everything between a user's image and the networks' tensors, N x 3 x H x W in [-1, 1], and back.

What goes in decides what comes out; height and width never change:

    in                                                                out
    path (str or os.PathLike)                                         PIL image, as below
    PIL image: 1, L, P, RGB, CMYK, YCbCr, HSV, I;16 (16-bit grey),    RGB, 8 bit
        I (values 0..65535), F (values 0..1)
    PIL image with transparency: LA, PA, RGBA, P with a key           RGBA, 8 bit, the same alpha
    NumPy H x W, H x W x 1, H x W x 3 (RGB)                           NumPy H x W x 3, the same dtype
    NumPy H x W x 4 (RGBA)                                            NumPy H x W x 4, the same dtype, the same alpha
    tensor 1 x H x W, 3 x H x W (RGB)                                 tensor 3 x H x W, the same dtype and device
    tensor 4 x H x W (RGBA)                                           tensor 4 x H x W, likewise, the same alpha
    tensor N x 1|3|4 x H x W                                          tensor N x 3|4 x H x W, likewise

Whole numbers (uint8, uint16) reach from 0 to their largest value, floats from 0 to 1. A grey image gets colours, since
a painting has them. A photo that its camera stored sideways (EXIF orientation) comes out upright. An RGB colour profile
stays with a PIL image.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from PIL import ImageOps
from torch import Tensor
from torch.nn import functional as F

from .errors import SDPGANError
from .networks import padded_size

ImageLike = PIL.Image.Image | str | os.PathLike | np.ndarray | Tensor

_WHITE = {
    torch.uint8: 255.0,
    torch.uint16: 65535.0,
    torch.float16: 1.0,
    torch.bfloat16: 1.0,
    torch.float32: 1.0,
    torch.float64: 1.0,
}
_NUMPY_DTYPES = ("uint8", "uint16", "float16", "float32", "float64")
_FLOAT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Picture:
    """A user's image, ready for the networks.

    Attributes:
        values: N x 1 or 3 x H x W, grey or RGB, as it was stored; N is 1 unless the image was a batched tensor.
        restore: takes N x 3 x H x W in [-1, 1], or whole numbers of `dtype`, to the kind of image that was read.
        dtype: that of the result.
        batched: whether the image was a batched tensor.
    """

    values: Tensor
    restore: Callable[[Tensor], Any]
    dtype: torch.dtype = torch.uint8
    batched: bool = False

    @property
    def signed(self) -> Tensor:
        """N x 3 x H x W, float32, RGB in [-1, 1]."""
        return to_signed(self.values).expand(-1, 3, -1, -1)


def to_signed(image: Tensor) -> Tensor:
    """[0, white] to float32 in [-1, 1], where white is 255 for uint8, 65535 for uint16 and 1 for floats."""
    return image.to(torch.float32) * (2 / _WHITE[image.dtype]) - 1


def from_signed(signed: Tensor, dtype: torch.dtype = torch.uint8) -> Tensor:
    """The inverse of `to_signed`: clips to [-1, 1], and rounds where `dtype` holds whole numbers, which stay."""
    if signed.dtype == dtype and not dtype.is_floating_point:
        return signed
    white = _WHITE[dtype]
    values = (signed.to(torch.float32).clamp(-1, 1) + 1) * (white / 2)
    return (values if dtype.is_floating_point else values.round()).to(dtype)


def read(image: ImageLike) -> Picture:
    """Any image of the table above to a `Picture`.

    Raises:
        SDPGANError: for what is not such an image, with the shape, dtype, value or file that is wrong.
    """
    if isinstance(image, (str, os.PathLike)):
        return _read_pil(open_image(image))
    if isinstance(image, PIL.Image.Image):
        return _read_pil(upright(image))
    if isinstance(image, np.ndarray):
        return _read_numpy(image)
    if isinstance(image, Tensor):
        return _read_tensor(image)
    raise SDPGANError(
        f"An image of type {type(image).__name__} is not supported; give a path, a PIL image, a NumPy array, "
        "a tensor, or a list of them."
    )


def open_image(path: str | os.PathLike) -> PIL.Image.Image:
    """The image file at `path`, decoded whole and upright, in the mode it is stored in.

    Raises:
        SDPGANError: if there is no such file, or it is not a whole image of a known format, or it is too large.
    """
    with _image_errors(os.fspath(path)), PIL.Image.open(path) as image:
        image.load()
        return upright(image)


def upright(image: PIL.Image.Image) -> PIL.Image.Image:
    """A decoded copy of `image`, turned and mirrored as its EXIF orientation says."""
    name = getattr(image, "filename", "") or f"The {image.mode} image"
    with _image_errors(name):
        image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # EXIF that Pillow cannot parse says nothing about the orientation; the pixels are whole
        return image.copy()


def pad(signed: Tensor) -> Tensor:
    """N x C x H x W continued at its right and bottom by reflection up to the sides that the networks take."""
    for dim in (-2, -1):
        side = signed.shape[dim]
        missing = padded_size(side) - side
        if missing:
            reflected = torch.from_numpy(np.pad(np.arange(side), (0, missing), mode="reflect"))
            signed = signed.index_select(dim, reflected.to(signed.device))
    return signed


def resize(signed: Tensor, height: int, width: int) -> Tensor:
    """N x C x H x W in [-1, 1] to N x C x `height` x `width`, bicubic, without aliasing or overshoot."""
    return F.interpolate(signed, (height, width), mode="bicubic", antialias=True).clamp(-1, 1)


def limited_size(height: int, width: int, max_size: int | None) -> tuple[int, int]:
    """(height, width) in the same proportions, the longer side at most `max_size` pixels."""
    if max_size is None or max(height, width) <= max_size:
        return height, width
    scale = max_size / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


@contextmanager
def _image_errors(name: str) -> Iterator[None]:
    try:
        yield
    except SDPGANError:
        raise
    except FileNotFoundError as error:
        raise SDPGANError(f"{name}: no such file.") from error
    except IsADirectoryError as error:
        raise SDPGANError(f"{name} is a folder; give an image file.") from error
    except PermissionError as error:
        raise SDPGANError(f"{name} may not be read: permission denied.") from error
    except PIL.UnidentifiedImageError as error:
        raise SDPGANError(f"{name} is not an image of a known format.") from error
    except PIL.Image.DecompressionBombError as error:
        raise SDPGANError(
            f"{name} has more pixels than Pillow decodes; shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS."
        ) from error
    except Exception as error:  # a broken file makes Pillow's decoders raise anything
        raise SDPGANError(f"{name} cannot be decoded; is it whole? ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _read_pil(image: PIL.Image.Image) -> Picture:
    if 0 in image.size:
        raise SDPGANError(f"The PIL image is {image.width} x {image.height} pixels; there is nothing to read.")
    values, alpha = _decode(image)
    profile = image.info.get("icc_profile", b"")

    def restore(signed: Tensor) -> PIL.Image.Image:
        result = PIL.Image.fromarray(_channels_last(from_signed(signed)[0]))
        if alpha is not None:
            result.putalpha(alpha)
        if profile[16:20] == b"RGB ":
            result.info["icc_profile"] = profile
        return result

    return Picture(_channels_first(values), restore)


def _decode(image: PIL.Image.Image) -> tuple[np.ndarray, PIL.Image.Image | None]:
    """A PIL image of any mode to H x W x 1 or 3 values and its alpha channel, if it has one."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise SDPGANError(
                f"The {image.mode} image has values from {values.min()} to {values.max()}; 16-bit grey ends at 65535."
            )
        return values.astype(np.uint16)[..., None], None
    if image.mode == "F":
        values = np.asarray(image)
        _check_floats(values.min(), values.max(), "The F image")
        return values[..., None], None
    with _image_errors(f"The {image.mode} image"):
        if image.has_transparency_data:
            straight = image.convert("LA") if image.mode == "La" else image
            rgba = straight.convert("RGBA")
            return np.asarray(rgba)[..., :3], rgba.getchannel("A")
        return np.asarray(image.convert("RGB")), None


def _read_numpy(image: np.ndarray) -> Picture:
    shape = " x ".join(map(str, image.shape))
    if not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3, 4))):
        raise SDPGANError(
            f"The NumPy image has the shape {shape or '()'}; give H x W, H x W x 1, H x W x 3 (RGB) or "
            "H x W x 4 (RGBA), channels last, or a list of such arrays."
        )
    if image.size == 0:
        raise SDPGANError(f"The NumPy image is {shape}; there is nothing to read.")
    if image.dtype.name not in _NUMPY_DTYPES:
        raise SDPGANError(f"The NumPy image is of {image.dtype.name}; give uint8, uint16, or floats in [0, 1].")
    native = image.astype(image.dtype.newbyteorder("="), copy=False)
    values = native[..., None] if native.ndim == 2 else native[..., :3]
    if values.dtype.kind == "f":
        _check_floats(values.min(), values.max(), "The NumPy image")
    alpha = image[..., 3:] if image.ndim == 3 and image.shape[2] == 4 else None
    dtype = torch.from_numpy(np.zeros(1, native.dtype)).dtype

    def restore(signed: Tensor) -> np.ndarray:
        colours = _channels_last(from_signed(signed, dtype)[0]).astype(image.dtype, copy=False)
        return colours if alpha is None else np.concatenate([colours, alpha], axis=-1, dtype=image.dtype)

    return Picture(_channels_first(values), restore, dtype)


def _read_tensor(image: Tensor) -> Picture:
    shape = " x ".join(map(str, image.shape))
    if image.ndim not in (3, 4) or image.shape[-3] not in (1, 3, 4):
        raise SDPGANError(
            f"The tensor has the shape {shape or '()'}; give C x H x W or N x C x H x W, channels first, "
            "with 1 (grey), 3 (RGB) or 4 (RGBA) channels."
        )
    if image.numel() == 0:
        raise SDPGANError(f"The tensor is {shape}; there is nothing to read.")
    if image.dtype not in _WHITE:
        raise SDPGANError(f"The tensor is of {image.dtype}; give uint8, uint16, or floats in [0, 1].")
    batch = image.detach() if image.ndim == 4 else image.detach()[None]
    colours, alpha = batch[:, :3], batch[:, 3:]
    if image.dtype.is_floating_point:
        _check_floats(colours.min().item(), colours.max().item(), "The tensor")

    def restore(signed: Tensor) -> Tensor:
        values = from_signed(signed, image.dtype).to(image.device)
        result = torch.cat([values, alpha], dim=1) if alpha.shape[1] else values
        return result if image.ndim == 4 else result[0]

    return Picture(colours, restore, image.dtype, batched=image.ndim == 4)


def _check_floats(lowest: float, highest: float, name: str) -> None:
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise SDPGANError(f"{name} holds NaN or infinite values.")
    if lowest < -_FLOAT_TOLERANCE or highest > 1 + _FLOAT_TOLERANCE:
        raise SDPGANError(
            f"{name} has floats from {lowest:.4g} to {highest:.4g}; scale or clip them to [0, 1], or give uint8."
        )


def _channels_first(values: np.ndarray) -> Tensor:
    """H x W x 1 or 3 values to 1 x 1 or 3 x H x W."""
    return torch.from_numpy(np.array(values.transpose(2, 0, 1), order="C"))[None]


def _channels_last(image: Tensor) -> np.ndarray:
    return np.ascontiguousarray(image.cpu().numpy().transpose(1, 2, 0))
