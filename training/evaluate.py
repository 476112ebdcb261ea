#!/usr/bin/env python
"""Measures a style on photos: how close to the paintings, how much detail is kept, which artifacts there are.

    python training/evaluate.py --style NAME|FOLDER|HUB_ID --photos DIR --paintings DIR [--masks DIR]
    python training/evaluate.py --outputs DIR --photos DIR --paintings DIR [--masks DIR]

The second form scores what any other program made of the same photos: files of the same relative paths, suffixes
aside. `--write DIR` leaves the photos as they are measured in DIR/photos, for other programs to paint, and the
paintings in DIR/outputs. A table goes to standard output, `--json` and `--sheet` write files. training/metrics defines
every figure. The same inputs give the same figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm.auto import tqdm

if not __package__:  # run as a file: the repository's root is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sdpgan_hub import SDPGAN, imaging, keep_freed_memory
from sdpgan_hub.errors import SDPGANError
from sdpgan_hub.saliency import reference
from sdpgan_hub.visualization import heat_map
from training import pictures
from training.metrics import artifacts, style
from training.metrics import detail as details
from training.perceptual import PerceptualFeatures
from training.prepare import image_files, read_mask

SHEET_PHOTOS = 8
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


def evaluate(
    photos: Path,
    paintings: Path,
    *,
    style_name: str | None = None,
    outputs: Path | None = None,
    masks: Path | None = None,
    size: int = 256,
    limit: int | None = None,
    inception: Path | None = None,
    feature_layer: str = style.FULL_LAYER,
    vgg_weights: Path | None = None,
    batch_size: int = 8,
    workers: int = 0,
    device: str | torch.device | None = None,
    seed: int = 0,
    write: Path | None = None,
    sheet: Path | None = None,
    detail_skip: float | None = None,
) -> dict[str, Any]:
    """All figures of a style, or of the files in `outputs`, as what JSON holds; see `main` for the arguments.

    `batch_size` and `workers` change the time it takes and nothing else.

    Raises:
        SDPGANError: a folder, a file, a style or weights cannot be used, and why.
    """
    if (style_name is None) == (outputs is None):
        raise SDPGANError("Give --style or --outputs, one of them.")
    if detail_skip is not None and style_name is None:
        raise SDPGANError("detail_skip is for how a --style paints; leave it out with --outputs.")
    least = {"size": artifacts.MIN_SIDE, "batch_size": 1, "workers": 0, "limit": style.MIN_SAMPLES}
    for name, value in {"size": size, "batch_size": batch_size, "workers": workers, "limit": limit}.items():
        if value is not None and value < least[name]:
            raise SDPGANError(f"{name} is {value}; it must be at least {least[name]}.")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    sources = _spread(image_files(photos), limit)
    painting_files = image_files(paintings)
    if min(len(sources), len(painting_files) // 2) < style.MIN_SAMPLES:
        raise SDPGANError(
            f"{photos} and {paintings} hold {len(sources)} photos and {len(painting_files)} paintings; "
            f"at least {style.MIN_SAMPLES} and {2 * style.MIN_SAMPLES} are needed."
        )
    found_masks = _by_stem(masks) if masks is not None else {}
    given = _by_stem(outputs) if outputs is not None else None
    model = SDPGAN.from_pretrained(style_name, map_location=device) if style_name is not None else None
    if model is not None and detail_skip is None:
        detail_skip = model.config["detail_skip"]
    network = style.InceptionFeatures(inception, feature_layer, device, size)
    vgg = PerceptualFeatures(vgg_weights).to(device)

    with contextlib.ExitStack() as stack:
        folder = write or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sdpgan_evaluate_")))
        subjects, resized = _write_subjects(
            photos, sources, model, detail_skip, given, outputs, found_masks, size, folder
        )
        if masks is not None and not any(subject.mask for subject in subjects):
            raise SDPGANError(f"No mask in {masks} has the path of a photo in {photos}, suffixes aside.")
        shown = {subject.name for subject in _spread(subjects, SHEET_PHOTOS)} if sheet is not None else set()
        measured = [
            _with_content_distance(one, subject, vgg)
            for one, subject in zip(_measure_all(subjects, shown, workers), subjects, strict=True)
        ]
        features = {
            name: network(files, batch_size, workers, f"Inception, {name}")
            for name, files in (
                ("outputs", [subject.painting for subject in subjects]),
                ("photos", [subject.photo for subject in subjects]),
                ("paintings", painting_files),
            )
        }
    if sheet is not None:
        pictures.write(sheet, np.concatenate([one.sheet for one in measured if one.sheet is not None], axis=1))
    name = str(style_name) if style_name is not None else Path(outputs).resolve().name
    return {
        "name": Path(name).name if style_name is not None and Path(name).is_dir() else name,
        "settings": {
            "size": size,
            "seed": seed,
            "feature_layer": feature_layer,
            "inception": "torch-fidelity's own" if inception is None else inception.name,
            "resize": style.RESIZE.format(size=size),
            "vgg_weights": vgg.source,
            "photos": len(subjects),
            "paintings": len(painting_files),
            "outputs_resized": resized,
            "detail_skip": detail_skip,
        },
        "style": _style_figures(features, feature_layer, seed),
        "detail": _detail_figures(measured, subjects),
        "artifacts": _artifact_figures(measured),
        "each": {one.name: one.figures for one in measured},
    }


def headline(result: dict[str, Any]) -> dict[str, float | None]:
    """The figures of `evaluate` by which variants are compared: name with its unit or sense -> value."""
    layer = result["settings"]["feature_layer"]
    kid, fid = (style.figure(name, layer) for name in ("KID", "FID"))
    ours, photos = result["style"]["outputs"], result["style"]["photos"]
    salient, background = result["detail"]["salient"], result["detail"]["background"]
    found = result["artifacts"]["outputs"]
    return {
        kid: ours[kid],
        f"{kid} / photos'": ours[kid] / photos[kid] if photos[kid] > 0 else None,
        fid: ours[fid],
        "salient detail kept": salient["detail_kept"],
        "background detail kept": background["detail_kept"],
        "salient VGG distance": salient["content_distance"],
        "saliency change": result["detail"]["saliency_change"],
        "checkerboard": max(found["checkerboard_2px"], found["checkerboard_4px"]),
        "checkerboard levels": found["checkerboard_levels"],
        "grain of flat areas": found["flat_grain"],
        "border error": found["border_error"],
        "near-constant share": found["near_constant_share"],
        "colour shift": found["colour_shift"],
    }


def table(result: dict[str, Any]) -> str:
    """The result of `evaluate` as Markdown tables, each figure with its samples, layer and resize mode."""
    settings, layer = result["settings"], result["settings"]["feature_layer"]
    fid, kid = style.figure("FID", layer), style.figure("KID", layer)
    rows = [("outputs", result["name"]), ("photos", "untouched photos"), ("paintings", "half of the paintings")]
    scores = "IS" in result["style"]["outputs"]
    lines = [
        f"**Style** ({kid} is the one to trust below 2,000 images; lower is closer to the paintings)",
        "",
        f"| against the paintings | {kid} (std of subsets) | {fid} | {'IS | ' if scores else ''}images, paintings | "
        "KID subsets | layer | resize |",
        "|---|---|---|---|---|---|---|" + ("---|" if scores else ""),
    ]
    for key, label in rows:
        one = result["style"][key]
        score = f"{one['IS']:.2f} | " if scores and "IS" in one else "| " if scores else ""
        lines.append(
            f"| {label} | {one[kid]:.5f} ({one[f'{kid} std']:.5f}) | {one[fid]:.3f} | {score}"
            f"{one['images']}, {one['paintings']} | {style.KID_SUBSETS} x {one['KID subset size']} | {layer} | "
            f"{settings['resize']} |"
        )
    share, detail = headline(result)[f"{kid} / photos'"], result["detail"]
    if share is not None:
        lines += ["", f"The outputs' {kid} is {share:.2f} of the untouched photos'."]
    lines += [
        "",
        f"**Detail** ({detail['human_masks']} photos with human masks, {detail['reference_masks']} with the saliency "
        f"reference; shorter side {settings['size']} px; VGG: {settings['vgg_weights']})",
        "",
        "| region | detail kept | luminance SSIM | gradient correlation | VGG content distance | photos |",
        "|---|---|---|---|---|---|",
    ]
    for region in ("salient", "background"):
        one = detail[region]
        figures = " | ".join(
            _number(one[key]) for key in ("detail_kept", "ssim", "gradient_correlation", "content_distance")
        )
        lines.append(f"| {region} | {figures} | {one['photos']} |")
    lines += [
        "",
        f"**Salient detail kept: {_number(detail['salient']['detail_kept'])}** (1 = the photo itself). "
        f"Change of the saliency map, by the reference method: {_number(detail['saliency_change'])}.",
        "",
        "**Artifacts**",
        "",
        "| of | checkerboard 2 px (1 = none) | 4 px (1 = none) | grey levels of 255 | "
        "grain of flat areas (grey levels) | border error (1 = none) | near-constant | "
        "colour shift (CIEDE2000) | not explained by one palette |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for key, label in rows[:2]:
        one = result["artifacts"][key]
        lines.append(
            f"| {label} | {_number(one['checkerboard_2px'])} | {_number(one['checkerboard_4px'])} | "
            f"{_number(one['checkerboard_levels'])} | {_number(one['flat_grain'])} | "
            f"{_number(one.get('border_error'))} | {one['near_constant_share']:.1%} | "
            f"{_number(one.get('colour_shift'), 1)} | {_number(one.get('colour_shift_unexplained'), 1)} |"
        )
    if settings["outputs_resized"]:
        lines += [
            "",
            f"{settings['outputs_resized']} outputs were of another size than the photos measured here and were "
            "scaled; to compare artifacts and detail alike, paint the photos that `--write DIR` leaves in DIR/photos.",
        ]
    return "\n".join(lines)


def _write_subjects(
    photos: Path,
    sources: list[Path],
    model: SDPGAN | None,
    detail_skip: float | None,
    given: dict[Path, Path] | None,
    outputs: Path | None,
    masks: dict[Path, Path],
    size: int,
    folder: Path,
) -> tuple[list[Subject], int]:
    """Photos and paintings as PNG files of the same size in `folder`; how many outputs had to be scaled for that."""
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
    subjects, resized = [], 0
    for source, stem in zip(tqdm(sources, desc="paintings", unit="photo", leave=False), stems, strict=True):
        photo = pictures.read_scaled(source, size)
        if given is None:
            painting = model.stylize(photo, detail_skip=detail_skip)
        else:
            painting = pictures.read(given[stem])
            if painting.shape != photo.shape:
                resized += 1
                painting = pictures.scaled(painting, *photo.shape[:2])
        files = [folder / kind / stem.with_name(stem.name + ".png") for kind in ("photos", "outputs")]
        pictures.write(files[0], photo)
        pictures.write(files[1], painting)
        subjects.append(Subject(stem.as_posix(), *files, masks.get(stem)))
    return subjects, resized


def _measure_all(subjects: list[Subject], shown: set[str], workers: int) -> Iterator[Measured]:
    jobs = [(subject, subject.name in shown) for subject in subjects]
    bar = tqdm(total=len(jobs), desc="detail, artifacts", unit="photo", leave=False)
    with bar, contextlib.ExitStack() as stack:
        if workers:
            pool = stack.enter_context(ProcessPoolExecutor(workers, mp_context=get_context("spawn")))
            results = pool.map(_measure, jobs)
        else:
            results = map(_measure, jobs)
        for one in results:
            bar.update()
            yield one


def _measure(job: tuple[Subject, bool]) -> Measured:
    subject, shown = job
    photo, painting = pictures.read(subject.photo), pictures.read(subject.painting)
    maps = reference(photo), reference(painting)
    if subject.mask is None:
        region = details.salient_region(maps[0])
    else:
        region = _read_region(subject.mask, photo.shape)
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
    }
    cells = None
    if shown:
        cells = [photo, painting, heat_map(maps[0]), heat_map(maps[1])]
        cells = np.concatenate([pictures.centre_square(cell) for cell in cells])
    colours = artifacts.colour_grid(photo), artifacts.colour_grid(painting)
    return Measured(subject.name, region, figures, *colours, cells)


def _read_region(mask: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        return read_mask(mask, *shape[:2]) > 0
    except SDPGANError as error:
        raise SDPGANError(f"{mask}: {error}") from error
    except (OSError, ValueError) as error:
        raise SDPGANError(f"{mask} cannot be read as a mask ({error}).") from error


@torch.inference_mode()
def _with_content_distance(one: Measured, subject: Subject, vgg: PerceptualFeatures) -> Measured:
    device = vgg.mean.device
    features = []
    for path in (subject.photo, subject.painting):
        pixels = torch.from_numpy(pictures.read(path)).permute(2, 0, 1)[None]
        features.append(vgg(imaging.to_signed(pixels).to(device)))
    for region, distance in details.content_distance(*features, one.region).items():
        one.figures[region]["content_distance"] = distance
    return one


def _style_figures(features: dict[str, dict[str, torch.Tensor]], layer: str, seed: int) -> dict[str, Any]:
    """Distances to the paintings of the outputs, of the untouched photos, and of one half of them to the other."""
    paintings = features["paintings"][layer]
    figures = {name: style.distance(features[name][layer], paintings, layer, seed) for name in ("outputs", "photos")}
    figures["paintings"] = style.distance(*style.halves(paintings, seed), layer, seed)
    for name, one in features.items():
        if style.LOGITS in one:
            figures[name] |= style.inception_score(one[style.LOGITS], seed)
    return figures


def _detail_figures(measured: list[Measured], subjects: list[Subject]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for region in ("salient", "background"):
        columns = {key: [one.figures[region][key] for one in measured] for key in DETAIL_FIGURES}
        result[region] = {key: _mean(values) for key, values in columns.items()}
        result[region]["photos"] = sum(value is not None for value in columns["detail_kept"])
    result["saliency_change"] = _mean([one.figures["saliency_change"] for one in measured])
    result["human_masks"] = sum(subject.mask is not None for subject in subjects)
    result["reference_masks"] = len(subjects) - result["human_masks"]
    return result


def _artifact_figures(measured: list[Measured]) -> dict[str, dict[str, float]]:
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


def _mean(values: list[float | None]) -> float | None:
    present = [float(value) for value in values if value is not None]
    return float(np.mean(present)) if present else None


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _spread(items: list, limit: int | None) -> list:
    """`limit` of them at even distances; all where there are no more."""
    if limit is None or len(items) <= limit:
        return items
    return [items[round(place)] for place in np.linspace(0, len(items) - 1, limit)]


def _by_stem(folder: Path) -> dict[Path, Path]:
    """The image files of a folder: relative path without suffix -> file; PNG wins over the lossy ones."""
    files = sorted(image_files(folder), key=lambda path: path.suffix.lower() == ".png")
    return {path.relative_to(folder).with_suffix(""): path for path in files}


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="evaluate.py", description=(__doc__ or "").split("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--style", metavar="NAME|FOLDER|HUB_ID", help="the style that paints the photos")
    what.add_argument("--outputs", type=Path, metavar="DIR", help="what another program made of the same photos")
    parser.add_argument("--detail_skip", type=float, metavar="SHARE",
                        help="paint with this share of the photo's fine structure where people look, in place of the "
                        "style's own: 0 for the generator alone")  # fmt: skip
    parser.add_argument("--photos", type=Path, metavar="DIR", required=True)
    parser.add_argument("--paintings", type=Path, metavar="DIR", required=True, help="the style to come close to")
    parser.add_argument("--masks", type=Path, metavar="DIR", help="human masks, used for each photo that has one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, each photo's too")
    parser.add_argument("--sheet", type=Path, metavar="FILE",
                        help="write photos, paintings and the saliency reference of both as one picture")  # fmt: skip
    parser.add_argument("--write", type=Path, metavar="DIR", help="keep the photos as measured and the paintings")
    parser.add_argument("--size", type=int, default=256, help="shorter side of the photos (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="use this many photos, at even distances in the folder")
    parser.add_argument("--inception", type=Path, metavar="FILE",
                        help="weights for torch-fidelity's FID network (default: its own download)")  # fmt: skip
    parser.add_argument("--feature_layer", default=style.FULL_LAYER, choices=style.LAYERS,
                        help="of the FID network; another than %(default)s is named with the figure")  # fmt: skip
    parser.add_argument("--vgg_weights", type=Path, metavar="FILE", help="VGG-19 (default: timm's download)")
    parser.add_argument("--batch_size", type=int, default=8, help="of the FID network (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="processes beside this one (default: %(default)s)")
    parser.add_argument("--device", help="default: cuda where there is one, else cpu")
    parser.add_argument("--seed", type=int, default=0, help="of KID's subsets and the halves (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The command line: 0, or 2 with one sentence on stderr."""
    options = vars(parse_arguments(argv))
    target = options.pop("json")
    options["style_name"] = options.pop("style")
    try:
        result = evaluate(**options)
        if target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    except SDPGANError as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"evaluate.py: {target} cannot be written: {error.strerror}.", file=sys.stderr)
        return 2
    print(table(result))
    return 0


if __name__ == "__main__":
    cv2.setNumThreads(1)
    keep_freed_memory()
    sys.exit(main())
