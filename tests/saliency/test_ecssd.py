"""Accuracy on photos with human masks; the full figures are tests/benchmarks/bench_saliency.py's."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip("numba")
pytest.importorskip("skimage")

from sdpgan_hub.saliency import minimum_barrier, robust_background


def area_under_roc(saliency: np.ndarray, mask: np.ndarray) -> float:
    levels = np.round(255 * saliency).astype(int)
    hits, alarms = (np.bincount(levels[part], minlength=256)[::-1].cumsum() / part.sum() for part in (mask, ~mask))
    return float((np.diff(alarms, prepend=0) * (hits + np.concatenate([[0], hits[:-1]])) / 2).sum())


@pytest.mark.slow
def test_the_mean_separates_objects_better_than_either_map_and_all_err_little(shared):
    folder = shared / "data" / "saliency_benchmark" / "ECSSD"
    images = sorted((folder / "images").glob("*.jpg"))[::5]
    areas, errors = [], []
    for path in images:
        image = cv2.imread(str(path))[:, :, ::-1]
        mask = cv2.imread(str(folder / "masks" / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE) > 128
        maps = [robust_background(image), minimum_barrier(image)]
        maps.append(0.5 * (maps[0] + maps[1]))
        areas.append([area_under_roc(saliency, mask) for saliency in maps])
        errors.append([np.abs(saliency - mask).mean() for saliency in maps])
    rbd, mb, mean = np.mean(areas, axis=0)
    assert mean > max(rbd, mb) and rbd > 0.87 and mb > 0.89
    assert (np.mean(errors, axis=0) < 0.19).all()
