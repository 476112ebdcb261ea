"""The cost of a training step, in operations, which no machine's noise touches."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parent / "benchmarks" / "bench_training.py"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="the extra 'training' is not installed")
def test_a_step_costs_at_most_055_of_the_authors_recipe_and_12_of_cartoongan():
    command = [sys.executable, BENCHMARK, "--batch_size", "1", "--size", "64", "--repeats", "1", "--device", "cpu",
               "--threads", "1", "--json"]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ratios"]["ours / authors"]["gflop"] <= 0.55
    assert 1 < result["ratios"]["ours / cartoongan"]["gflop"] <= 1.2
    parts = {name: one["gflop"] for name, one in result["parts"].items()}
    assert sum(parts[name] for name in ("G", "S", "D", "VGG")) == pytest.approx(
        result["recipes"]["ours"]["gflop"], rel=0.01
    )
    assert all(one["peak_mib"] > 100 for one in result["recipes"].values())
