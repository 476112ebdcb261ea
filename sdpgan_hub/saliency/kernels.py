"""Sequential loops of the saliency references in plain Python; :func:`compiled` hands them to numba when first used."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from .common import missing_extra


@cache
def compiled(function: Callable) -> Callable:
    """``function`` compiled by numba; the machine code is cached beside this file, or else in the user's cache folder.

    Where neither can be written to, it is compiled once per process. ``NUMBA_CACHE_DIR`` chooses another folder.
    Raises :class:`~sdpgan_hub.errors.SDPGANError` where numba is missing.
    """
    try:
        from numba import njit
    except ImportError as error:
        raise missing_extra(error) from None
    try:
        return njit(cache=True)(function)
    except RuntimeError:
        return njit(function)


def barrier_passes(image, distance, upper, lower, passes):
    """FastMBD (Zhang et al., ICCV 2015, Alg. 1) in place, on every channel of ``image`` (h x w x c, int16) by itself.

    ``distance`` starts as 0 on the 1-px border and large inside, ``upper`` and ``lower`` as copies of ``image``: the
    highest and lowest value on the best path found so far. Even passes look left and up, odd ones right and down.
    """
    height, width, channels = image.shape
    for number in range(passes):
        step = 1 if number % 2 == 0 else -1
        first_y, first_x = (1, 1) if step == 1 else (height - 2, width - 2)
        for i in range(height - 2):
            y = first_y + step * i
            for j in range(width - 2):
                x = first_x + step * j
                for c in range(channels):
                    value = image[y, x, c]
                    best = distance[y, x, c]
                    high = max(value, upper[y, x - step, c])
                    low = min(value, lower[y, x - step, c])
                    if high - low < best:
                        best = high - low
                        distance[y, x, c] = best
                        upper[y, x, c] = high
                        lower[y, x, c] = low
                    high = max(value, upper[y - step, x, c])
                    low = min(value, lower[y - step, x, c])
                    if high - low < best:
                        distance[y, x, c] = high - low
                        upper[y, x, c] = high
                        lower[y, x, c] = low


def shortest_paths(distance, limit):
    """All-pairs shortest paths in place (Floyd-Warshall): n x n, infinite where there is no edge.

    Only paths no longer than ``limit`` are looked for; a longer entry may be larger than the true distance.
    """
    count = len(distance)
    for middle in range(count):
        for start in range(count):
            head = distance[start, middle]
            if head <= limit and start != middle:
                for end in range(count):
                    through = head + distance[middle, end]
                    direct = distance[start, end]
                    distance[start, end] = through if through < direct else direct
