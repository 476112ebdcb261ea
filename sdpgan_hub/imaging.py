"""Everything between a user's image and the networks' tensors, N x 3 x H x W in [-1, 1], and back.

What goes in decides what comes out; height and width never change:

    in                                                                out
    path (str or os.PathLike): the first frame or page of the file    PIL image, as below
    PIL image, at the frame it is at: 1, L, P, RGB, CMYK, YCbCr,      RGB, 8 bit, sRGB
        HSV, LAB, I;16 (16-bit grey), I (0..65535), F (0..1)
    PIL image with transparency: LA, PA, RGBA, P with a key           RGBA, 8 bit, sRGB, the same alpha
    NumPy H x W, H x W x 1, H x W x 3 (RGB)                           NumPy H x W x 3, the same dtype
    NumPy H x W x 4 (RGBA)                                            NumPy H x W x 4, the same dtype, the same alpha
    tensor 1 x H x W, 3 x H x W (RGB)                                 tensor 3 x H x W, the same dtype and device
    tensor 4 x H x W (RGBA)                                           tensor 4 x H x W, likewise, the same alpha
    tensor N x 1|3|4 x H x W                                          tensor N x 3|4 x H x W, likewise

Whole numbers (uint8, uint16) reach from 0 to their largest value, floats from 0 to 1. A grey image gets colours, since
a painting has them. A photo that its camera stored sideways (EXIF orientation) comes out upright. The colour profile of
a file or PIL image is applied, so the networks see sRGB, and so is what comes out. What lies hidden under transparent
pixels is not looked at. A file of several frames or pages gives its first with an SDPGANWarning; for the others, open
it with Pillow and seek, or use the command line, which paints them all. Files are opened by `sdpgan_hub.files`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import PIL.Image
import torch
from torch import Tensor

from .errors import SDPGANError
from .files import check_floats, open_image, pixels, upright

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


@dataclass(frozen=True)
class Picture:
    """A user's image, ready for the networks.

    Attributes:
        values: N x 1 or 3 x H x W, grey or RGB, as it was stored; N is 1 unless the image was a batched tensor.
        restore: takes N x 3 x H x W in [-1, 1], or whole numbers of `dtype`, to the kind of image that was read.
        dtype: that of the result.
        batched: whether the image was a batched tensor.
        alpha: how much of each pixel is seen, N x 1 x H x W, to the white of its own dtype; None: all of each.
    """

    values: Tensor
    restore: Callable[[Tensor], Any]
    dtype: torch.dtype = torch.uint8
    batched: bool = False
    alpha: Tensor | None = None

    @property
    def mask(self) -> Tensor:
        """`values` as a mask has them: where some are transparent, laid on black, N x 1 or 3 x H x W in [0, 1]."""
        if self.alpha is None:
            return self.values
        return (to_signed(self.values) + 1) / 2 * ((to_signed(self.alpha) + 1) / 2)

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

    Warns (SDPGANWarning) of a file of several pictures, a JPEG short of its last bytes and a broken colour profile.

    Raises:
        SDPGANError: for what is not such an image, with the shape, dtype, value or file that is wrong.
    """
    if isinstance(image, (str, os.PathLike)):
        return _read_pil(open_image(image), os.fspath(image))
    if isinstance(image, PIL.Image.Image):
        name = getattr(image, "filename", "") or f"The {image.mode} image"
        return _read_pil(upright(image, name), name)
    if isinstance(image, np.ndarray):
        return _read_numpy(image)
    if isinstance(image, Tensor):
        return _read_tensor(image)
    raise SDPGANError(
        f"An image of type {type(image).__name__} is not supported; give a path, a PIL image, a NumPy array, "
        "a tensor, or a list of them."
    )


def limited_size(height: int, width: int, max_size: int | None) -> tuple[int, int]:
    """(height, width) in the same proportions, the longer side at most `max_size` pixels."""
    if max_size is None or max(height, width) <= max_size:
        return height, width
    scale = max_size / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _read_pil(image: PIL.Image.Image, name: str) -> Picture:
    if 0 in image.size:
        raise SDPGANError(f"The PIL image is {image.width} x {image.height} pixels; there is nothing to read.")
    values, alpha = pixels(image, name)

    def restore(signed: Tensor) -> PIL.Image.Image:
        result = PIL.Image.fromarray(channels_last(from_signed(signed)[0]))
        if alpha is not None:
            result.putalpha(PIL.Image.fromarray(alpha))
        return result

    stored = channels_first(values)
    if alpha is None:
        return Picture(stored, restore)
    seen = torch.tensor(alpha)
    return Picture(_without_hidden(stored, seen), restore, alpha=seen[None, None])


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
    picture = _read_tensor(channels_first(native[..., None] if image.ndim == 2 else native)[0], "The NumPy image")

    def restore(signed: Tensor) -> np.ndarray:
        return channels_last(picture.restore(signed)).astype(image.dtype, copy=False)

    return replace(picture, restore=restore)


def _read_tensor(image: Tensor, name: str = "The tensor") -> Picture:
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
        check_floats(colours.min().item(), colours.max().item(), name)

    def restore(signed: Tensor) -> Tensor:
        values = from_signed(signed, image.dtype).to(image.device)
        result = torch.cat([values, alpha], dim=1) if alpha.shape[1] else values
        return result if image.ndim == 4 else result[0]

    if alpha.shape[1]:
        each = zip(colours.split(1), alpha[:, 0], strict=True)
        colours = torch.cat([_without_hidden(one, its_alpha) for one, its_alpha in each])
    return Picture(colours, restore, image.dtype, image.ndim == 4, alpha if alpha.shape[1] else None)


def _without_hidden(values: Tensor, alpha: Tensor) -> Tensor:
    """1 x C x H x W as it looks; alpha, H x W, says how much of each pixel is seen, and neither is in [-1, 1] yet.

    A pixel below half of the largest alpha takes as much of the colour of the nearest one above as it is transparent,
    so that what cannot be seen has no say in the painting; all others stay as they are.
    """
    seen = np.nan_to_num((to_signed(alpha).cpu().numpy() + 1) / 2).clip(0, 1)
    if seen.min() == 1:
        return values
    signed = to_signed(values)
    if seen.max() == 0:
        return from_signed(torch.ones_like(signed), values.dtype)
    share = np.minimum(1, seen / (seen.max() / 2))
    _, nearest = cv2.distanceTransformWithLabels(
        (share < 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    place = np.zeros(nearest.max() + 1, np.int64)
    place[nearest[share == 1]] = np.flatnonzero(share == 1)
    fill = signed.flatten(2)[..., torch.from_numpy(place[nearest].ravel()).to(signed.device)].view_as(signed)
    return from_signed(torch.lerp(fill, signed, torch.from_numpy(share).to(signed)), values.dtype)


def channels_first(values: np.ndarray) -> Tensor:
    """H x W x C values to 1 x C x H x W."""
    return torch.from_numpy(np.array(values.transpose(2, 0, 1), order="C"))[None]


def channels_last(image: Tensor) -> np.ndarray:
    """The inverse of `channels_first`, of one image: C x H x W to H x W x C."""
    return np.ascontiguousarray(image.cpu().numpy().transpose(1, 2, 0))
