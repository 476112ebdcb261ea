#!/usr/bin/env python
"""Measures a style on photos: whether it deceives, how much detail is kept, its colour, which artifacts there are.

    python training/evaluate.py --style NAME|FOLDER|HUB_ID --photos DIR --paintings DIR [--masks DIR]
        [--painters NAME=DIR... --painter NAME --classifier_photos DIR] [--robustness]
    python training/evaluate.py --outputs DIR --photos DIR --paintings DIR [...]
    python training/evaluate.py saliency --style NAME|FOLDER|HUB_ID --images DIR --masks DIR

The second form scores what any other program made of the same photos: files of the same relative paths, suffixes
aside. `--write DIR` leaves the photos as they are measured in DIR/photos, for other programs to paint, and the
paintings in DIR/outputs. A style that keeps some of the photo's detail (`keep_detail`) is measured with it and without:
those paintings, of the generator alone, are in DIR/generator, and the headline figures are theirs. The third form
measures the saliency network against human masks. A table goes to standard output, `--json` and `--sheet` write files.
training/metrics defines every figure. The same inputs give the same figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch

if not __package__:  # run as a file: the repository's root is not on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from sdpgan_hub import SDPGAN
from sdpgan_hub.errors import SDPGANError
from sdpgan_hub.files import write_whole
from sdpgan_hub.memory import keep_freed_memory
from training.data import pictures
from training.data.sources import image_files, spread
from training.losses.perceptual import PerceptualFeatures
from training.metrics import artifacts, colour, deception, style
from training.metrics import robustness as robust
from training.metrics import saliency as accuracies
from training.metrics.report import saliency_table, table
from training.metrics.subjects import draw_sheet, find_subjects, means, measure, write_subjects

SHEET_PHOTOS = 8


@dataclass(frozen=True)
class Judge:
    """By whom the results are to be taken for a painter's; see `training.metrics.deception.Classifier`."""

    painter: str
    painters: Mapping[str, deception.Folders]
    photos: deception.Folders
    held_back: Mapping[str, deception.Folders] | None = None
    size: int | None = None


def evaluate(
    photos: Path,
    paintings: Path,
    *,
    style_name: str | None = None,
    outputs: Path | None = None,
    masks: Path | None = None,
    judge: Judge | None = None,
    robustness: bool = False,
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
    keep_detail: float | None = None,
) -> dict[str, Any]:
    """All figures of a style, or of the files in `outputs`, as what JSON holds; `parse_arguments` says what each is of.

    One of `style_name` and `outputs` is given.

    `batch_size` and `workers` change the time it takes and nothing else.

    Returns:
        "name"; "settings", what was measured and how; "style", "detail", "artifacts", "colour" and "deception" (None
        without a judge); "each", the figures of every photo; "generator", the same but for "each" of the generator
        alone, where the paintings also keep some of the photo's detail, else None; "robustness", None unless asked for.

    Raises:
        SDPGANError: a folder, a file, a style or weights cannot be used, and why.
    """
    if style_name is None and (keep_detail is not None or robustness):
        raise SDPGANError("keep_detail and robustness are for how a --style paints; leave them out with --outputs.")
    least = {"size": robust.MIN_SIDE if robustness else artifacts.MIN_SIDE, "batch_size": 1, "workers": 0,
             "limit": style.MIN_SAMPLES, "seed": 0}  # fmt: skip
    given = {"size": size, "batch_size": batch_size, "workers": workers, "limit": limit, "seed": seed}
    for name, value in given.items():
        if value is not None and value < least[name]:
            raise SDPGANError(f"{name} is {value}; it must be at least {least[name]}.")
    device = _device(device)
    sources = spread(image_files(photos), limit)
    painting_files = image_files(paintings)
    if min(len(sources), len(painting_files) // 2) < style.MIN_SAMPLES:
        raise SDPGANError(
            f"{photos} and {paintings} hold {len(sources)} photos and {len(painting_files)} paintings; "
            f"at least {style.MIN_SAMPLES} and {2 * style.MIN_SAMPLES} are needed."
        )
    subjects = find_subjects(photos, sources, outputs, masks)
    model = _loaded(style_name, device) if style_name is not None else None
    if model is not None and keep_detail is None:
        keep_detail = model.config["keep_detail"]
    shares = {"outputs": keep_detail} | ({"generator": 0.0} if keep_detail else {})
    if write is not None:
        _check_apart([write / name for name in ("photos", *shares)], [photos, paintings, outputs, masks])
    network = style.InceptionFeatures(inception, feature_layer, device, size)
    reading = {"batch_size": batch_size, "workers": workers}
    classifier = None
    if judge is not None:
        classifier = _classifier(judge, sources, inception, judge.size or size, seed, device=device, **reading)
    vgg = PerceptualFeatures(vgg_weights).to(device)

    with contextlib.ExitStack() as stack:
        folder = write or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sdpgan_evaluate_")))
        resized = write_subjects(subjects, model, shares, size, folder)
        files = {version: [subject.file(folder, version) for subject in subjects] for version in ("photos", *shares)}
        files["paintings"] = painting_files
        features = {name: network(paths, **reading, description=f"Inception, {name}") for name, paths in files.items()}
        measured = measure(subjects, folder, list(shares), workers, vgg)
        judged = {}
        if classifier is not None:
            judged = {name: classifier.rate(files[name], judge.painter) for name in ("photos", *shares)}
        if sheet is not None:
            pictures.write(sheet, draw_sheet(spread(subjects, SHEET_PHOTOS), folder))
        tones = [pictures.read(path) for path in spread(files["photos"], robust.PHOTOS)] if robustness else []
    painting_chroma = [colour.mean_chroma(pictures.read_scaled(path, size)) for path in painting_files]
    figures = {
        version: {
            "style": _style_figures(features | {"outputs": features[version]}, feature_layer, seed),
            **means(ones, painting_chroma),
            "deception": _deception_figures(judged[version], judged["photos"], judge, classifier) if judged else None,
        }
        for version, ones in measured.items()
    }
    name = str(style_name) if outputs is None else outputs.resolve().name
    return {
        "name": Path(name).name if Path(name).is_dir() else name,
        "settings": {
            "size": size,
            "seed": seed,
            "feature_layer": feature_layer,
            "inception": "torch-fidelity's own" if inception is None else inception.name,
            "resize": style.RESIZE.format(size=size),
            "vgg_weights": vgg.source,
            "photos": len(sources),
            "paintings": len(painting_files),
            "outputs_resized": resized,
            "keep_detail": keep_detail,
        },
        **figures["outputs"],
        "generator": figures.get("generator"),
        "robustness": robust.robustness(model, tones) if robustness else None,
        "each": {subject.name: one.figures for subject, one in zip(subjects, measured["outputs"], strict=True)},
    }


def evaluate_saliency(
    style_name: str, images: Path, masks: Path, device: str | torch.device | None = None
) -> dict[str, Any]:
    """The accuracy of a style's saliency network beside RBD, MB+ and their mean, as `training.metrics.saliency` has it.

    Raises:
        SDPGANError: the style has no saliency network or cannot be had, or an image or a mask cannot be read.
    """
    device = _device(device)
    model = _loaded(style_name, device)
    return accuracies.accuracy(accuracies.pairs(images, masks), model.saliency_map)


def _device(name: str | torch.device | None) -> torch.device:
    try:
        return torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise SDPGANError(f"--device is {name!r}; it must be a device of torch, such as cpu or cuda.") from error


def _check_apart(written: list[Path], read: list[Path | None]) -> None:
    """Refuses to write among the images that are measured."""
    for target in (path.resolve() for path in written):
        for source in (path.resolve() for path in read if path is not None):
            if target == source or target in source.parents or source in target.parents:
                raise SDPGANError(f"--write would put pictures into {target}, among those of {source}; name another.")


def _loaded(style: str, device: torch.device) -> SDPGAN:
    """The style in float32 on every processor, so that figures can be reproduced."""
    model = SDPGAN.from_pretrained(style, map_location=device)
    model.generator.bf16 = False
    return model


def _classifier(
    judge: Judge, measured: list[Path], inception: Path | None, size: int, seed: int, **running: Any
) -> deception.Classifier:
    if judge.painter not in judge.painters:
        raise SDPGANError(f"--painter is {judge.painter!r}; name one of --painters: {', '.join(judge.painters)}.")
    learnt = {path.resolve() for path in deception.files(judge.photos)}
    both = [path for path in measured if path.resolve() in learnt]
    if both:
        raise SDPGANError(
            f"The classifier would learn what a photo is from {both[0]}, which is measured ({len(both)} of "
            f"{len(measured)} photos); give other --classifier_photos."
        )
    return deception.Classifier(
        judge.painters, judge.photos, inception, size, held_back=judge.held_back, seed=seed, **running
    )


def _style_figures(features: dict[str, dict[str, torch.Tensor]], layer: str, seed: int) -> dict[str, Any]:
    """Distances to the paintings of the outputs, of the untouched photos, and of one half of them to the other."""
    paintings = features["paintings"][layer]
    figures = {name: style.distance(features[name][layer], paintings, layer, seed) for name in ("outputs", "photos")}
    figures["paintings"] = style.distance(*style.halves(paintings, seed), layer, seed)
    for name, of_the_set in figures.items():
        if style.LOGITS in features[name]:
            of_the_set |= style.inception_score(features[name][style.LOGITS], seed)
    return figures


def _deception_figures(
    outputs: dict[str, Any], photos: dict[str, Any], judge: Judge, classifier: deception.Classifier
) -> dict[str, Any]:
    """The rate of the outputs, that of the photos they were made of, and how good the classifier is."""
    return outputs | {
        "photos": photos,
        "painter": judge.painter,
        "held_back_accuracy": classifier.held_back_accuracy,
        "held_back": classifier.held_back,
        "learnt_from": classifier.images,
        "enlarged": classifier.enlarged,
        "size": classifier.statistics.size,
    }


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="evaluate.py",
        description=(__doc__ or "").split("\n")[0],
        epilog="evaluate.py saliency --help: measure a style's saliency network against human masks.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--style", metavar="NAME|FOLDER|HUB_ID", help="the style that paints the photos")
    what.add_argument("--outputs", type=Path, metavar="DIR", help="what another program made of the same photos")
    parser.add_argument("--keep_detail", type=float, metavar="SHARE",
                        help="paint with this share of the photo's fine structure where people look, in place of the "
                        "style's own; the generator alone is measured beside it")  # fmt: skip
    parser.add_argument("--photos", type=Path, metavar="DIR", required=True)
    parser.add_argument("--paintings", type=Path, metavar="DIR", required=True, help="the style to come close to")
    parser.add_argument("--masks", type=Path, metavar="DIR", help="human masks, used for each photo that has one")
    parser.add_argument("--painters", nargs="+", action="extend", metavar="NAME=DIR", default=[],
                        help="measure the deception rate, by a classifier of photos and these painters; a painter with "
                        "several folders is named several times")  # fmt: skip
    parser.add_argument("--painter", metavar="NAME", help="which of --painters the results are to be taken for")
    parser.add_argument("--classifier_photos", type=Path, nargs="+", action="extend", metavar="DIR",
                        help="photos for the classifier to learn from; none that is measured")  # fmt: skip
    parser.add_argument("--held_back", nargs="+", action="extend", metavar="NAME=DIR", default=[],
                        help="images to measure the classifier's accuracy on, NAME one of --painters or photo "
                        f"(default: {deception.HELD_BACK:.0%}% of what it would learn from)")  # fmt: skip
    parser.add_argument("--classifier_size", type=int, metavar="PIXELS",
                        help="shorter side at which all images are classified (default: --size); no larger than the "
                        "painters' images")  # fmt: skip
    parser.add_argument("--robustness", action="store_true",
                        help="also measure if tone follows the photo, and paintings stay when it moves")  # fmt: skip
    _add_common(parser)
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
    parser.add_argument("--seed", type=int, default=0,
                        help="of KID's subsets, the halves, the images held back (default: %(default)s)")  # fmt: skip
    return parser.parse_args(argv)


def parse_saliency_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="evaluate.py saliency",
        description="Measures a style's saliency network, RBD, MB+ and their mean against human masks.",
    )
    parser.add_argument("--style", metavar="NAME|FOLDER|HUB_ID", required=True)
    parser.add_argument("--images", type=Path, metavar="DIR", required=True)
    parser.add_argument("--masks", type=Path, metavar="DIR", required=True, help="one for each image, of the same path")
    _add_common(parser)
    return parser.parse_args(argv)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, each photo's too")
    parser.add_argument("--device", help="default: cuda where there is one, else cpu")


def _judge(options: dict[str, Any]) -> Judge | None:
    """Takes what is the classifier's out of the options."""
    painters, held_back = (_named_folders(options.pop(key)) for key in ("painters", "held_back"))
    painter, photos, size = (options.pop(key) for key in ("painter", "classifier_photos", "classifier_size"))
    if not (painters or held_back or painter or photos or size):
        return None
    if not (painters and painter and photos):
        raise SDPGANError("The deception rate needs --painters, --painter and --classifier_photos, all of them.")
    return Judge(painter, painters, photos, held_back, size)


def _named_folders(texts: list[str]) -> dict[str, list[Path]]:
    folders: dict[str, list[Path]] = {}
    for text in texts:
        name, separator, folder = text.partition("=")
        if not (name and separator and folder):
            raise SDPGANError(f"{text!r} is not of the form NAME=DIR.")
        folders.setdefault(name, []).append(Path(folder))
    return folders


def main(argv: list[str] | None = None) -> int:
    """The command line: 0, or 2 with one sentence on stderr."""
    argv = sys.argv[1:] if argv is None else argv
    of_saliency = argv[:1] == ["saliency"]
    options = vars(parse_saliency_arguments(argv[1:]) if of_saliency else parse_arguments(argv))
    target, style_name = options.pop("json"), options.pop("style")
    try:
        if of_saliency:
            result = evaluate_saliency(style_name, **options)
            print(f"{result['images']} images of {options['images']}\n\n{saliency_table(result['figures'])}")
        else:
            result = evaluate(style_name=style_name, judge=_judge(options), **options)
            print(table(result))
        if target is not None:
            write_whole(target, (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())
    except SDPGANError as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    cv2.setNumThreads(1)
    keep_freed_memory()
    sys.exit(main())
