"""Several processes, accumulated gradients and lower precision train like one process with the whole batch."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import training_extra  # noqa: F401
from accelerate import Accelerator
from accelerate.utils import DistributedType
from assertions import refusal
from training_fixtures import ROOT, TINY, ranks, scalars

from training.data.cache import available_cores

STEPS = 4
"""Eight photos, four a step: two steps of initialisation, two adversarial ones. Later, Adam makes the last bits grow in
which a batch of two differs from one of four: 3e-4 by step 6."""


def start_pair(launcher, output: Path, **settings):
    """Two processes of one training, as torchrun starts them; gloo on CPUs."""
    return [launcher.start(output, environment=environment, **settings) for environment in ranks(2)]


@pytest.fixture(scope="module")
def whole(launcher, tmp_path_factory) -> Path:
    """One process, batch 4."""
    output = tmp_path_factory.mktemp("one") / "style"
    launcher.run(output, batch_size=4, max_steps=STEPS)
    return output


def assert_same_losses(output: Path, expected: Path) -> None:
    expected, actual = scalars(expected), scalars(output)
    losses = [name for name in expected if name.startswith("loss/")]
    assert {"loss/con", "loss/sali", "loss/gan", "loss/con_s", "loss/discriminator"} <= {*losses}
    for name in losses:
        assert actual[name] == pytest.approx(expected[name], abs=1e-4, rel=1e-4), name
    for name in ("gradient_norm/generator", "gradient_norm/discriminator"):
        assert actual[name] == pytest.approx(expected[name], rel=5e-2), name
    for name in ("learning_rate", "w_con"):
        assert actual[name] == expected[name], name


def test_two_processes_have_the_losses_of_one_with_the_doubled_batch(launcher, whole, tmp_path):
    pair = start_pair(launcher, tmp_path / "style", batch_size=2, max_steps=STEPS)
    assert [process.wait() for process in pair] == [0, 0], pair[0].text + pair[1].text
    assert_same_losses(tmp_path / "style", whole)
    assert json.loads((tmp_path / "style/training.json").read_text())["processes"] == 2
    checkpoint = tmp_path / "style/checkpoints" / f"step_{STEPS:08d}"
    assert {"random_states_0.pkl", "random_states_1.pkl"} <= {path.name for path in checkpoint.iterdir()}


def test_two_processes_train_the_projected_d_as_one_does(launcher, tmp_path):
    settings = {"discriminator": "projected", "adversarial_loss": "hinge", "max_steps": STEPS}
    launcher.run(tmp_path / "one", batch_size=4, **settings)
    pair = start_pair(launcher, tmp_path / "two", batch_size=2, **settings)
    assert [process.wait() for process in pair] == [0, 0], pair[0].text + pair[1].text
    assert_same_losses(tmp_path / "two", tmp_path / "one")


def test_two_processes_train_s_alone_first(launcher, tmp_path):
    pair = start_pair(launcher, tmp_path / "style", w_con=0, max_steps=STEPS)
    assert [process.wait() for process in pair] == [0, 0], pair[0].text + pair[1].text


def test_accumulated_gradients_have_the_losses_of_the_doubled_batch(launcher, whole, tmp_path):
    launcher.run(tmp_path / "style", batch_size=2, gradient_accumulation_steps=2, max_steps=STEPS)
    assert_same_losses(tmp_path / "style", whole)


def test_bf16_trains_near_float32_and_is_not_float32(launcher, whole, tmp_path):
    text = launcher.run(tmp_path / "style", batch_size=4, max_steps=STEPS, mixed_precision="bf16")
    assert ("no bf16 of its own" in text) == (torch.backends.cpu.get_cpu_capability() == "AVX2")
    actual, expected = scalars(tmp_path / "style"), scalars(whole)
    for name in ("loss/con", "loss/sali", "loss/gan", "loss/discriminator"):
        assert actual[name] == pytest.approx(expected[name], rel=0.1)
        assert actual[name] != expected[name]
    assert json.loads((tmp_path / "style/training.json").read_text())["mixed_precision"] == "bf16"


def test_fp16_on_a_cpu_is_refused_in_one_sentence(launcher, tmp_path):
    text = launcher.run(tmp_path / "style", code=2, mixed_precision="fp16")
    assert "train.py: fp16" in text and "Traceback" not in text


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED"])
def test_sharding_is_refused_in_one_sentence(trainer, monkeypatch, kind):
    # Accelerate takes these on only where there are several GPUs
    monkeypatch.setattr(Accelerator, "distributed_type", DistributedType(kind))
    refusal(trainer, kind, "accelerate launch --multi_gpu")


@pytest.mark.slow
def test_a_signal_to_one_process_ends_all_of_them_after_the_same_step(launcher, tmp_path):
    pair = start_pair(launcher, tmp_path / "style", checkpointing_steps=2, checkpoints_total_limit=1000, epochs=1000)
    pair[0].wait_for(tmp_path / "style/checkpoints/step_00000002")
    os.kill(pair[1].process.pid, signal.SIGTERM)
    codes = [process.wait() for process in pair]
    assert codes == [143, 143], pair[0].text + pair[1].text
    newest = max((tmp_path / "style/checkpoints").iterdir())
    assert int(newest.name[5:]) % 10 == 0


ONE_PROCESS = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]
TWO_PROCESSES = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.mark.slow
@pytest.mark.parametrize(("launch", "processes"), [(ONE_PROCESS, 1), (TWO_PROCESSES, 2)])
def test_the_documented_launch_commands_train(launcher, tmp_path, launch, processes):
    command = [*launch, ROOT / "training/train.py", *launcher.arguments(tmp_path / "style", max_steps=2)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads((tmp_path / "style/training.json").read_text())
    assert facts["processes"] == processes and facts["threads"] == (available_cores() if processes == 1 else 1)
    assert facts["config"]["base_channels"] == TINY["base_channels"]
