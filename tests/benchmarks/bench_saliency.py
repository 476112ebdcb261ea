"""Accuracy and speed of the saliency references.

    python tests/benchmarks/bench_saliency.py                        # both; prints markdown tables
    python tests/benchmarks/bench_saliency.py --only accuracy --json accuracy.json
    python tests/benchmarks/bench_saliency.py --only speed           # needs no data
    python tests/benchmarks/bench_saliency.py --figure figure.jpg    # the maps beside a mask

Accuracy is pysodmetrics' on ECSSD (``SHARED/data/saliency_benchmark/ECSSD``; SHARED is ``--shared``, the environment's
SDPGAN_SHARED, or the folder ``shared`` beside the checkout). Speed is one thread's on photos that come with
scikit-image, the fastest of several runs of each photo, and its ratio to SLIC alone in the same process.
"""

import argparse
import json
import os
import platform
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from measuring import ROOT, seconds
from PIL import Image, ImageOps
from skimage import data
from skimage.segmentation import slic
from threadpoolctl import threadpool_limits

from sdpgan_hub import SDPGAN
from sdpgan_hub.errors import SDPGANError
from sdpgan_hub.files import read_rgb
from sdpgan_hub.saliency import minimum_barrier, reference, robust_background
from sdpgan_hub.saliency.common import shrink
from sdpgan_hub.saliency.mbd import minimum_barrier_map
from training.data import pictures
from training.metrics import saliency
from training.metrics.report import markdown, saliency_table

PHOTO_SIDE = 400
"""The longer side of the photos in pixels, like ECSSD's."""
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")


def measure_speed(repeats: int) -> dict:
    functions = {
        "SLIC alone (scikit-image, 10 iterations)": lambda image: slic(shrink(image), n_segments=200, start_label=0),
        "MB, minimum barrier map alone": lambda image: minimum_barrier_map(shrink(image)),
        "MB+": minimum_barrier,
        "RBD": robust_background,
        "reference (mean of RBD and MB+)": reference,
    }
    fastest: dict[str, list[float]] = {name: [] for name in functions}
    for photo in PHOTOS:
        image = shrink(getattr(data, photo)(), PHOTO_SIDE)
        turns = [
            {name: seconds(partial(function, image))[0] for name, function in functions.items()}
            for _ in range(repeats + 1)
        ]
        for name, values in fastest.items():
            values.append(min(turn[name] for turn in turns[1:]))
    times = {name: float(np.mean(values)) for name, values in fastest.items()}
    yardstick = next(iter(times.values()))
    figures = {name: {"images/s": 1 / t, "times SLIC's speed": yardstick / t} for name, t in times.items()}
    return {"images": len(PHOTOS), "repeats": repeats, "figures": figures}


def tile(image: np.ndarray) -> np.ndarray:
    """``image`` (uint8 H x W x 3) as large as fits into 234 x 174 px, in the middle of 240 x 180 px of white."""
    padded = ImageOps.pad(Image.fromarray(image), (234, 174), Image.Resampling.BOX, color="white")
    return np.asarray(ImageOps.expand(padded, 3, "white"))


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
    pictures.write(path, pictures.contact_sheet(cells, len(columns), labels=columns, label_height=24))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("accuracy", "speed"), help="measure one of the two")
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("SDPGAN_SHARED", ROOT.parent / "shared")))
    parser.add_argument("--repeats", type=int, default=7, help="runs per photo, of which the fastest counts")
    parser.add_argument("--json", type=Path, help="write all figures, per image too, to this file")
    parser.add_argument("--figure", type=Path, help="only draw the Space's photos and their maps to this file")
    parser.add_argument("--style", default="vangogh", help="whose network the figure shows")
    options = parser.parse_args()
    threadpool_limits(1)
    cv2.setNumThreads(1)
    if options.figure:
        draw(options.figure, outlined(), options.style)
        return
    results: dict = {"machine": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    if options.only != "accuracy":
        speed = results["speed"] = measure_speed(options.repeats)
        rows = [[name, *(f"{value:.2f}" for value in one.values())] for name, one in speed["figures"].items()]
        print(markdown(["one thread", "images/s", "times SLIC's speed"], rows), flush=True)
    if options.only != "speed":
        folder = options.shared / "data" / "saliency_benchmark" / "ECSSD"
        results["accuracy"] = saliency.accuracy(saliency.pairs(folder / "images", folder / "masks"))
        print(f"\n{results['accuracy']['images']} ECSSD images\n\n{saliency_table(results['accuracy']['figures'])}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except SDPGANError as error:
        raise SystemExit(f"error: {error}") from None
