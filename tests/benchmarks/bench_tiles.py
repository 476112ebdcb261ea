"""Time and peak memory of `sdpgan stylize` on large photos, each in a process of its own.

    python tests/benchmarks/bench_tiles.py [--style vangogh] [--megapixels 6 24 100] [--brush 1] [--output FILE.json]

The photo is one of the Space's examples, enlarged. Peak memory is the process's resident set, interpreter, libraries,
decoding and encoding included.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from measuring import ROOT, store
from PIL import Image

EXAMPLE = sorted((ROOT / "space" / "examples").glob("*.jpg"))[0]


def photo_of(megapixels: float, path: Path) -> tuple[int, int]:
    """Writes a photo of 3 to 2; its width and height, multiples of 4."""
    height = 4 * round((megapixels * 1e6 / 1.5) ** 0.5 / 4)
    size = (4 * round(height * 1.5 / 4), height)
    with Image.open(EXAMPLE) as image:
        image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
    return size


def measure(megapixels: float, options: list[str], folder: Path) -> dict[str, float]:
    photo, painting = folder / "photo.jpg", folder / "painting.jpg"
    width, height = photo_of(megapixels, photo)
    command = [sys.executable, "-m", "sdpgan_hub", "stylize", photo, "-o", painting, "--overwrite", "--quiet"]
    started = time.perf_counter()
    process = subprocess.Popen([*command, *options], cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"bench_tiles.py: {' '.join(map(str, command))} failed.")
    return {
        "width": width,
        "height": height,
        "megapixels": round(width * height / 1e6, 2),
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mb": round(usage.ru_maxrss * 1024 / 1e6),  # kibibytes on Linux
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--style", default="vangogh", help="a shipped name, a folder or a Hub id")
    parser.add_argument("--megapixels", type=float, nargs="+", default=[6, 24, 100])
    parser.add_argument("--brush", default="1")
    parser.add_argument("--output", type=Path, help="a JSON file; by default it is printed")
    arguments = parser.parse_args()
    options = ["--style", arguments.style, "--brush", arguments.brush, "--device", "cpu"]
    with tempfile.TemporaryDirectory() as folder:
        photos = [measure(megapixels, options, Path(folder)) for megapixels in arguments.megapixels]
    store({"style": arguments.style, "threads": torch.get_num_threads(), "photos": photos}, arguments.output)


if __name__ == "__main__":
    main()
