"""From people's images to what the networks make of them: read, resize, pad, run, restore."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from . import imaging
from .errors import SDPGANError
from .imaging import ImageLike, Picture
from .networks import MIN_SIZE

if TYPE_CHECKING:
    from .model import SDPGAN

BATCH_PIXELS = 512 * 512
"""Images of one size share a batch up to this many pixels; a larger image is a batch of its own."""


def saliency_array(picture: Picture, signed: Tensor) -> np.ndarray:
    """S's map, N x 1 x H x W in [-1, 1], as people get it: H x W in [0, 1], or N x H x W for a batched tensor."""
    maps = imaging.from_signed(signed, torch.float32)[:, 0].cpu().numpy()
    return maps if picture.batched else maps[0]


def run(
    model: SDPGAN,
    network: Callable[[Tensor], tuple[Tensor, ...]],
    image: ImageLike | Sequence[ImageLike],
    max_size: int | None,
) -> Iterator[tuple[Picture, tuple[Tensor, ...]]]:
    """Each image and what `network` makes of it, at the image's size; runs of images of one size as batches."""
    if max_size is not None and (not isinstance(max_size, int) or max_size < MIN_SIZE):
        raise SDPGANError(f"max_size is {max_size!r}; give a whole number of pixels from {MIN_SIZE} up, or None.")
    waiting: list[Picture] = []
    for picture in _read_each(image):
        if waiting and not _share_a_batch(waiting, picture):
            yield from _run_batch(model, network, waiting, max_size)
            waiting = []
        waiting.append(picture)
    if waiting:
        yield from _run_batch(model, network, waiting, max_size)


def _run_batch(
    model: SDPGAN, network: Callable[[Tensor], tuple[Tensor, ...]], pictures: list[Picture], max_size: int | None
) -> Iterator[tuple[Picture, tuple[Tensor, ...]]]:
    signed = torch.cat([picture.signed.to(model.device) for picture in pictures])
    pixels = signed.shape[-2] * signed.shape[-1]
    chunks = [_infer(model, network, chunk, max_size) for chunk in signed.split(max(1, BATCH_PIXELS // pixels))]
    outputs = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    counts = [len(picture.signed) for picture in pictures]
    each = zip(*(output.split(counts) for output in outputs), strict=True)
    return zip(pictures, each, strict=True)


@torch.inference_mode()
def _infer(
    model: SDPGAN, network: Callable[[Tensor], tuple[Tensor, ...]], signed: Tensor, max_size: int | None
) -> tuple[Tensor, ...]:
    """N x 3 x H x W of any size to the outputs of `network`, float32 at that size."""
    size = signed.shape[-2:]
    working = imaging.limited_size(*size, max_size)
    x = signed if working == tuple(size) else imaging.resize(signed, *working)
    x = imaging.pad(x).to(next(model.parameters()).dtype)
    try:
        outputs = [output[..., : working[0], : working[1]].float() for output in network(x)]
    except RuntimeError as error:
        if not _ran_out_of_memory(error):
            raise
        raise SDPGANError(
            f"An image of {size[1]} x {size[0]} pixels needs more memory than {model.device} has; give max_size=, "
            "such as 1024."
        ) from error
    if not all(torch.isfinite(output).all() for output in outputs):
        raise SDPGANError(f"The model gave values that are not finite in {x.dtype}; use torch.float32 or bfloat16.")
    return tuple(output if working == tuple(size) else imaging.resize(output, *size) for output in outputs)


def _read_each(image: ImageLike | Sequence[ImageLike]) -> Iterator[Picture]:
    if not isinstance(image, (list, tuple)):
        yield imaging.read(image)
        return
    for number, item in enumerate(image, start=1):
        try:
            yield imaging.read(item)
        except SDPGANError as error:
            raise SDPGANError(f"Image {number} of {len(image)}: {error}") from error


def _share_a_batch(waiting: list[Picture], picture: Picture) -> bool:
    count = sum(len(other.signed) for other in waiting) + len(picture.signed)
    height, width = picture.signed.shape[-2:]
    return waiting[0].signed.shape[-2:] == (height, width) and count * height * width <= BATCH_PIXELS


def _ran_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.cuda.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
