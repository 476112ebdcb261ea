"""Artifacts: checkerboards, grain in flat areas, bands along the border, constant outputs, unexplained colours.

Images are uint8 H x W x 3, RGB, of at least `MIN_SIDE` pixels a side.
"""

from __future__ import annotations

import cv2
import numpy as np
from skimage.color import deltaE_ciede2000, rgb2lab

TILE = 64
"""Side of the windows whose spectra are averaged, in pixels; harmonics of 2 and 4 px lie on its bins."""
MIN_SIDE = TILE
NEIGHBOURS = (-6, -5, -4, -3, 3, 4, 5, 6)
"""Bins beside a harmonic that say what power to expect there; a Hann window leaks one bin."""
BORDER = 16
"""Width of the border, in pixels."""
STROKE = 2.0
"""Standard deviation in pixels of the Gaussian that takes brush strokes out before colours are compared."""
FLAT = 2.0
"""Standard deviation of the luminance, of 255 levels, below which a neighbourhood is flat."""
CONSTANT = 5.0
"""Standard deviation of the luminance, of 255 levels, below which an image is near constant."""
GRID = 16
"""Colours are compared in GRID x GRID cells an image."""
_WINDOW = np.outer(np.hanning(TILE + 1)[:TILE], np.hanning(TILE + 1)[:TILE])


def checkerboard(image: np.ndarray) -> dict[str, float]:
    """{"2px", "4px"}: the power at these periods over that of the neighbouring frequencies, 1 is none; "levels": the
    root mean square of the pattern in grey levels of 255, by which it is seen or not.

    The spectrum is the mean of Hann-windowed tiles over the image and its channels, plus that of rounding to 8 bits.
    A transposed convolution of stride 2 whose kernel overlaps unevenly leaves power where both frequencies are
    multiples of 1/2, two of them of 1/4; so does JPEG, a little: compare with the photos. Each such frequency is
    divided by the geometric mean of its neighbours along the axes on which it is not 0, and a period has the mean over
    its frequencies.
    """
    power = _spectrum(image)
    quarter = TILE // 4
    ratios: dict[str, list[float]] = {"2px": [], "4px": []}
    excess = 0.0
    for row in range(0, TILE, quarter):
        for column in range(0, TILE, quarter):
            if row == column == 0:
                continue
            around = [power[(row + step) % TILE, column] for step in NEIGHBOURS if row]
            around += [power[row, (column + step) % TILE] for step in NEIGHBOURS if column]
            expected = float(np.exp(np.mean(np.log(around))))
            period = "4px" if (row // quarter) % 2 or (column // quarter) % 2 else "2px"
            ratios[period].append(float(power[row, column]) / expected)
            excess += float(power[row, column]) - expected
    levels = np.sqrt(max(excess, 0.0)) / _WINDOW.sum()
    return {**{period: float(np.mean(values)) for period, values in ratios.items()}, "levels": float(levels)}


def _spectrum(image: np.ndarray) -> np.ndarray:
    rows, columns = (_starts(side) for side in image.shape[:2])
    values = image.astype(np.float64)
    total = np.zeros((TILE, TILE))
    for top in rows:
        for left in columns:
            tile = values[top : top + TILE, left : left + TILE]
            tile = (tile - tile.mean((0, 1))) * _WINDOW[..., None]
            total += (np.abs(np.fft.fft2(tile, axes=(0, 1))) ** 2).mean(-1)
    rounding = (_WINDOW**2).sum() / 12
    return total / (len(rows) * len(columns)) + rounding


def _starts(side: int) -> list[int]:
    """Half-overlapping tiles from edge to edge; multiples of 4 or not, a power spectrum does not see the phase."""
    number = max(1, -(-(side - TILE) // (TILE // 2)) + 1)
    return [round(place) for place in np.linspace(0, side - TILE, number)]


def flat_grain(photo: np.ndarray, painting: np.ndarray) -> float | None:
    """How much a painting differs from pixel to pixel where its photo is flat, in grey levels of 255; None if nowhere.

    The mean absolute difference of the luminance from its mean over 5 x 5 px, over the pixels around which the photo's
    luminance has a standard deviation below `FLAT` levels in 5 x 5 px. Brush strokes are broader than that: what it
    sees is a weave or grain, locked to the pixel grid (`checkerboard` sees that alone) or not. Compare with the photo.
    """
    before, after = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64) for image in (photo, painting))
    mean = cv2.blur(before, (5, 5))
    flat = cv2.blur(before * before, (5, 5)) - mean * mean < FLAT**2
    return float(np.abs(after - cv2.blur(after, (5, 5)))[flat].mean()) if flat.any() else None


def border_error(photo: np.ndarray, painting: np.ndarray) -> float:
    """How much more a painting departs from its photo in the outer `BORDER` pixels than inside; 1 is no more.

    The mean CIEDE2000 after a Gaussian of `STROKE` px, plus 1 (a difference just visible), over the same inside.
    """
    first, second = (rgb2lab(cv2.GaussianBlur(image, (0, 0), STROKE)) for image in (photo, painting))
    change = deltaE_ciede2000(first, second)
    inside = np.zeros(change.shape, bool)
    inside[BORDER:-BORDER, BORDER:-BORDER] = True
    return float((change[~inside].mean() + 1) / (change[inside].mean() + 1))


def near_constant(image: np.ndarray) -> bool:
    """Whether an image is a plain surface: its luminance varies by less than `CONSTANT` levels."""
    return bool(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).std() < CONSTANT)


def colour_grid(image: np.ndarray) -> np.ndarray:
    """CIELAB of the image averaged over a grid: float32 GRID * GRID x 3."""
    cells = cv2.resize(image, (GRID, GRID), interpolation=cv2.INTER_AREA)
    return rgb2lab(cells).reshape(-1, 3).astype(np.float32)


def colour_shift(photos: np.ndarray, paintings: np.ndarray) -> dict[str, float]:
    """Mean CIEDE2000 between photos and paintings, N x 3 in CIELAB (`colour_grid`), strokes averaged out.

    `colour_shift` is all of it. `colour_shift_unexplained` is what is left after the one affine map of CIELAB that
    takes these photos closest to their paintings: a palette common to all is style, one sky turned brown is not.
    """
    homogeneous = np.c_[photos.astype(np.float64), np.ones(len(photos))]
    mapping = np.linalg.lstsq(homogeneous, paintings.astype(np.float64), rcond=None)[0]
    return {
        "colour_shift": float(deltaE_ciede2000(photos, paintings).mean()),
        "colour_shift_unexplained": float(deltaE_ciede2000(homogeneous @ mapping, paintings).mean()),
    }
