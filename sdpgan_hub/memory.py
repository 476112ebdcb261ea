"""Memory of a process that runs the networks on a CPU."""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Has the process keep the memory it frees, for the next tensor to reuse; call it before the first tensor.

    By default glibc takes every tensor over 32 MiB from the kernel and returns it at once, and a quarter of the time of
    a pass through the networks goes into fresh pages, filled with zeros one by one. Afterwards the process stays at its
    peak until it ends, some tenths above what it would have been, so this is for programs (the command line, the Space,
    the trainer), and no import does it.

    Returns:
        Whether it did: False where the C library is not glibc, which is left as it is.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    # the arenas of other threads cannot hold a large tensor, so new threads share the first one's
    wishes = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_ARENA_MAX, 1))
    return all([libc.mallopt(*wish) for wish in wishes])
