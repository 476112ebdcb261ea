"""What a training needs beside its images, made once and kept in a folder: saliency references, and what can be read.

    CACHE/saliency/<photo's path in its folder>.png           8-bit grey, the photo's height x width, 255 = salient
    CACHE/readable/paintings/<path in its folder>.png         1 x 1: this painting can be read
    CACHE/readable/photos/<path in its folder>.png            the same of photos, where no references are needed
    CACHE/images/<source>/                                    images of sources that are streamed

Every result carries, as PNG text, the recipe it was made with and the size of its source file. It is made again when
either differs from what would be made now or when its source is newer; everything else is left as it is. Files
appear under their name only when whole, so a run may be stopped at any time and started again.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from sdpgan_hub.errors import SDPGANError, one_line
from sdpgan_hub.files import UNFINISHED, read_rgb

from . import pictures
from .pictures import read_mask
from .sources import Folder, Source, by_stem, fetch, open_source, skip

SALIENCY, PHOTOS_READ, PAINTINGS_READ = "saliency", "readable/photos", "readable/paintings"
"""The kinds of results, and their folders."""
DESCRIPTIONS = {SALIENCY: "saliency references", PHOTOS_READ: "photos read", PAINTINGS_READ: "paintings read"}
REFERENCE_RECIPE = {"method": "saliency reference", "version": 1}
"""The version goes up when what sdpgan_hub.saliency gives for a photo changes."""
MASK_RECIPE = {"method": "human mask", "version": 1}
READABLE_RECIPE = {"method": "read", "version": 1}
RECIPE_KEY = "sdpgan_hub"
LEFTOVER_SECONDS = 3600
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def result_path(cache: str | Path, kind: str, source: str | Path | Source, image: str | Path) -> Path:
    """Where the result of an image of `source` lies in `cache`; kind: `SALIENCY`, `PHOTOS_READ` or `PAINTINGS_READ`."""
    name = open_source(source).name(Path(image), cache)
    return Path(cache) / kind / name.with_name(name.name + ".png")


@dataclass
class Summary:
    """What one run of `prepare` did."""

    made: int = 0
    kept: int = 0
    masks: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Source file -> why it has no result."""


@dataclass(frozen=True)
class Job:
    """One result: `make(source, mask)` written to `result`, labelled with `recipe`."""

    source: Path
    result: Path
    make: Callable[[Path, Path | None], np.ndarray]
    recipe: str
    mask: Path | None = None

    @property
    def only_reads(self) -> bool:
        """Whether decoding is all there is to do, which holds no lock of Python's."""
        return self.make is try_reading or self.mask is not None

    def is_done(self) -> bool:
        """Whether the result is there, made by this recipe, and no older than what it was made from."""
        try:
            made = self.result.stat().st_mtime_ns
            inputs = [self.source] if self.mask is None else [self.source, self.mask]
            if any(path.stat().st_mtime_ns > made for path in inputs):
                return False
            with Image.open(self.result) as image:
                return image.info.get(RECIPE_KEY) == self.recipe
        except OSError:
            return False


def prepare(
    photos: str | Path | Source | None,
    paintings: str | Path | Source | None,
    cache: str | Path,
    *,
    masks: str | Path | None = None,
    references: bool = True,
    max_images: int | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Summary:
    """Fill `cache` with what training needs beside the images themselves; do only what is not there yet.

    photos, paintings: folders, searched recursively, or other sources; None leaves that half out. masks: a folder of
    binary masks, used in place of the saliency reference for each photo of the same relative path without suffix.
    references: False makes no saliency references, as a training without S and mask needs none
    (`TrainingConfig.references`); each photo is read all the same, so that bad ones are known before it starts.
    max_images: of a streamed source, see `sources.fetch`. workers: threads that read, and processes that make
    references; as many as there are cores by default. A file that cannot be read is named in the summary and on
    stderr, and skipped. Raises SDPGANError for a source without images and for a cache that cannot be written.
    """
    workers = available_cores() if workers is None else workers
    if workers < 1:
        raise SDPGANError(f"workers is {workers}; it must be at least 1.")
    cache = Path(cache)
    given = {SALIENCY if references else PHOTOS_READ: photos, PAINTINGS_READ: paintings}
    sources = {kind: open_source(source) for kind, source in given.items() if source is not None}
    for source in sources.values():
        if isinstance(source, Folder) and cache.resolve().is_relative_to(source.given.resolve()):
            raise SDPGANError(f"The cache {cache} lies inside {source}, where its files would be taken for images.")
    if masks is not None and photos is None:
        raise SDPGANError(f"The masks of {masks} need the photos they belong to.")
    if masks is not None and not references:
        raise SDPGANError(f"The masks of {masks} are saliency references; make them, or leave the masks out.")
    summary = Summary()
    for source in sources.values():
        summary.failed |= fetch(source, cache, max_images, progress)
        for path in source.missing():
            skip(summary.failed, str(path), "no such file")
    jobs = {kind: _jobs(kind, source, cache, masks) for kind, source in sources.items()}
    for kind in jobs:
        _run(kind, jobs[kind], cache, workers, progress, summary)
    return summary


def masks_of(photos: Source, cache: Path, masks: str | Path | None) -> dict[Path, Path]:
    """The masks of those photos that have one: files of the same relative path, suffixes aside."""
    named = by_stem(masks) if masks is not None else {}
    names = {photo: photos.name(photo, cache).with_suffix("") for photo in photos.files(cache)}
    return {photo: named[name] for photo, name in names.items() if name in named}


def _jobs(kind: str, source: Source, cache: Path, masks: str | Path | None) -> list[Job]:
    masks = masks if kind == SALIENCY else None
    mask_of = masks_of(source, cache, masks)
    if masks is not None and not mask_of:
        raise SDPGANError(f"No mask in {masks} has the path of a photo in {source}, suffixes aside.")
    jobs = []
    for path in source.files(cache):
        mask = mask_of.get(path)
        make, recipe = (make_saliency, REFERENCE_RECIPE) if kind == SALIENCY else (try_reading, READABLE_RECIPE)
        sizes = [file.stat().st_size for file in (path, mask) if file is not None]
        label = json.dumps({**(recipe if mask is None else MASK_RECIPE), "source_bytes": sizes}, sort_keys=True)
        jobs.append(Job(path, result_path(cache, kind, source, path), make, label, mask))
    return jobs


def make_saliency(photo: Path, mask: Path | None) -> np.ndarray:
    """The target z of Eq. 7 for one photo, uint8 H x W: its mask where it has one, else the mean of RBD and MB+."""
    image = read_rgb(photo)
    if mask is not None:
        return read_mask(mask, *image.shape[:2])
    from sdpgan_hub.saliency import reference

    return np.rint(reference(image) * 255).astype(np.uint8)


def try_reading(photo: Path, mask: None = None) -> np.ndarray:
    """Reads one file to its end, or raises; one white pixel, uint8 1 x 1."""
    read_rgb(photo)
    return np.full((1, 1), 255, np.uint8)


def _run(kind: str, jobs: list[Job], cache: Path, workers: int, progress: bool, summary: Summary) -> None:
    _remove_leftovers(cache / kind)
    todo = [job for job in jobs if not job.is_done()]
    kept = len(jobs) - len(todo)
    summary.kept += kept
    with tqdm(total=len(jobs), initial=kept, desc=DESCRIPTIONS[kind], unit="image", disable=not progress) as bar:
        for job, failure in _outcomes(todo, workers):
            bar.update()
            if failure is None:
                summary.made += 1
            else:
                skip(summary.failed, str(job.source), failure)
    summary.masks += sum(job.mask is not None and job.is_done() for job in jobs)


def _outcomes(jobs: list[Job], workers: int) -> Iterator[tuple[Job, str | None]]:
    """(job, None or why it failed), as they finish: first those that threads do, then those that want processes."""
    if min(workers, len(jobs)) <= 1:
        for job in jobs:
            yield job, _work(job)
        return
    for by_threads in (True, False):
        those = [job for job in jobs if job.only_reads == by_threads]
        if not those:
            continue
        count = min(workers, len(those))
        if by_threads:
            pool: Executor = ThreadPoolExecutor(count)
        else:
            pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_start_worker)
        try:
            with contextlib.nullcontext() if by_threads else _worker_environment():
                pending: dict[Future, Job] = {pool.submit(_work, job): job for job in those}
            for future in as_completed(pending):
                yield pending[future], future.result()
        except BrokenProcessPool:
            raise SDPGANError(
                f"A worker process died, perhaps for want of memory; run again with fewer workers than {count} "
                "(what is done is kept)."
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _worker_environment() -> Iterator[None]:
    """Processes started inside use one thread each, leave Ctrl-C to their parent, and do not import its program.

    A spawned process would run the program's module, and train.py imports torch; what `_work` needs is here.
    """
    program = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    saved = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    masks_signals = hasattr(signal, "pthread_sigmask")
    if masks_signals:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        sys.modules["__main__"] = program
        for name, value in saved.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        if masks_signals:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def _work(job: Job) -> str | None:
    reason = None
    try:
        pixels = job.make(job.source, job.mask)
    except SDPGANError as error:
        if isinstance(error.__context__, ImportError):  # a missing library, which no other file can do without
            raise
        reason = str(error)
    except Exception as error:  # whatever a broken file makes a decoder do, the other files go on
        reason = one_line(error)
    if reason is not None:
        job.result.unlink(missing_ok=True)  # of the file as it was before it broke
        return reason
    text = PngInfo()
    text.add_text(RECIPE_KEY, job.recipe)
    pictures.write(job.result, pixels, pnginfo=text)
    return None


def _remove_leftovers(folder: Path) -> None:
    """Partial files of runs that were killed; a run that is still alive replaces its own within seconds."""
    for path in folder.rglob(f".*{UNFINISHED}"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
                path.unlink()


def available_cores() -> int:
    """The CPU cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
