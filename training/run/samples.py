"""Sheets of samples: photos, what becomes of them, and saliency maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from sdpgan_hub import SDPGAN

from ..data import pictures


def squares_of(photos: Sequence[Path], size: int, columns: int = 8) -> list[np.ndarray]:
    """The middles of `columns` of the photos, at even distances, uint8 size x size x 3.

    Raises:
        SDPGANError: one of them cannot be read.
    """
    paths = photos[:: max(1, len(photos) // columns)][:columns]
    return [pictures.centre_square(pictures.read_scaled(path, size)) for path in paths]


@torch.no_grad()
def sheet(model: SDPGAN, photos: Sequence[Path], size: int, columns: int = 8) -> np.ndarray:
    """uint8 H x W x 3: columns are photos; rows the photo, the result and the saliency map where there is one."""
    squares = squares_of(photos, size, columns)
    training = model.training
    model.eval()
    if model.saliency_network is None:
        cells = squares + [model.stylize(photo) for photo in squares]
    else:
        results, maps = zip(*(model.stylize(photo, return_saliency=True) for photo in squares), strict=True)
        greys = (np.round(map_ * 255).astype(np.uint8) for map_ in maps)
        cells = [*squares, *results, *(np.repeat(grey[..., None], 3, axis=2) for grey in greys)]
    model.train(training)
    return pictures.contact_sheet(cells, len(squares))
