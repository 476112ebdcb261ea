"""A training that ends early goes on as if it had not: killed, interrupted, out of disk space, or badly copied."""

import json
import os
import shlex
import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import training_extra  # noqa: F401
from assertions import refusal
from safetensors.torch import load_file, save_file
from torch.utils._pytree import keystr, tree_leaves_with_path
from training_fixtures import scalars

from sdpgan_hub import SDPGAN
from training.run.checkpoints import RANDOM_STATES, Checkpoints, fault
from training.run.provenance import DISCRIMINATOR_FILE


@pytest.fixture(scope="module")
def whole(launcher, tmp_path_factory) -> Path:
    """Nine steps in one go, four of them of initialisation; checkpoints after 3, 6 and 9, of which two are kept."""
    output = tmp_path_factory.mktemp("whole") / "style"
    launcher.run(output, max_steps=9, checkpointing_steps=3, checkpoints_total_limit=2)
    return output


def contents(checkpoint: Path) -> dict[str, object]:
    """Every leaf of every file: networks, optimiser, moving average, random states; not the clock."""
    files: dict[str, object] = {path.name: path.read_bytes() for path in checkpoint.glob("*.safetensors")}
    states = (path for path in checkpoint.iterdir() if path.suffix in (".bin", ".pkl"))
    files |= {path.name: torch.load(path, weights_only=False) for path in states}
    leaves = {keystr(place): value for place, value in tree_leaves_with_path(files)}
    return {
        name: value.tolist() if isinstance(value, (torch.Tensor, np.ndarray)) else value
        for name, value in leaves.items()
        if not name.endswith("['seconds']")
    }


def keep_up_to(output: Path, step: int) -> None:
    """A killed run may have got further before the signal."""
    for path in (output / "checkpoints").glob("step_*"):
        if int(path.name[5:]) > step:
            shutil.rmtree(path)


def kill(process) -> None:
    os.killpg(process.process.pid, signal.SIGKILL)
    process.process.join()


def test_a_run_killed_twice_and_resumed_equals_one_that_was_not(launcher, whole, tmp_path):
    style = tmp_path / "style"
    settings = {"checkpointing_steps": 2, "checkpoints_total_limit": 100}
    first = launcher.start(style, **settings)
    first.wait_for(style / "checkpoints/step_00000002")  # of the four steps of initialisation
    kill(first)
    keep_up_to(style, 2)

    second = launcher.start(style, **settings, resume_from_checkpoint="latest")
    second.wait_for(style / "checkpoints/step_00000006")  # inside the second epoch of four steps
    kill(second)
    assert "resumed step_00000002" in second.text
    keep_up_to(style, 6)
    # the newest one was copied by half, the one before it without its last file
    for name in ("step_00000007", "step_00000008"):
        shutil.copytree(style / "checkpoints/step_00000006", style / "checkpoints" / name)
    (style / "checkpoints/step_00000007" / RANDOM_STATES).unlink()
    half = style / "checkpoints/step_00000008/optimizer.bin"
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])

    text = launcher.run(style, **settings, resume_from_checkpoint="latest", max_steps=9)
    for damaged, name in (("step_00000008", "optimizer.bin"), ("step_00000007", RANDOM_STATES)):
        assert any(damaged in line and name in line for line in text.splitlines())
    assert "resumed step_00000006" in text

    expected, actual = (contents(output / "checkpoints/step_00000009") for output in (whole, style))
    assert [name for name in expected if name not in actual or actual[name] != expected[name]] == []
    assert actual.keys() == expected.keys()
    again = launcher.run(style, **settings, resume_from_checkpoint="latest", max_steps=9)
    assert "Step 9" in again
    assert contents(style / "checkpoints/step_00000009") == actual
    for kind in ("random_state", "numpy_random_seed", "torch_manual_seed"):
        assert any(name.startswith(f"['{RANDOM_STATES}']['{kind}']") for name in expected)
    assert sum(name.endswith("['exp_avg_sq']") for name in expected) > 20

    # the same data in the same order, the same losses, learning rate and w_con at every step
    expected, actual = scalars(whole), scalars(style)
    assert expected["loss/con"].keys() == set(range(1, 10)) and expected["loss/gan"].keys() == set(range(5, 10))
    for name, values in expected.items():
        assert actual[name] == values


def test_a_resumed_run_with_every_option_equals_one_that_was_not(launcher, tmp_path):
    settings = {"discriminator": "projected", "adversarial_loss": "hinge", "w_identity": 2, "saliency_size": 32,
                "tone_jitter": 0.5, "noise": 0.1, "context_blocks": 1, "normalization": "pixel",
                "discriminator_learning_rate": 1e-3, "initialization_epochs": 0.5, "photo_scales": (0.7, 1),
                "lr_milestones": (0.1, 0.2)}  # fmt: skip
    launcher.run(tmp_path / "once", max_steps=8, **settings)
    launcher.run(tmp_path / "twice", max_steps=5, **settings)
    launcher.run(tmp_path / "twice", max_steps=8, resume_from_checkpoint="latest", **settings)
    expected, actual = (contents(tmp_path / name / "checkpoints/step_00000008") for name in ("once", "twice"))
    assert [name for name in expected if name not in actual or actual[name] != expected[name]] == []
    assert actual.keys() == expected.keys()
    rates = [value for name, value in sorted(expected.items()) if name.endswith("['lr']")]
    assert rates == pytest.approx([2e-6, 1e-5])  # of G and S, and of D: both fell twice
    losses = (scalars(tmp_path / name)["loss/gan"] for name in ("once", "twice"))
    assert next(losses) == next(losses)


def test_only_the_newest_checkpoints_stay_and_each_is_whole(whole):
    kept = sorted(path.name for path in (whole / "checkpoints").iterdir())
    assert kept == ["step_00000006", "step_00000009"]
    assert all(fault(whole / "checkpoints" / name) is None for name in kept)


def test_what_comes_out_is_a_style_with_its_facts_its_card_and_its_sheets(whole, images):
    model = SDPGAN.from_pretrained(whole)
    photo = cv2.imread(str(images / "photos" / "0.png"))
    assert model.stylize(photo).shape == photo.shape and model.stylize(photo).std() > 0
    facts = json.loads((whole / "training.json").read_text())
    assert (facts["steps"], facts["photos"], facts["paintings"], facts["config"]["base_channels"]) == (9, 8, 6, 4)
    assert facts["numbers"]["loss/con"] == pytest.approx(scalars(whole)["loss/con"][9])
    assert cv2.imread(str(whole / "samples/step_000009.png")).shape == (3 * 48, 8 * 48, 3)
    card = (whole / "README.md").read_text()
    assert "(sample_sheet.jpg)" in card and "accelerate launch --num_processes 1" in card


def test_ctrl_c_and_sigterm_end_the_step_with_a_checkpoint_and_a_style(launcher, tmp_path):
    # to the whole group of processes, the data loader's workers too, as a terminal or a batch system does
    runs = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        output = tmp_path / number.name
        runs[number] = launcher.start(
            output, num_workers=1, checkpointing_steps=2, checkpoints_total_limit=1000, epochs=1000
        )
    for number, run in runs.items():
        output = tmp_path / number.name
        run.wait_for(output / "checkpoints/step_00000002")
        os.killpg(run.process.pid, number)
        assert run.wait() == 128 + number, run.text
        newest = max((output / "checkpoints").iterdir())
        step = int(newest.name[5:])
        assert f"stopped by {number.name} after step {step};" in run.text
        assert fault(newest) is None and "Traceback" not in run.text
        assert json.loads((output / "training.json").read_text())["steps"] == step
        SDPGAN.from_pretrained(output)


def test_a_full_disk_stops_with_one_sentence_and_the_last_checkpoint_stays(launcher, whole, tmp_path):
    style = tmp_path / "style"
    shutil.copytree(whole / "checkpoints/step_00000006", style / "checkpoints/step_00000006")
    largest = max(path.stat().st_size for path in (style / "checkpoints/step_00000006").iterdir())
    run = launcher.start(style, max_steps=7, resume_from_checkpoint="latest", file_size_limit=largest - 1)
    assert run.wait() == 2, run.text
    (sentence,) = [line for line in run.text.splitlines() if line.startswith("train.py: ")]
    assert "cannot be written" in sentence and "Traceback" not in run.text
    assert "step 7" in sentence and "step_00000006 is whole" in sentence
    assert [path.name for path in (style / "checkpoints").iterdir()] == ["step_00000006"]
    assert fault(style / "checkpoints/step_00000006") is None


def test_a_checkpoint_of_other_networks_is_refused_in_one_sentence(launcher, whole, tmp_path):
    text = launcher.run(
        tmp_path / "style", code=2, base_channels=8, resume_from_checkpoint=whole / "checkpoints/step_00000009"
    )
    assert "train.py: " in text and "step_00000009" in text and "Traceback" not in text
    assert "base_channels (4 there, 8 here)" in text


def test_max_minutes_ends_with_a_checkpoint_and_a_result_and_the_command_that_uses_it(launcher, tmp_path):
    style = tmp_path / "a style"
    said = launcher.run(style, max_minutes=0)
    assert [path.name for path in (style / "checkpoints").iterdir()] == ["step_00000001"]
    assert SDPGAN.from_pretrained(style).config["base_channels"] == 4
    assert shlex.split(said.rpartition("try: ")[2])[-2:] == ["--style", str(style)]


def added(checkpoints: Checkpoints, step: int) -> Path:
    checkpoints.unfinished.mkdir(parents=True)
    save_file({"a": torch.full((100,), step)}, checkpoints.unfinished / "model.safetensors")
    torch.save({"b": torch.full((100,), step)}, checkpoints.unfinished / RANDOM_STATES)
    checkpoints.add(step)
    return checkpoints.path(step)


def test_a_checkpoint_with_a_file_cut_short_changed_or_lost_is_not_whole(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    threes, ones = bytes([3, *[0] * 7]) * 50, bytes([1, *[0] * 7]) * 50
    for step, (name, break_it) in enumerate([
        ("model.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-1])),
        (RANDOM_STATES, lambda path: path.write_bytes(path.read_bytes()[:-1])),
        (RANDOM_STATES, lambda path: path.write_bytes(path.read_bytes().replace(threes, ones))),
        (RANDOM_STATES, lambda path: path.unlink()),
    ], start=1):  # fmt: skip
        path = added(checkpoints, step)
        assert fault(path) is None
        break_it(path / name)
        assert name in fault(path)
    refusal(lambda: checkpoints.newest_whole(), tmp_path)


def test_checkpoints_over_the_limit_go_the_oldest_first_whatever_their_number_of_digits(tmp_path):
    checkpoints = Checkpoints(tmp_path, limit=2)
    for step in (5, 999, 1000, 10000):
        added(checkpoints, step)
        assert not checkpoints.unfinished.exists()
    assert [path.name for path in checkpoints.all()] == ["step_00001000", "step_00010000"]


def test_a_run_that_went_back_is_the_newest(launcher, tmp_path):
    style = tmp_path / "style"
    launcher.run(style, max_steps=6, checkpointing_steps=2)
    back = style / "checkpoints/step_00000002"
    launcher.run(style, max_steps=4, resume_from_checkpoint=back, checkpoints_total_limit=1)
    assert [path.name for path in (style / "checkpoints").iterdir()] == ["step_00000004"]


def test_a_resumed_run_takes_adams_settings_and_batches_of_an_update_from_the_command_line(trainer, tmp_path):
    settings = {"max_steps": 3, "checkpointing_steps": 3}
    assert trainer(**settings).train() == 0
    one = trainer("--resume_from_checkpoint", "latest", adam_beta1=0.7, gradient_accumulation_steps=2)
    assert {group["betas"] for group in one.optimizer.param_groups} == {(0.7, 0.999)}
    syncs = []
    for _ in range(4):
        with one.accelerator.accumulate(one.step.prepared_model):
            syncs.append(one.accelerator.sync_gradients)
    assert syncs == [False, True, False, True]


def test_a_training_starts_from_another_style_with_its_d(launcher, tmp_path):
    before, after, settings = tmp_path / "before", tmp_path / "after", {"max_steps": 2, "use_ema": "false"}
    launcher.run(before, initialization_epochs=0, **settings)
    still = {"learning_rate": 0, "discriminator_learning_rate": 0}  # the same weights
    said = launcher.run(after, initial_style=before, initialization_epochs=0, **still, **settings)
    assert "warning: the D" not in said
    start, end = SDPGAN.from_pretrained(before), SDPGAN.from_pretrained(after)
    assert end.config == start.config
    for name, value in start.state_dict().items():
        assert torch.equal(end.state_dict()[name], value)
    kept, taken = (load_file(style / DISCRIMINATOR_FILE) for style in (before, after))
    assert kept.keys() == taken.keys() and all(torch.equal(kept[name], taken[name]) for name in kept)
    facts, card = (after / "training.json").read_text(), (after / "README.md").read_text()
    assert json.loads(facts)["initial_style"] == "INITIAL_STYLE" and str(tmp_path) not in facts + card
    assert "--initial_style INITIAL_STYLE" in card


def test_a_d_that_does_not_fit_is_a_warning_and_one_that_is_not_there_is_none(launcher, whole, tmp_path):
    settings = {"max_steps": 1, "discriminator_channels": 8}
    said = launcher.run(tmp_path / "other", initial_style=whole, **settings)
    (warning,) = [line for line in said.splitlines() if "warning: the D" in line]
    assert str(whole) in warning
    new, kept = (load_file(style / DISCRIMINATOR_FILE) for style in (tmp_path / "other", whole))
    assert new.keys() == kept.keys()
    shutil.copytree(whole, tmp_path / "bare", ignore=shutil.ignore_patterns("checkpoints", DISCRIMINATOR_FILE))
    said = launcher.run(tmp_path / "again", initial_style=tmp_path / "bare", **settings)
    assert "warning: the D" not in said
    (tmp_path / "bare" / DISCRIMINATOR_FILE).write_bytes(b"broken")
    said = launcher.run(tmp_path / "once more", initial_style=tmp_path / "bare", **settings)
    assert "warning: the D" in said and "Traceback" not in said


def test_what_settings_styles_weights_and_checkpoints_tell_is_refused_before_an_image_is_read(
    launcher, whole, tmp_path
):
    checkpoint = tmp_path / "damaged"
    shutil.copytree(whole / "checkpoints/step_00000009", checkpoint)
    (checkpoint / RANDOM_STATES).unlink()
    shutil.copy(whole / "model.safetensors", tmp_path / "wrong.safetensors")
    for settings, name in (
        ({"upsampling": "foo"}, "'foo'"),
        ({"initial_style": "nope"}, "nope"),
        ({"initial_style": whole, "base_channels": 8}, "base_channels 4, the config base_channels 8"),
        ({"initial_style": whole, "residual_blocks": 2}, "residual_blocks 1, the config residual_blocks 2"),
        ({"initial_style": whole, "saliency_size": 32}, "saliency_size 0, the config saliency_size 32"),
        ({"initial_style": whole, "saliency_network": "false"}, "saliency_network True, the config"),
        ({"vgg_weights": tmp_path / "wrong.safetensors"}, "wrong.safetensors"),
        ({"resume_from_checkpoint": checkpoint}, RANDOM_STATES),
    ):
        said = launcher.run(tmp_path / "style", code=2, cache=tmp_path / "cache", **settings)
        assert str(name) in said and "Traceback" not in said and not (tmp_path / "cache").exists(), said
