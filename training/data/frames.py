"""Paintings from films (Sec. IV-A): frames extracted, duplicates dropped by SSIM and PSNR (reference 55 of the paper).

    python training/prepare.py frames FILM... --output DIR [--per_second F | --every N]

    DIR/<film's name>_<number of the frame, from 0>.jpg       in the film's size

A frame is a duplicate if both its SSIM and its PSNR against the last frame that was kept reach their thresholds, in
grey at 256 px of the shorter side. The paper gives none; these come from 60 photos and paintings, where the 5th, 50th
and 95th percentiles are

    dropped:  compressed anew (JPEG 30 and 35)     SSIM 0.92  0.97  1.00    PSNR  30  37  44 dB
              film grain, sigma 5                       0.86  0.95  0.98          35  38  43
              an object of 1 % of the picture           0.98  0.99  0.99          23  27  33
    kept:     panned by 2 % of the width                0.19  0.50  0.92          13  18  22
              half as bright                            0.66  0.71  0.94           8  12  17
              an object of 9 % of the picture           0.90  0.90  0.93          13  18  23
              a cut between dark scenes                 0.12  0.43  0.74          21  24  28

so that either alone would drop what the other keeps.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from sdpgan_hub.errors import SDPGANError
from sdpgan_hub.files import write_whole

from .sources import IMAGE_SUFFIXES

SSIM_THRESHOLD = 0.8
PSNR_THRESHOLD = 25.0
PER_SECOND = 2.0
COMPARED_SIZE = 256
MIN_SIZE = 16
FFMPEG_QUIET = "-8"
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95]


def extract(
    film: str | Path,
    output: str | Path,
    *,
    every: int | None = None,
    per_second: float | None = None,
    ssim: float = SSIM_THRESHOLD,
    psnr: float = PSNR_THRESHOLD,
    overwrite: bool = False,
    progress: bool = True,
) -> tuple[int, int]:
    """Write the frames of `film` that differ from the one kept before to `output`, as JPEG of quality 95.

    every: take each N-th frame, or per_second: so many a second of the film, 2 by default. ssim (at most 1), psnr (dB):
    a taken frame that reaches both is dropped. overwrite: remove frames of this film that are in `output` already.
    Returns how many frames were taken, and how many of them kept.
    Raises SDPGANError for what is no film, or one that cannot be decoded, and where frames of it are there already.
    """
    film, output = Path(film), Path(output)
    if every is not None and every < 1:
        raise SDPGANError(f"every is {every}; it must be at least 1.")
    if per_second is not None and not per_second > 0:
        raise SDPGANError(f"per_second is {per_second}; it must be above 0.")
    if not -1 <= ssim <= 1:
        raise SDPGANError(f"ssim is {ssim}; it must lie in -1 .. 1.")
    taken = kept = 0
    with _opened(film) as capture:
        step = every or _frames_apart(capture, film, per_second or PER_SECOND)
        _clear(film, output, overwrite)
        expected = int(max(0, capture.get(cv2.CAP_PROP_FRAME_COUNT))) or None
        last = None
        with tqdm(total=expected, desc=film.name, unit="frame", disable=not progress) as bar:
            for number, frame in _taken(capture, step, bar):
                taken += 1
                small = _comparable(frame)
                if last is None or not is_duplicate(last, small, ssim, psnr):
                    jpeg = cv2.imencode(".jpg", frame, JPEG)[1].tobytes()
                    write_whole(output / f"{film.stem}_{number:07d}.jpg", jpeg)
                    kept, last = kept + 1, small
                bar.set_postfix(kept=kept, refresh=False)
    if not taken:
        raise SDPGANError(f"No frame of {film} can be decoded: it is empty, damaged or of a codec that OpenCV lacks; "
                          "convert it with ffmpeg -i FILM -c:v libx264 film.mp4.")  # fmt: skip
    return taken, kept


def is_duplicate(first: np.ndarray, second: np.ndarray, ssim: float, psnr: float) -> bool:
    """Whether two grey uint8 images of equal size reach both the SSIM and the PSNR (dB)."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    if np.array_equal(first, second):
        return True
    return bool(
        peak_signal_noise_ratio(first, second, data_range=255) >= psnr
        and structural_similarity(first, second, data_range=255) >= ssim
    )


@contextmanager
def _opened(film: Path) -> Iterator[cv2.VideoCapture]:
    if not film.is_file():
        raise SDPGANError(f"{film} is not a file; give a film, such as film.mp4.")
    if film.suffix.lower() in IMAGE_SUFFIXES - {".gif"}:
        raise SDPGANError(f"{film} is an image, not a film.")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", FFMPEG_QUIET)
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    capture = cv2.VideoCapture(str(film), cv2.CAP_ANY)
    try:
        if not capture.isOpened():
            raise SDPGANError(f"{film} is not a film that OpenCV can open; convert it with ffmpeg -i FILM film.mp4.")
        width, height = (capture.get(key) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if 0 < min(width, height) < MIN_SIZE:
            raise SDPGANError(f"{film} is {width:.0f}x{height:.0f}; a film has to have {MIN_SIZE} px a side.")
        yield capture
    finally:
        capture.release()
        cv2.utils.logging.setLogLevel(level)


def _frames_apart(capture: cv2.VideoCapture, film: Path, per_second: float) -> float:
    rate = capture.get(cv2.CAP_PROP_FPS)
    if not (np.isfinite(rate) and rate > 0):
        raise SDPGANError(f"{film} does not say how many frames a second it has; give --every N instead.")
    return max(1.0, rate / per_second)


def _taken(capture: cv2.VideoCapture, step: float, bar: tqdm) -> Iterator[tuple[int, np.ndarray]]:
    """(number, frame) of the first frame at or after each multiple of `step`; what is between is not converted."""
    number, due = 0, 0
    while capture.grab():
        if number >= due * step:
            read, frame = capture.retrieve()
            if read and frame is not None:
                yield number, frame
            due += 1
        number += 1
        bar.update()


def _comparable(frame: np.ndarray) -> np.ndarray:
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    scale = COMPARED_SIZE / min(grey.shape)
    return grey if scale >= 1 else cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _clear(film: Path, output: Path, overwrite: bool) -> None:
    pattern = re.compile(re.escape(film.stem) + r"_\d{7,}\.jpg")
    there = [path for path in output.glob("*.jpg") if pattern.fullmatch(path.name)]
    if there and not overwrite:
        raise SDPGANError(f"{output} holds frames of {film.name} already; add --overwrite or give another folder.")
    for path in there:
        path.unlink()


def frames_command(argv: list[str]) -> int:
    """`prepare.py frames ...`; SDPGANError for what stops it."""
    parser = argparse.ArgumentParser(
        prog="prepare.py frames", description="Films to a folder of paintings, without duplicated frames (Sec. IV-A)."
    )
    parser.add_argument("films", nargs="+", type=Path, metavar="FILM", help="what OpenCV can decode: mp4, mkv, avi ...")
    parser.add_argument("--output", type=Path, metavar="DIR", required=True, help="where the frames go")
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument("--every", type=int, metavar="N", help="take each N-th frame")
    rate.add_argument("--per_second", type=float, metavar="F", help=f"take F frames a second (default: {PER_SECOND:g})")
    what = "a frame is dropped that is as like the last kept one as this and the other threshold"
    parser.add_argument("--ssim", type=float, default=SSIM_THRESHOLD, help=f"{what} (default: {SSIM_THRESHOLD})")
    parser.add_argument(
        "--psnr", type=float, default=PSNR_THRESHOLD, help=f"in dB, likewise (default: {PSNR_THRESHOLD})"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace frames of these films that DIR holds")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args(argv)
    settings = {key: getattr(options, key) for key in ("every", "per_second", "ssim", "psnr", "overwrite")}
    if len({film.stem for film in options.films}) < len(options.films):
        raise SDPGANError("Two films have one name, and so would their frames; give each an output of its own.")
    for film in options.films:
        taken, kept = extract(film, options.output, progress=not options.quiet, **settings)
        print(f"{film}: {kept} frames kept, {taken - kept} duplicates dropped")
    return 0
