"""Time of `SDPGAN.stylize` against one forward pass of the authors' released layout at equal width, in the same run.

    python tests/benchmarks/bench_inference.py [--style vangogh] [--size 512] [--repeats 7] [--threads N]
        [--leave_memory] [--json]

The two alternate, each repeat measures both, and the ratio is that of the medians: machines are noisy, ratios less so.
`stylize` is timed whole, from a NumPy photo to a NumPy painting; the authors' layout is its forward pass alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from authors_layout import AuthorsGenerator
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sdpgan_hub import SDPGAN
from sdpgan_hub.memory import keep_freed_memory


def seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def gflop(function: Callable[[], object]) -> float:
    """Multiplications and additions of the convolutions, in 10^9."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops() / 1e9


@torch.no_grad()
def measure(style: str, size: int, repeats: int) -> dict[str, float | str | int]:
    model = SDPGAN.from_pretrained(style)
    authors = AuthorsGenerator(model.config["base_channels"], model.config["residual_blocks"]).eval()
    photo = np.random.default_rng(0).integers(256, size=(size, size, 3), dtype=np.uint8)
    tensor = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 127.5 - 1
    ours, theirs = lambda: model.stylize(photo), lambda: authors(tensor)
    ours(), theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(repeats)]
    stylize, forward = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {
        "style": style,
        "base_channels": model.config["base_channels"],
        "size": size,
        "threads": torch.get_num_threads(),
        "stylize_seconds": stylize,
        "authors_seconds": forward,
        "ratio": stylize / forward,
        "ratio_spread": [min(a / b for a, b in pairs), max(a / b for a, b in pairs)],
        "gflop": gflop(ours),
        "authors_gflop": gflop(theirs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--style", default="vangogh", help="a shipped name, a folder or a Hub id")
    parser.add_argument("--size", type=int, default=512, help="side of the square photo, in pixels")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, help="default: what torch takes")
    parser.add_argument("--leave_memory", action="store_true", help="freed memory goes back to the system, as it does "
                        "in a program that does not call sdpgan_hub.memory.keep_freed_memory")  # fmt: skip
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if not arguments.leave_memory:
        keep_freed_memory()  # as `sdpgan` and the Space do, for both
    result = measure(arguments.style, arguments.size, arguments.repeats)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    low, high = result["ratio_spread"]
    print(
        f"{result['size']} x {result['size']} px, {result['base_channels']} channels, {result['threads']} threads: "
        f"stylize {result['stylize_seconds']:.2f} s ({result['gflop']:.0f} GFLOP), authors' layout "
        f"{result['authors_seconds']:.2f} s ({result['authors_gflop']:.0f} GFLOP), ratio {result['ratio']:.2f} "
        f"({low:.2f} to {high:.2f})"
    )


if __name__ == "__main__":
    main()
