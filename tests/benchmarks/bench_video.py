"""How steady films are painted: the warped difference of photos, of frames painted by themselves, and in a scene.

    python tests/benchmarks/bench_video.py FILM... [--style vangogh] [--size 256] [--frames 24] [--output FILE.json]
        [--sheets FOLDER]

The warped difference is the mean of |P_t - warp(P_t-1)|, in [0, 1], over the pixels where the photos' optical flow
there and back meet within a pixel ("dis"). That flow is wrong where a picture is flat: a wall moves with the head
before it. "calm" is measured along the flow of scenes, which lets such places stand, where it is sure. `detail` is the
variance of the Laplacian beside that of the frames painted by themselves: below 1, the scene has blurred them.
"""

import argparse
import sys
import time
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from measuring import store

from sdpgan_hub import SDPGAN
from sdpgan_hub.scene import Scene, flow_between, warped
from training.data import pictures

SHEET_FRAMES = 4


def read(film: str, size: int, count: int) -> list[np.ndarray]:
    """The first frames, H x W x 3, uint8, with a shorter side of `size` pixels at most."""
    capture = cv2.VideoCapture(film)
    frames = []
    while len(frames) < count and (read := capture.read())[0]:
        frame = cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)
        scale = min(1.0, size / min(frame.shape[:2]))
        frames.append(cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    if len(frames) < 2:
        sys.exit(f"bench_video.py: {film} has no two frames that can be read.")
    return frames


def flows(photos: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """From each frame to the one before, and where there and back meet within a pixel."""
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY) for photo in photos]
    found = []
    for before, photo in pairwise(grey):
        back, forth = search.calc(photo, before, None), search.calc(before, photo, None)
        found.append((back, np.linalg.norm(back + warped(forth, back), axis=-1) < 1))
    return found


def warped_difference(frames: list[np.ndarray], along: list[tuple[np.ndarray, np.ndarray]]) -> float:
    differences = [
        np.abs(frame.astype(np.float32) - warped(before.astype(np.float32), back))[meets].mean() / 255
        for before, frame, (back, meets) in zip(frames[:-1], frames[1:], along, strict=True)
    ]
    return float(np.mean(differences))


def detail(frames: list[np.ndarray]) -> float:
    return float(np.mean([cv2.Laplacian(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), cv2.CV_32F).var() for f in frames]))


def measure(model: SDPGAN, film: str, size: int, count: int, sheets: Path | None) -> dict[str, object]:
    photos = read(film, size, count)
    of_scenes = [flow_between(photo, before) for before, photo in pairwise(photos)]
    along = {"dis": flows(photos), "calm": [(flow, sure > 0.5) for flow, sure in of_scenes]}
    started = time.perf_counter()
    alone = [model.stylize(photo) for photo in photos]
    between = time.perf_counter()
    scene = Scene()
    steady = [model.stylize(photo, scene=scene) for photo in photos]
    ended = time.perf_counter()
    differences = {
        name: dict(zip(("photo", "frame by frame", "scene"), values, strict=True))
        for name, flow in along.items()
        for values in [[round(warped_difference(frames, flow), 5) for frames in (photos, alone, steady)]]
    }
    if sheets:
        shown = np.linspace(0, len(photos) - 1, SHEET_FRAMES).round().astype(int)
        rows = [np.concatenate([frames[i] for i in shown], 1) for frames in (photos, alone, steady)]
        pictures.write(sheets / f"{Path(film).stem}.png", np.concatenate(rows))
    return {
        "film": Path(film).name,
        "frames": len(photos),
        "width": photos[0].shape[1],
        "height": photos[0].shape[0],
        "scenes": scene.cuts,
        **differences,
        "scene / frame by frame": {n: round(of["scene"] / of["frame by frame"], 3) for n, of in differences.items()},
        "scene / photo": {n: round(of["scene"] / of["photo"], 3) for n, of in differences.items()},
        "detail": round(detail(steady) / detail(alone), 3),
        "seconds a frame, frame by frame": round((between - started) / len(photos), 2),
        "seconds a frame, scene": round((ended - between) / len(photos), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("films", nargs="+", metavar="FILM")
    parser.add_argument("--style", default="vangogh", help="a shipped name, a folder or a Hub id")
    parser.add_argument("--size", type=int, default=256, help="pixels along the shorter side")
    parser.add_argument("--frames", type=int, default=24, help="of each film, from its start")
    parser.add_argument("--output", type=Path, help="a JSON file; by default it is printed")
    parser.add_argument("--sheets", type=Path, help="a folder for sheets: photos, frame by frame, scene")
    arguments = parser.parse_args()
    model = SDPGAN.from_pretrained(arguments.style)
    films = [measure(model, film, arguments.size, arguments.frames, arguments.sheets) for film in arguments.films]
    store({"style": arguments.style, "films": films}, arguments.output)


if __name__ == "__main__":
    main()
