"""One photo and what was made of it: painted, written, measured in as many processes as wanted, and averaged."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
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
from ..data.sources import by_stem
from ..losses.perceptual import PerceptualFeatures
from . import artifacts, colour
from . import detail as details

DETAIL_FIGURES = ("ssim", "gradient_correlation", "content_distance", "detail_kept")


@dataclass(frozen=True)
class Subject:
    """A photo, what another program made of it, and the human mask of what is salient in it, where they are given."""

    name: str
    source: Path
    output: Path | None
    mask: Path | None

    def file(self, folder: Path, version: str) -> Path:
        """Where `write_subjects` puts it: "photos", or a version of its painting."""
        return folder / version / f"{self.name}.png"


@dataclass(frozen=True)
class Measured:
    """What one process finds out about a painting of a `Subject`; see training/metrics."""

    region: np.ndarray
    figures: dict[str, Any]
    photo_colours: np.ndarray
    painting_colours: np.ndarray


def find_subjects(photos: Path, sources: list[Path], outputs: Path | None, masks: Path | None) -> list[Subject]:
    """The `sources`, below `photos`, with the outputs and masks of the same relative path, suffixes aside.

    Raises:
        SDPGANError: two sources share a path, one has no output, or none has a mask.
    """
    stems = [path.relative_to(photos).with_suffix("") for path in sources]
    twins = [stem for stem, count in Counter(stems).items() if count > 1]
    if twins:
        raise SDPGANError(f"{photos} holds {twins[0]} with several suffixes; rename all but one.")
    output_of = by_stem(outputs) if outputs is not None else dict.fromkeys(stems)
    missing = [stem for stem in stems if stem not in output_of]
    if missing:
        raise SDPGANError(
            f"{outputs} holds nothing made of {missing[0]} ({len(missing)} of {len(stems)} photos are missing); "
            "files must have the relative path of their photo, suffixes aside."
        )
    mask_of = by_stem(masks) if masks is not None else {}
    if masks is not None and mask_of.keys().isdisjoint(stems):
        raise SDPGANError(f"No mask in {masks} has the path of a photo in {photos}, suffixes aside.")
    return [
        Subject(stem.as_posix(), source, output_of[stem], mask_of.get(stem))
        for stem, source in zip(stems, sources, strict=True)
    ]


def write_subjects(
    subjects: list[Subject], model: SDPGAN | None, shares: dict[str, float | None], size: int, folder: Path
) -> int:
    """Photos and paintings as PNG files of the same size in `folder`; how many outputs had to be scaled for that.

    There is a version of the painting for each of `shares`: its name -> the share of the photo's detail that a model
    keeps.
    """
    resized = 0
    for subject in tqdm(subjects, desc="paintings", unit="photo", leave=False):
        photo = pictures.read_scaled(subject.source, size)
        pictures.write(subject.file(folder, "photos"), photo)
        for version, share in shares.items():
            if subject.output is None:
                painting = model.stylize(photo, keep_detail=share)
            else:
                painting = pictures.read(subject.output)
                if painting.shape != photo.shape:
                    resized += 1
                    painting = pictures.scaled(painting, *photo.shape[:2])
            pictures.write(subject.file(folder, version), painting)
    return resized


def draw_sheet(subjects: list[Subject], folder: Path) -> np.ndarray:
    """A column a photo, uint8 H x W x 3: photo, painting, and the saliency reference of both."""
    columns = []
    for subject in subjects:
        images = [pictures.read(subject.file(folder, version)) for version in ("photos", "outputs")]
        cells = [*images, *(heat_map(reference(image)) for image in images)]
        columns.append(np.concatenate([pictures.centre_square(cell) for cell in cells]))
    return pictures.contact_sheet(columns, len(columns))


def measure(
    subjects: list[Subject], folder: Path, versions: Sequence[str], workers: int, vgg: PerceptualFeatures
) -> dict[str, list[Measured]]:
    """What is found out about each version of the painting of every subject."""
    measured: dict[str, list[Measured]] = {version: [] for version in versions}
    bar = tqdm(total=len(subjects), desc="detail, artifacts", unit="photo", leave=False)
    with bar, contextlib.ExitStack() as stack:
        run = map
        if workers:
            run = stack.enter_context(ProcessPoolExecutor(workers, mp_context=get_context("spawn"))).map
        results = run(partial(_measure, folder=folder, versions=versions), subjects)
        for subject, found in zip(subjects, results, strict=True):
            photo = _features(subject.file(folder, "photos"), vgg)
            for version, one in zip(versions, found, strict=True):
                painting = _features(subject.file(folder, version), vgg)
                for region, distance in details.content_distance(photo, painting, one.region).items():
                    one.figures[region]["content_distance"] = distance
                measured[version].append(one)
            bar.update()
    return measured


@torch.inference_mode()
def _features(path: Path, vgg: PerceptualFeatures) -> torch.Tensor:
    pixels = torch.from_numpy(pictures.read(path)).permute(2, 0, 1)[None]
    return vgg(imaging.to_signed(pixels).to(vgg.mean.device))


def _measure(subject: Subject, folder: Path, versions: Sequence[str]) -> list[Measured]:
    photo = pictures.read(subject.file(folder, "photos"))
    photo_map = reference(photo)
    if subject.mask is None:
        region = details.salient_region(photo_map)
    else:
        region = pictures.read_mask(subject.mask, *photo.shape[:2]) > 0
    of_the_photo = {f"photo_{name}": value for name, value in _of_one_image(photo, photo).items()}
    measured = []
    for version in versions:
        painting = pictures.read(subject.file(folder, version))
        painting_map = reference(painting)
        figures = {
            "mask": "reference" if subject.mask is None else "human",
            **details.detail(photo, painting, region),
            # mean |R(x) - R(G(x))| of maps of the reference method R, which no training has seen to
            "saliency_change": float(np.abs(photo_map - painting_map).mean()),
            **_of_one_image(painting, photo),
            "border_error": artifacts.border_error(photo, painting),
            **of_the_photo,
        }
        measured.append(Measured(region, figures, artifacts.colour_grid(photo), artifacts.colour_grid(painting)))
    return measured


def _of_one_image(image: np.ndarray, photo: np.ndarray) -> dict[str, Any]:
    """What is measured of a painting and of its photo alike."""
    return {
        "checkerboard": artifacts.checkerboard(image),
        "flat_grain": artifacts.flat_grain(photo, image),
        "near_constant": artifacts.near_constant(image),
        "chroma": colour.mean_chroma(image),
    }


def means(measured: list[Measured], painting_chroma: list[float]) -> dict[str, Any]:
    """Over all photos: "detail" in both regions, "artifacts" of outputs and photos, and "colour", the mean chroma.

    painting_chroma: that of each of the paintings that the style should come close to.
    """

    def mean(key: str, of: str | None = None) -> float | None:
        values = [one.figures[key] if of is None else one.figures[key][of] for one in measured]
        present = [float(value) for value in values if value is not None]
        return float(np.mean(present)) if present else None

    detail: dict[str, Any] = {}
    for region in ("salient", "background"):
        detail[region] = {key: mean(region, key) for key in DETAIL_FIGURES}
        detail[region]["photos"] = sum(one.figures[region]["detail_kept"] is not None for one in measured)
    human = sum(one.figures["mask"] == "human" for one in measured)
    detail |= {
        "saliency_change": mean("saliency_change"),
        "human_masks": human,
        "reference_masks": len(measured) - human,
    }
    found = {}
    for name, prefix in (("outputs", ""), ("photos", "photo_")):
        found[name] = {f"checkerboard_{of}": mean(f"{prefix}checkerboard", of) for of in ("2px", "4px", "levels")}
        found[name]["flat_grain"] = mean(f"{prefix}flat_grain")
        found[name]["near_constant_share"] = mean(f"{prefix}near_constant")
    grids = [np.concatenate([getattr(one, key) for one in measured]) for key in ("photo_colours", "painting_colours")]
    found["outputs"] |= {"border_error": mean("border_error"), **artifacts.colour_shift(*grids)}
    chroma = {"outputs": mean("chroma"), "photos": mean("photo_chroma"), "paintings": float(np.mean(painting_chroma))}
    ratio = chroma["outputs"] / chroma["paintings"] if chroma["paintings"] > 0 else None
    return {"detail": detail, "artifacts": found, "colour": chroma | {"ratio": ratio}}
