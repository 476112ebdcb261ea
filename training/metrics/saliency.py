"""Saliency: how well maps of where people look fit the masks that people drew, by pysodmetrics.

A map is a float H x W in [0, 1], 1 where people look; a mask is a uint8 H x W of which more than 128 is salient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.integrate import trapezoid
from tqdm.auto import tqdm

from sdpgan_hub.errors import SDPGANError
from sdpgan_hub.saliency import minimum_barrier, robust_background

from ..data import pictures
from ..data.sources import by_stem, image_files

SHOWN = ("MAE", "max F (mean P, R)", "max F (mean F)", "AUC", "S-measure")
"""The figures of `Accuracy.results` that papers on salient objects have."""


class Accuracy:
    """pysodmetrics' figures of one method: step() once per photo, then results()."""

    def __init__(self) -> None:
        import py_sod_metrics as metrics

        kinds = {"f": metrics.FmeasureHandler, "precision": metrics.PrecisionHandler}
        kinds |= {"recall": metrics.RecallHandler, "fpr": metrics.FPRHandler}
        self.curves = {name: kind(with_dynamic=True, with_adaptive=False) for name, kind in kinds.items()}
        self.mae, self.weighted, self.s = metrics.MAE(), metrics.WeightedFmeasure(), metrics.Smeasure()
        self.e = metrics.Emeasure()
        self.metrics = (metrics.FmeasureV2(self.curves), self.mae, self.weighted, self.s, self.e)
        self.areas: list[float] = []

    def step(self, saliency: np.ndarray, mask: np.ndarray) -> None:
        """Takes in the map of one photo and its mask, of the same H x W."""
        levels = np.round(255 * saliency).astype(np.uint8)
        for metric in self.metrics:
            metric.step(pred=levels, gt=mask)
        self.areas.append(float(saliency.mean()))

    def per_image(self) -> list[dict[str, float]]:
        """Each photo's "MAE", the mean of its map ("area"), and its F at the best threshold for it ("max F")."""
        return [
            {"MAE": float(error), "area": area, "max F": float(curve.max())}
            for error, area, curve in zip(self.mae.maes, self.areas, self.curves["f"].dynamic_results, strict=True)
        ]

    def results(self) -> dict[str, float]:
        """The figures over all photos.

        "MAE"; "max F (mean P, R)", beta^2 = 0.3, of the mean precision and recall curves; "max F (mean F)", of the mean
        of the photos' F curves; "AUC", the mean of the areas under the photos' ROC curves; "weighted F"; "S-measure"
        (Fan et al., ICCV 2017); "max E".
        """
        curves = {name: np.asarray(handler.dynamic_results) for name, handler in self.curves.items()}
        precision, recall = (np.mean(curves[name], axis=0) for name in ("precision", "recall"))
        recalls, false_positives = curves["recall"], curves["fpr"]
        start = np.zeros((len(recalls), 1))
        areas = trapezoid(np.hstack([start, recalls]), np.hstack([start, false_positives]), axis=1)
        return {
            "MAE": float(self.mae.get_results()["mae"]),
            "max F (mean P, R)": float((1.3 * precision * recall / np.maximum(0.3 * precision + recall, 1e-9)).max()),
            "max F (mean F)": float(np.mean(curves["f"], axis=0).max()),
            "AUC": float(areas.mean()),
            "weighted F": float(self.weighted.get_results()["wfm"]),
            "S-measure": float(self.s.get_results()["sm"]),
            "max E": float(self.e.get_results()["em"]["curve"].max()),
        }


def pairs(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    """The images of a folder with the masks of the same relative path, suffixes aside, in the images' order.

    Raises:
        SDPGANError: a folder holds no image, or no mask is that of an image.
    """
    mask_of = by_stem(masks)
    stems = {path: path.relative_to(images).with_suffix("") for path in image_files(images)}
    found = [(path, mask_of[stem]) for path, stem in stems.items() if stem in mask_of and path != mask_of[stem]]
    if not found:
        raise SDPGANError(f"No mask in {masks} has the path of an image in {images}, suffixes aside.")
    return found


def accuracy(
    pairs: Iterable[tuple[Path, Path]], network: Callable[[np.ndarray], np.ndarray] | None = None
) -> dict[str, Any]:
    """The accuracy of RBD, MB+ and their mean (Eq. 7's reference), and of a network's maps, on images and their masks.

    Args:
        pairs: image files and mask files; a mask of another size is scaled to its image.
        network: uint8 H x W x 3, RGB, to its map, such as `SDPGAN.saliency_map`; its figures are called "S".

    Returns:
        "images": how many; "figures": method -> `Accuracy.results`; "per_image", in turn: the stem of the "image",
        the share of its "mask", and of each method what `Accuracy.per_image` gives.

    Raises:
        SDPGANError: a file cannot be read.
    """
    pairs = list(pairs)
    methods = {"S": network} if network is not None else {}
    methods |= {"RBD": robust_background, "MB+": minimum_barrier}
    scores = {name: Accuracy() for name in (*methods, "mean")}
    per_image: list[dict[str, Any]] = []
    for image_path, mask_path in tqdm(pairs, desc="saliency", unit="image", leave=False):
        image = pictures.read(image_path)
        mask = pictures.read_mask(mask_path, *image.shape[:2])
        maps = {name: method(image) for name, method in methods.items()}
        maps["mean"] = 0.5 * (maps["RBD"] + maps["MB+"])
        per_image.append({"image": image_path.stem, "mask": float((mask > 0).mean())})
        for name, saliency in maps.items():
            scores[name].step(saliency, mask)
    for name, score in scores.items():
        for image, figures in zip(per_image, score.per_image(), strict=True):
            image[name] = figures
    return {"images": len(pairs), "figures": {n: s.results() for n, s in scores.items()}, "per_image": per_image}
