"""What the benchmarks share: operations, peak memory, and where their figures go."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils.flop_counter import FlopCounterMode


def gflop(function: Callable[[], object]) -> float:
    """Multiplications and additions of convolutions and products, backwards ones too, in 10^9."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops() / 1e9


def peak_mib() -> float:
    """The most memory that this process has had, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent had before this process was started, too
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def store(result: dict[str, Any], file: Path | None) -> None:
    """Writes the figures, and the command that gave them, as JSON to `file`; prints them where there is none."""
    command = " ".join([f"python tests/benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    text = json.dumps({"command": command, **result}, indent=1) + "\n"
    if file is None:
        print(text, end="")
    else:
        file.write_text(text)
