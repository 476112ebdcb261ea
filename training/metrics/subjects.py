"""One photo and what was made of it: painted, written, measured in as many processes as wanted, and averaged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from sdpgan_hub import SDPGAN, imaging
from sdpgan_hub.errors import SDPGANError
from sdpgan_hub.saliency import reference
from sdpgan_hub.visualization import heat_map

from ..data import pictures
from ..losses.perceptual import PerceptualFeatures
from . import artifacts, colour
from . import detail as details

DETAIL_FIGURES = ("ssim", "gradient_correlation", "content_distance", "detail_kept")


@dataclass(frozen=True)
class Subject:
    """One photo, what was made of it, and the human mask of what is salient in it, if there is one."""

    name: str
    photo: Path
    painting: Path
    mask: Path | None


@dataclass(frozen=True)
class Measured:
    """What one process finds out about a `Subject`; see training/metrics."""

    name: str
    region: np.ndarray
    figures: dict[str, Any]
    photo_colours: np.ndarray
    painting_colours: np.ndarray
    sheet: np.ndarray | None


def write_subjects(
    photos: Path,
    sources: list[Path],
    model: SDPGAN | None,
    shares: dict[str, float | None],
    given: dict[Path, Path] | None,
    outputs: Path | None,
    masks: dict[Path, Path],
    size: int,
    folder: Path,
) -> tuple[dict[str, list[Subject]], int]:
    """Photos and paintings as PNG files of the same size in `folder`; how many outputs had to be scaled for that.

    There is a set of paintings for each of `shares`: its name -> the share of the photo's detail that a model keeps.
    """
    stems = [path.relative_to(photos).with_suffix("") for path in sources]
    twins = {stem for stem in stems if stems.count(stem) > 1} if len(set(stems)) < len(stems) else set()
    if twins:
        raise SDPGANError(f"{photos} holds {min(twins)} with several suffixes; rename all but one.")
    if given is not None:
        missing = [stem for stem in stems if stem not in given]
        if missing:
            raise SDPGANError(
                f"{outputs} holds nothing made of {missing[0]} ({len(missing)} of {len(stems)} photos are missing); "
                "files must have the relative path of their photo, suffixes aside."
            )
    subjects: dict[str, list[Subject]] = {version: [] for version in shares}
    resized = 0
    for source, stem in zip(tqdm(sources, desc="paintings", unit="photo", leave=False), stems, strict=True):
        photo = pictures.read_scaled(source, size)
        file = stem.with_name(stem.name + ".png")
        pictures.write(folder / "photos" / file, photo)
        for version, share in shares.items():
            if given is None:
                painting = model.stylize(photo, keep_detail=share)
            else:
                painting = pictures.read(given[stem])
                if painting.shape != photo.shape:
                    resized += 1
                    painting = pictures.scaled(painting, *photo.shape[:2])
            pictures.write(folder / version / file, painting)
            subject = Subject(stem.as_posix(), folder / "photos" / file, folder / version / file, masks.get(stem))
            subjects[version].append(subject)
    return subjects, resized


def measure(subjects: list[Subject], shown: set[str], workers: int, vgg: PerceptualFeatures) -> Iterator[Measured]:
    """Every subject measured, in turn; with a strip for the sheet of those whose names are in `shown`."""
    jobs = [(subject, subject.name in shown) for subject in subjects]
    bar = tqdm(total=len(jobs), desc="detail, artifacts", unit="photo", leave=False)
    with bar, contextlib.ExitStack() as stack:
        if workers:
            pool = stack.enter_context(ProcessPoolExecutor(workers, mp_context=get_context("spawn")))
            results = pool.map(_measure, jobs)
        else:
            results = map(_measure, jobs)
        for subject, one in zip(subjects, results, strict=True):
            _add_content_distance(one, subject, vgg)
            bar.update()
            yield one


def _measure(job: tuple[Subject, bool]) -> Measured:
    subject, shown = job
    photo, painting = pictures.read(subject.photo), pictures.read(subject.painting)
    maps = reference(photo), reference(painting)
    if subject.mask is None:
        region = details.salient_region(maps[0])
    else:
        region = pictures.read_mask(subject.mask, *photo.shape[:2]) > 0
    checkerboards = artifacts.checkerboard(photo), artifacts.checkerboard(painting)
    figures = {
        "mask": "reference" if subject.mask is None else "human",
        **details.detail(photo, painting, region),
        "saliency_change": details.saliency_change(*maps),
        "checkerboard": checkerboards[1],
        "photo_checkerboard": checkerboards[0],
        "flat_grain": artifacts.flat_grain(photo, painting),
        "photo_flat_grain": artifacts.flat_grain(photo, photo),
        "border_error": artifacts.border_error(photo, painting),
        "near_constant": artifacts.near_constant(painting),
        "photo_near_constant": artifacts.near_constant(photo),
        "chroma": colour.mean_chroma(painting),
        "photo_chroma": colour.mean_chroma(photo),
    }
    cells = None
    if shown:
        cells = [photo, painting, heat_map(maps[0]), heat_map(maps[1])]
        cells = np.concatenate([pictures.centre_square(cell) for cell in cells])
    colours = artifacts.colour_grid(photo), artifacts.colour_grid(painting)
    return Measured(subject.name, region, figures, *colours, cells)


@torch.inference_mode()
def _add_content_distance(one: Measured, subject: Subject, vgg: PerceptualFeatures) -> None:
    device = vgg.mean.device
    features = []
    for path in (subject.photo, subject.painting):
        pixels = torch.from_numpy(pictures.read(path)).permute(2, 0, 1)[None]
        features.append(vgg(imaging.to_signed(pixels).to(device)))
    for region, distance in details.content_distance(*features, one.region).items():
        one.figures[region]["content_distance"] = distance


def detail_figures(measured: list[Measured], subjects: list[Subject]) -> dict[str, Any]:
    """Means over the photos of `training.metrics.detail`, for the salient region and the background."""
    result: dict[str, Any] = {}
    for region in ("salient", "background"):
        columns = {key: [one.figures[region][key] for one in measured] for key in DETAIL_FIGURES}
        result[region] = {key: _mean(values) for key, values in columns.items()}
        result[region]["photos"] = sum(value is not None for value in columns["detail_kept"])
    result["saliency_change"] = _mean([one.figures["saliency_change"] for one in measured])
    result["human_masks"] = sum(subject.mask is not None for subject in subjects)
    result["reference_masks"] = len(subjects) - result["human_masks"]
    return result


def artifact_figures(measured: list[Measured]) -> dict[str, dict[str, float]]:
    """`training.metrics.artifacts` of the outputs and of the photos: means, and colours over all of them."""
    result = {}
    for name, prefix in (("outputs", ""), ("photos", "photo_")):
        result[name] = {
            f"checkerboard_{period}": _mean([one.figures[f"{prefix}checkerboard"][period] for one in measured])
            for period in ("2px", "4px", "levels")
        }
        result[name]["flat_grain"] = _mean([one.figures[f"{prefix}flat_grain"] for one in measured])
        result[name]["near_constant_share"] = _mean([one.figures[f"{prefix}near_constant"] for one in measured])
    result["outputs"]["border_error"] = _mean([one.figures["border_error"] for one in measured])
    grids = [np.concatenate([getattr(one, key) for one in measured]) for key in ("photo_colours", "painting_colours")]
    result["outputs"] |= artifacts.colour_shift(*grids)
    return result


def colour_figures(measured: list[Measured], paintings: list[float]) -> dict[str, float | None]:
    """Mean chroma of the outputs, the photos and the paintings, and the outputs' as a share of the paintings'."""
    means = {
        "outputs": _mean([one.figures["chroma"] for one in measured]),
        "photos": _mean([one.figures["photo_chroma"] for one in measured]),
        "paintings": _mean(paintings),
    }
    return means | {"ratio": means["outputs"] / means["paintings"] if means["paintings"] > 0 else None}


def _mean(values: list[float | None]) -> float | None:
    present = [float(value) for value in values if value is not None]
    return float(np.mean(present)) if present else None
