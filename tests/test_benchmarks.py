"""What the benchmarks compare with is what they say it is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sdpgan_hub.networks import Generator, SaliencyNetwork

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import bench_training
from layouts import AuthorsGenerator, animegan, cyclegan
from measuring import gflop


def test_a_batch_may_be_larger_than_the_photos_that_are_made_up_for_a_small_one(tmp_path: Path):
    batch_size = bench_training.IMAGES + 1
    options = ["--batch_size", str(batch_size), "--size", "64", "--base_channels", "4", "--device", "cpu"]
    bench_training.write_inputs(tmp_path, 64, batch_size)
    step = bench_training.OurStep(bench_training.parse(options), tmp_path, None)
    assert len(step.trainer.data) == batch_size


def test_the_authors_layout_costs_its_published_143_gflop_and_ours_three_quarters_at_most():
    with torch.device("meta"):
        x = torch.empty(1, 3, 256, 256)
        authors, generator, saliency_network = AuthorsGenerator(), Generator(), SaliencyNetwork()
        theirs = gflop(lambda: authors(x))
        ours = gflop(lambda: generator(x, saliency_network.encode(x)))
    assert abs(theirs / 143 - 1) < 0.02
    assert ours / theirs < 0.75


def test_the_other_layouts_have_their_published_parameters_and_keep_the_size():
    with torch.device("meta"):
        for network, parameters in ((cyclegan(), 11_378_179), (animegan(), 2_141_760)):
            assert sum(parameter.numel() for parameter in network.parameters()) == parameters
            assert network(torch.empty(1, 3, 64, 96)).shape == (1, 3, 64, 96)


@pytest.mark.slow
def test_a_step_costs_at_most_055_of_the_authors_recipe_and_12_of_cartoongan():
    command = [sys.executable, bench_training.__file__, "--batch_size", "1", "--size", "64", "--repeats", "1",
               "--device", "cpu", "--threads", "1", "--json"]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["ratios"]["ours / authors"]["gflop"] <= 0.55
    assert 1 < result["ratios"]["ours / cartoongan"]["gflop"] <= 1.2
    assert all(one["peak_mib"] > 100 for one in result["recipes"].values())
