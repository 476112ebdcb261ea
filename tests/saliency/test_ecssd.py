"""Accuracy on photos with human masks; the full figures are tests/benchmarks/bench_saliency.py's."""

from __future__ import annotations

import pytest

pytest.importorskip("numba")
pytest.importorskip("skimage")
pytest.importorskip("py_sod_metrics")

from training.metrics import saliency


@pytest.mark.slow
def test_the_mean_separates_objects_better_than_either_map_and_all_err_little(shared):
    folder = shared / "data" / "saliency_benchmark" / "ECSSD"
    figures = saliency.accuracy(saliency.pairs(folder / "images", folder / "masks")[::5])["figures"]
    areas = {name: one["AUC"] for name, one in figures.items()}
    assert areas["mean"] > max(areas["RBD"], areas["MB+"]) and areas["RBD"] > 0.87 and areas["MB+"] > 0.89
    assert all(one["MAE"] < 0.19 for one in figures.values())
