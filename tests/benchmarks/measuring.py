"""What the benchmarks share: the way to the code, time, operations, peak memory, and where their figures go.

Importing it puts the repository's root and tests/ on the path.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

T = TypeVar("T")


def seconds(function: Callable[[], object]) -> tuple[float, float]:
    """On the clock, and of all threads of this process, which other programs on the machine disturb less."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


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


def in_a_new_process(function: Callable[..., T], *arguments: Any) -> T:
    """What `function`, one of a module, gives in a process of its own, whose memory holds nothing from before.

    A forked one would hang where this one's threads are at work.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def store(result: dict[str, Any], file: Path | None) -> None:
    """Writes the figures, and the command that gave them, as JSON to `file`; prints them where there is none."""
    command = " ".join([f"python tests/benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    text = json.dumps({"command": command, **result}, indent=1) + "\n"
    if file is None:
        print(text, end="")
    else:
        file.write_text(text)
