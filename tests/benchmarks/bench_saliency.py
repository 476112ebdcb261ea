"""Accuracy and speed of the saliency references.

    python tests/benchmarks/bench_saliency.py                        # both; prints markdown tables
    python tests/benchmarks/bench_saliency.py --only accuracy --json accuracy.json
    python tests/benchmarks/bench_saliency.py --only speed           # needs no data
    python tests/benchmarks/bench_saliency.py --figure figure.jpg    # the maps beside a mask

Accuracy is pysodmetrics' on ECSSD (``SHARED/data/saliency_benchmark/ECSSD``; SHARED is ``--shared``, the environment's
SDPGAN_SHARED, or the folder ``shared`` beside the checkout). Speed is one thread's on photos that come with
scikit-image, the fastest of several runs of each photo, and its ratio to SLIC alone in the same process.
"""

import os

for library in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import argparse  # noqa: E402
import json  # noqa: E402
import platform  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterable  # noqa: E402
from pathlib import Path  # noqa: E402

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from measuring import ROOT  # noqa: E402
from PIL import Image, ImageOps  # noqa: E402

from sdpgan_hub import SDPGAN  # noqa: E402
from sdpgan_hub.errors import SDPGANError  # noqa: E402
from sdpgan_hub.files import read_rgb  # noqa: E402
from sdpgan_hub.saliency import minimum_barrier, reference, robust_background  # noqa: E402
from sdpgan_hub.saliency.common import shrink  # noqa: E402
from sdpgan_hub.saliency.mbd import minimum_barrier_map  # noqa: E402
from training.data import pictures  # noqa: E402
from training.metrics import saliency  # noqa: E402

PHOTO_SIDE = 400
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")


def ecssd(shared: Path, every: int) -> list[tuple[Path, Path]]:
    folder = shared / "data" / "saliency_benchmark" / "ECSSD"
    try:
        return saliency.pairs(folder / "images", folder / "masks")[::every]
    except SDPGANError as error:
        sys.exit(f"{error} Name the folder that holds data/saliency_benchmark with --shared.")


def photos() -> dict[str, np.ndarray]:
    """scikit-image's photos, uint8 RGB, their longer side :data:`PHOTO_SIDE` px, like ECSSD's."""
    from skimage import data

    return {name: shrink(getattr(data, name)(), PHOTO_SIDE) for name in PHOTOS}


def seconds(functions: dict[str, Callable], images: Iterable[np.ndarray], repeats: int) -> dict[str, float]:
    """Mean over images of the fastest of ``repeats`` runs, all functions in turn, after a turn that is not timed."""
    fastest: dict[str, list[float]] = {name: [] for name in functions}
    for image in images:
        runs: dict[str, list[float]] = {name: [] for name in functions}
        for _ in range(repeats + 1):
            for name, function in functions.items():
                start = time.perf_counter()
                function(image)
                runs[name].append(time.perf_counter() - start)
        for name, values in runs.items():
            fastest[name].append(min(values[1:]))
    return {name: float(np.mean(values)) for name, values in fastest.items()}


def slic_alone(image: np.ndarray) -> None:
    from skimage.segmentation import slic

    slic(shrink(image), n_segments=200, start_label=0)


def measure_speed(repeats: int) -> dict:
    images = list(photos().values())
    functions = {
        "SLIC alone (scikit-image, 10 iterations)": slic_alone,
        "MB, minimum barrier map alone": lambda image: minimum_barrier_map(shrink(image)),
        "MB+": minimum_barrier,
        "RBD": robust_background,
        "reference (mean of RBD and MB+)": reference,
    }
    times = seconds(functions, images, repeats)
    yardstick = next(iter(times.values()))
    figures = {name: {"images/s": 1 / t, "times SLIC's speed": yardstick / t} for name, t in times.items()}
    return {"images": len(images), "repeats": repeats, "figures": figures}


def table(title: str, figures: dict[str, dict[str, float]], digits: dict[str, int]) -> str:
    columns = list(next(iter(figures.values())))
    lines = [f"| {title} | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for name, row in figures.items():
        lines.append(f"| {name} | " + " | ".join(f"{row[c]:.{digits.get(c, 3)}f}" for c in columns) + " |")
    return "\n".join(lines)


def tile(image: np.ndarray, width: int = 240, height: int = 180, gap: int = 3) -> np.ndarray:
    """``image`` (uint8 H x W x 3) as large as fits into ``width`` x ``height``, in the middle of white."""
    size = (width - 2 * gap, height - 2 * gap)
    padded = ImageOps.pad(Image.fromarray(image), size, Image.Resampling.BOX, color="white")
    return np.asarray(ImageOps.expand(padded, gap, "white"))


def outlined() -> list[tuple[np.ndarray, np.ndarray]]:
    """The example photos of the Space that the project has outlined, and their masks: uint8 H x W x 3 and H x W."""
    outlines = json.loads(Path(__file__).with_name("outlines.json").read_text(encoding="utf-8"))
    pairs = []
    for name in (key for key in outlines if key != "_"):
        photo = read_rgb(ROOT / "space" / "examples" / f"{name}.jpg")
        mask = np.zeros(photo.shape[:2], np.uint8)
        for polygon in outlines[name]:
            cv2.fillPoly(mask, [np.array(polygon)], 255)
        pairs.append((photo, mask))
    return pairs


def draw(path: Path, rows: list[tuple[np.ndarray, np.ndarray]], style: str) -> None:
    """A row per photo: photo, the network of ``style``, RBD, MB+, their mean, and the mask; written to ``path``."""
    network = SDPGAN.from_pretrained(style).saliency_map
    columns = ["photo", f"network ({style})", "RBD", "MB+", "reference (mean)", "mask"]
    cells = []
    for image, mask in rows:
        maps = [network(image), robust_background(image), minimum_barrier(image), reference(image), mask / 255]
        greys = [cv2.cvtColor(np.round(255 * one).astype(np.uint8), cv2.COLOR_GRAY2RGB) for one in maps]
        cells += [tile(picture) for picture in (image, *greys)]
    try:
        pictures.write(path, pictures.contact_sheet(cells, len(columns), labels=columns, label_height=24))
    except SDPGANError as error:
        sys.exit(str(error))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("accuracy", "speed"), help="measure one of the two")
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("SDPGAN_SHARED", ROOT.parent / "shared")))
    parser.add_argument("--every", type=int, default=1, help="take every N-th benchmark image")
    parser.add_argument("--repeats", type=int, default=7, help="runs per photo, of which the fastest counts")
    parser.add_argument("--json", type=Path, help="write all figures, per image too, to this file")
    parser.add_argument("--figure", type=Path, help="only draw the Space's photos and their maps to this file")
    parser.add_argument("--style", default="vangogh", help="whose network the figure shows")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    if options.figure:
        draw(options.figure, outlined(), options.style)
        return
    results: dict = {"machine": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    if options.only != "accuracy":
        results["speed"] = measure_speed(options.repeats)
        print(table("one thread", results["speed"]["figures"], {"images/s": 1, "times SLIC's speed": 2}), flush=True)
    if options.only != "speed":
        results["accuracy"] = saliency.accuracy(ecssd(options.shared, options.every))
        print(f"\n{results['accuracy']['images']} ECSSD images\n")
        print(table("method", results["accuracy"]["figures"], {}))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
