"""What the benchmarks compare with is what they say it is."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from sdpgan_hub.networks import Generator, SaliencyNetwork

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import bench_training
from authors_layout import AuthorsGenerator
from other_layouts import animegan, cyclegan


def gflop(function, *inputs) -> float:
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        function(*inputs)
    return counter.get_total_flops() / 1e9


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
    theirs = gflop(authors, x)
    ours = gflop(lambda x: generator(x, saliency_network.encode(x)), x)
    assert abs(theirs / 143 - 1) < 0.02
    assert ours / theirs < 0.75


def test_the_other_layouts_have_their_published_parameters_and_keep_the_size():
    with torch.device("meta"):
        for network, parameters in ((cyclegan(), 11_378_179), (animegan(), 2_141_760)):
            assert sum(parameter.numel() for parameter in network.parameters()) == parameters
            assert network(torch.empty(1, 3, 64, 96)).shape == (1, 3, 64, 96)
