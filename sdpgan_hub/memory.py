"""Memory of a process that runs the networks."""

from __future__ import annotations

import ctypes
import math
import platform
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

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


def free_memory(device: torch.device) -> float:
    """Bytes that a program can still take on `device`; infinite where the system does not say."""
    import torch

    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(_available_in_the_machine(), _available_in_the_container()) if device.type == "cpu" else math.inf


def _available_in_the_machine() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    return next((int(line.split()[1]) * 1024.0 for line in lines if line.startswith("MemAvailable:")), math.inf)


def _available_in_the_container(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """What a control group (version 2) leaves, its file cache counted as free."""
    try:
        limit, used = ((cgroup / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        pages = (cgroup / "memory.stat").read_text().split()
        cache = int(pages[pages.index("inactive_file") + 1])
        return math.inf if limit == "max" else max(0, int(limit) - int(used) + cache)
    except (OSError, ValueError):
        return math.inf
