"""What a run that goes wrong says, what a step computes, and what an ablation leaves out."""

import contextlib
import json
import math
import re
import shutil
import subprocess
import sys
import weakref
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
import training_extra  # noqa: F401
from accelerate.optimizer import AcceleratedOptimizer
from safetensors.torch import load_file, save_file
from training_fixtures import ROOT, batch_of, expected_terms, scalars

from sdpgan_hub import SDPGAN, SDPGANError
from training.losses import objective
from training.run.arguments import read_command_line
from training.run.checkpoints import Checkpoints, fault
from training.run.health import CHANCE_MARGIN, WINDOW, Health
from training.train import main

WELL = {"loss/discriminator": 1.9, "loss/con": 1.5, "loss/gan": 0.8, "output/contrast": 0.4, "output/variety": 0.5}
WELL |= {"painting/contrast": 0.5, "painting/variety": 0.4}
WEIGHTS = {"con": 0.25, "gan": 1.0}


@pytest.mark.parametrize(
    ("ill", "named"),
    [
        ({"loss/con": math.nan}, "loss con is nan"),
        ({"loss/con": math.inf, "gradient_norm/generator": math.nan}, "loss con is inf"),
        ({"gradient_norm/discriminator": math.inf}, "gradient_norm discriminator is inf"),
    ],
)
def test_the_term_that_is_not_finite_is_named_at_once(ill, named):
    diverged, collapsed = Health().observe(WELL | ill, WEIGHTS)
    assert diverged.startswith(named) and collapsed is None


@pytest.mark.parametrize(
    ("ill", "named"),
    [
        ({"loss/discriminator": 0.001}, r"0\.001.* gan \(0\.8\)"),
        ({"output/contrast": 0.14, "loss/con": 9.0}, r"one flat colour .* con \(2\.25"),
        ({"output/variety": 0.11, "loss/gan": 9.0}, r"every photo .* gan \(9"),
    ],
)
def test_a_collapse_is_said_within_200_steps_with_its_term_and_not_for_single_bad_steps(ill, named):
    health = Health()
    for step in range(1000):
        assert health.observe(WELL | (ill if step % 2 else {}), WEIGHTS) == (None, None)
    said = [health.observe(WELL | ill, WEIGHTS)[1] for _ in range(200)]
    first = next(step for step, text in enumerate(said) if text)
    assert first < WINDOW and re.search(named, said[first])
    assert [health.observe(WELL, WEIGHTS) for _ in range(20)][-1] == (None, None)


def test_the_grey_first_steps_of_a_run_are_no_collapse_and_a_run_that_stays_grey_is_one():
    health = Health()
    grey = [health.observe(WELL | {"output/contrast": 0.01, "output/variety": 0.01}, WEIGHTS)[1] for _ in range(250)]
    assert not any(grey[: WINDOW + 80]) and "one flat colour" in grey[-1]


def test_a_d_at_chance_is_said_after_100_steps():
    constant = 1.9
    health, random = Health(constant_loss=constant), np.random.default_rng(0)
    for _ in range(WINDOW):
        assert health.at_chance() is None
        health.observe(WELL | {"loss/discriminator": constant + random.uniform(-0.9, 0.9) * CHANCE_MARGIN}, WEIGHTS)
    assert "1.900" in health.at_chance()
    for step in range(WINDOW):  # and then it learns
        health.observe(WELL | {"loss/discriminator": constant * (0.9 - 0.005 * step) - CHANCE_MARGIN}, WEIGHTS)
    assert health.at_chance() is None


def test_a_d_that_learns_is_not_at_chance_though_single_steps_are():
    health = Health(constant_loss=1.9)
    for _ in range(3 * WINDOW):  # the initialisation phase has no D
        health.observe({name: value for name, value in WELL.items() if "disc" not in name}, {"con": 1.0})
    for step in range(3 * WINDOW):
        assert health.at_chance() is None
        health.observe(WELL | {"loss/discriminator": 1.9 if step % 5 == 0 else 1.1}, WEIGHTS)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, math.log(3) + 2 * math.log(1.5)),
        ({"edge_blurred": "false"}, 2 * math.log(2)),
        ({"adversarial_loss": "hinge", "discriminator": "projected"}, 2 + 2 * 2),
    ],
    ids=["paper", "no edge-blurred", "projected hinge"],
)
def test_the_loss_that_a_d_at_chance_has_is_that_of_a_d_that_gives_one_answer(trainer, settings, expected):
    one = trainer(**settings)
    assert one.health.constant_loss == pytest.approx(expected)
    # and a D whose outputs are one number, the best one, has it
    fakes = 1 + one.config.edge_blurred
    networks = [(getattr(one.discriminator, "pixels", one.discriminator), fakes)]
    networks += [(head, 1) for head in getattr(one.discriminator, "heads", ())]
    for network, count in networks:
        best = {"bce": -math.log(count), "hinge": 0}[one.config.adversarial_loss]
        last = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)][-1]
        last.register_forward_hook(lambda module, inputs, output, best=best: 0 * output + best)
    assert one.backward(batch_of(one))["loss/discriminator"].item() == pytest.approx(expected, rel=1e-4)


def test_a_training_warns_of_a_d_at_chance_every_100_steps(trainer, capsys):
    one = trainer()
    numbers = WELL | {"loss/con_s": 0.1, "loss/sali": 0.1, "loss/discriminator": one.health.constant_loss - 0.05}
    for step in range(250):
        one.unread.append((step, {name: torch.tensor(value) for name, value in numbers.items()}))
    one.check_metrics()
    warnings = [line for line in capsys.readouterr().err.splitlines() if "one answer" in line]
    assert len(warnings) == 2 and "step 101" in warnings[0] and "step 201" in warnings[1]


def test_a_run_that_diverges_says_so_and_leaves_the_checkpoint_and_the_style(launcher, tmp_path):
    style = tmp_path / "style"
    launcher.run(style, max_steps=5)
    before = {name: (style / name).read_bytes() for name in ("model.safetensors", "training.json", "README.md")}
    # every number of step 6 is finite; its update is what ruins the weights, and saving them would cost the good ones
    text = launcher.run(style, code=2, resume_from_checkpoint="latest", learning_rate="1e30", logging_steps=1000,
                        checkpointing_steps=3, checkpoints_total_limit=1)  # fmt: skip
    sentence = text[text.index("train.py: ") :].strip()
    assert "\n" not in sentence and "Traceback" not in text
    assert "step 6" in sentence and "G or S" in sentence
    checkpoints = list((style / "checkpoints").iterdir())
    assert [path.name for path in checkpoints] == ["step_00000005"] and fault(checkpoints[0]) is None
    assert {name: (style / name).read_bytes() for name in before} == before
    text = launcher.run(style, code=2, resume_from_checkpoint="latest", learning_rate="1e30")  # and nothing to save
    assert "learning_rate (0.0002 there, 1e+30 here)" in text and "batch_size" not in text
    assert "step 7" in text and "loss con is nan" in text


def test_a_run_whose_results_are_one_flat_colour_is_stopped_within_200_steps(launcher, tmp_path):
    style = tmp_path / "style"
    launcher.run(style, max_steps=5)
    # a bias far beyond where tanh has a gradient: G paints white, and no loss can bring it back
    checkpoints, weights = Checkpoints(style / "checkpoints"), "model.safetensors"
    shutil.copytree(checkpoints.path(5), checkpoints.unfinished)
    state = load_file(checkpoints.unfinished / weights)
    state["generator.output.0.bias"].fill_(50.0)
    save_file(state, checkpoints.unfinished / weights, {"format": "pt"})
    checkpoints.add(5)

    text = launcher.run(style, code=2, timeout=300, resume_from_checkpoint="latest", epochs=1000)
    sentence = next(line for line in text.splitlines() if line.startswith("train.py: "))
    stopped = int(re.search(r"step (\d+): .* one flat colour", sentence)[1])
    assert 190 <= stopped - 5 <= 200
    assert str(checkpoints.folder) in sentence and "Traceback" not in text
    assert [path.name for path in checkpoints.all()] == ["step_00000005"]


@pytest.mark.slow
def test_a_run_whose_discriminator_has_won_in_90_of_100_steps_is_stopped_at_the_90th(launcher, tmp_path):
    # D learns fast, and w_con keeps G at the photos
    settings = {"learning_rate": 4e-3, "discriminator_channels": 32, "w_con": 1e5, "edge_blurred": "false"}
    text = launcher.run(tmp_path / "style", code=2, timeout=500, initialization_epochs=0, epochs=1000, **settings)
    stopped = int(re.search(r"The run collapsed by step (\d+)", text)[1])
    assert "D's loss was" in text
    losses = [loss for _, loss in sorted(scalars(tmp_path / "style")["loss/discriminator"].items())]
    low = [sum(loss < 0.02 for loss in losses[end - 100 : end]) for end in range(100, len(losses) + 1)]
    assert max(low) == low[-1] == 89 and stopped == len(losses) + 1  # the step that makes it 90 is not logged


def test_gradient_norms_and_accuracies_by_kind_are_logged_and_gradients_are_clipped(launcher, tmp_path):
    launcher.run(tmp_path / "style", max_steps=6, initialization_epochs=0, max_grad_norm=1e-9)
    logged = scalars(tmp_path / "style")
    kinds = {name.removeprefix("discriminator_accuracy/") for name in logged if name.startswith("discriminator_acc")}
    assert kinds == {"painting", "edge_blurred", "generated"}
    assert all(0 <= value <= 1 for kind in kinds for value in logged[f"discriminator_accuracy/{kind}"].values())
    for network in ("generator", "discriminator"):
        assert all(value > 1e-3 for value in logged[f"gradient_norm/{network}"].values())  # before clipping
    state = torch.load(tmp_path / "style/checkpoints/step_00000006/optimizer.bin", weights_only=True)["state"]
    assert max(one["exp_avg"].abs().max().item() for one in state.values()) <= 1e-9


# one trainer in this process


def test_the_loss_scale_of_fp16_leaves_an_update_as_it_is_and_leaves_out_one_that_overflows(trainer):
    # float32 losses with fp16's scale: what Accelerate does on a GPU, without its rounding
    updated, norms = {}, {}
    for scale in (None, 1024.0, 3e38):
        one = trainer()
        if scale is not None:
            scaler = torch.amp.GradScaler("cpu", init_scale=scale)
            one.accelerator.scaler, one.accelerator.native_amp = scaler, True
            one.accelerator.state._mixed_precision = "fp16"
            one.accelerator.autocast = contextlib.nullcontext
            one.optimizer = AcceleratedOptimizer(one.optimizer.optimizer, scaler=scaler)
            one.accelerator._optimizers = [one.optimizer]
        before = one.model.generator.output[0].weight.clone()
        one.backward(batch_of(one))
        norms[scale] = {name: float(norm) for name, norm in one.update().items()}
        updated[scale] = [network.state_dict() for network in (one.model, one.discriminator)]
    for expected, actual in zip(updated[None], updated[1024.0], strict=True):
        assert all(torch.allclose(expected[name], actual[name], atol=1e-6) for name in expected)
    assert norms[1024.0] == pytest.approx(norms[None], rel=1e-4)
    assert torch.equal(updated[3e38][0]["generator.output.0.weight"], before)
    assert all(math.isfinite(norm) for norm in norms[3e38].values())
    assert scaler.get_scale() < 3e38


EVERYTHING = {
    "discriminator": "projected", "adversarial_loss": "hinge", "w_identity": 2, "identity_chroma": 0.5,
    "saliency_size": 32, "mask_peak": 3, "tone_jitter": 0.5, "context_blocks": 1,
}  # fmt: skip


@pytest.fixture
def in_float64(monkeypatch):
    """Puts a trainer's networks and a batch into float64, where no rounding pushes a ReLU or a hinge past its kink."""

    def convert(one, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        for network in (one.model, one.discriminator, one.vgg):
            network.double()
        monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
        torch.set_default_dtype(torch.float64)
        return {key: value.double() for key, value in batch.items()}

    yield convert
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "settings",
    [{}, EVERYTHING, {"saliency_size": 32, "saliency_network": "false"}, {"discriminator": "projected"}],
    ids=["paper", "everything", "whole references as masks", "projected bce"],
)
def test_the_terms_one_after_the_other_give_the_values_and_the_gradients_of_their_sum(trainer, settings, in_float64):
    one = trainer(**settings)
    one.discriminator.eval()  # spectral norms stay as they are
    batch, weights = in_float64(one, batch_of(one)), one.schedule.weights(0)
    numbers = one.backward(batch)
    gradients = [
        {name: parameter.grad.clone() for name, parameter in network.named_parameters() if parameter.grad is not None}
        for network in (one.model, one.discriminator)
    ]
    one.model.zero_grad()
    one.discriminator.zero_grad()
    loss_of_d, terms = expected_terms(one, batch)
    assert terms.keys() == weights.keys()
    for name, term in (terms | {"discriminator": loss_of_d}).items():
        assert numbers[f"loss/{name}"].item() == pytest.approx(term.item(), rel=1e-3, abs=1e-5), name
    inputs = [parameter for parameter in one.discriminator.parameters()]
    expected = torch.autograd.grad(loss_of_d, inputs, retain_graph=True)
    for (name, _), value in zip(one.discriminator.named_parameters(), expected, strict=True):
        torch.testing.assert_close(gradients[1][name], value, rtol=1e-3, atol=1e-5)
    sum(weights[name] * term for name, term in terms.items()).backward()
    for name, parameter in one.model.named_parameters():
        torch.testing.assert_close(gradients[0][name], parameter.grad, rtol=1e-3, atol=1e-5)


def test_the_activations_of_vgg_are_gone_when_s_sees_the_result(trainer):
    one = trainer()
    activations, alive = [], []
    one.vgg.layers[5].register_forward_hook(lambda module, inputs, result: activations.append(weakref.ref(result)))
    one.model.saliency_network.down1.register_forward_hook(
        lambda *_: alive.append(sum(ref() is not None for ref in activations))
    )
    one.backward(batch_of(one))
    assert len(activations) == 2 and alive == [0, 0]  # S(x), S(G(x))


def test_batches_of_one_photo_are_compared_with_the_one_before(trainer):
    one = trainer(batch_size=1)
    variety, results = [], []
    one.model.generator.register_forward_hook(lambda module, inputs, result: results.append(result.detach()))
    for number in range(3):
        batch = {key: value[None] for key, value in one.data[number].items()}
        variety.append(one.backward(batch).get("output/variety"))
    assert variety[0] is None and len(results) == 3
    for number in (1, 2):
        assert variety[number] == pytest.approx(torch.cat(results[number - 1 : number + 1]).std(0).mean().item())


# ablations


@pytest.mark.parametrize(
    ("settings", "terms", "runs_of_s", "mask_from"),
    [
        ({}, {"discriminator", "con", "sali", "gan", "con_s"}, 2, "saliency"),
        ({"saliency_network": "false"}, {"discriminator", "con", "gan"}, 0, "reference"),
        ({"saliency_mask": "false"}, {"discriminator", "con", "sali", "gan", "con_s"}, 2, None),
        ({"w_con": 0}, {"discriminator", "sali", "gan", "con_s"}, 2, None),
        ({"w_con_s": 0}, {"discriminator", "con", "sali", "gan"}, 1, "saliency"),
        ({"feature_concatenation": "false"}, {"discriminator", "con", "sali", "gan", "con_s"}, 2, "saliency"),
        ({"train_saliency": "false"}, {"discriminator", "con", "gan", "con_s"}, 2, "saliency"),
        ({"w_identity": 1}, {"discriminator", "con", "sali", "gan", "con_s", "identity"}, 2, "saliency"),
        ({"saliency_network": "false", "saliency_mask": "false"}, {"discriminator", "con", "gan"}, 0, None),
    ],
    ids=["paper", "no network", "no mask", "w_con 0", "no con_s", "no concatenation", "S frozen", "identity", "ref 8"],
)
def test_an_ablation_leaves_out_its_terms_and_what_they_cost(
    trainer, tmp_path, monkeypatch, settings, terms, runs_of_s, mask_from
):
    if "train_saliency" in settings:
        SDPGAN(base_channels=4, residual_blocks=1).save_pretrained(tmp_path / "start")
        settings = settings | {"initial_style": tmp_path / "start"}
    one = trainer(**settings)
    batch = batch_of(one)
    ran, masked = [], []
    if one.model.saliency_network is not None:
        one.model.saliency_network.down1.register_forward_hook(lambda *_: ran.append("S"))
    one.model.generator.register_forward_hook(lambda *_: ran.append("G"))
    one.vgg.layers[0].register_forward_hook(lambda *_: ran.append("VGG"))
    one.discriminator.register_forward_hook(lambda *_: ran.append("D"))
    mask = objective.saliency_mask
    monkeypatch.setattr(objective, "saliency_mask", lambda value, peak: masked.append(value) or mask(value, peak))

    numbers = one.backward(batch)
    assert {name.removeprefix("loss/") for name in numbers if name.startswith("loss/")} == terms
    assert sorted(ran) == sorted(["S"] * runs_of_s + ["G", "D", "D"] + ["VGG", "VGG"] * ("con" in terms))
    assert len(masked) == (mask_from is not None)
    if masked:
        assert ("reference" in batch and torch.equal(masked[0], batch["reference"])) == (mask_from == "reference")
    # every network that is there learns, from a loss that is not constant
    learning = [one.model.generator, one.discriminator]
    if settings.get("train_saliency") == "false":
        assert all(parameter.grad is None for parameter in one.model.saliency_network.parameters())
    elif one.model.saliency_network is not None:
        learning.append(one.model.saliency_network)
    for network in learning:
        assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters() if parameter.ndim > 1)
    joined = one.model.generator.down2[0].in_channels // one.model.generator.down1[0].out_channels
    assert joined == (1 if {"saliency_network", "feature_concatenation"} & settings.keys() else 2)


def test_human_masks_switches_between_the_masks_and_the_references(trainer, images, tmp_path):
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks/0.png"), np.full((60, 72), 255, np.uint8))
    shutil.copytree(images / "cache", tmp_path / "cache")
    everywhere = {}
    for switch in ("true", "false"):
        one = trainer(masks=tmp_path / "masks", cache=tmp_path / "cache", human_masks=switch)
        everywhere[switch] = sum(bool((one.data[number]["reference"] == 1).all()) for number in range(8))
    assert everywhere == {"true": 1, "false": 0}


def test_a_training_without_s_and_mask_makes_no_references_and_resumes(launcher, images, tmp_path):
    photos, cache = tmp_path / "photos", tmp_path / "cache"
    shutil.copytree(images / "photos", photos)
    whole = (photos / "0.png").read_bytes()
    (photos / "half.png").write_bytes(whole[: len(whole) // 2])
    settings = {"photos": photos, "cache": cache, "saliency_network": "false", "saliency_mask": "false"}
    text = launcher.run(tmp_path / "once", max_steps=7, **settings)
    assert not (cache / "saliency").exists() and (cache / "readable").is_dir()
    assert f"skipped {photos / 'half.png'}" in text and "Traceback" not in text
    facts = json.loads((tmp_path / "once/training.json").read_text())
    assert facts["photos"] == 8 and facts["saliency_reference"] == "none"
    launcher.run(tmp_path / "twice", max_steps=5, **settings)
    launcher.run(tmp_path / "twice", max_steps=7, resume_from_checkpoint="latest", **settings)
    once, twice = (tmp_path / name / "checkpoints/step_00000007/model.safetensors" for name in ("once", "twice"))
    assert once.read_bytes() == twice.read_bytes()


def test_a_reference_is_needed_as_soon_as_the_mask_or_s_is_on(trainer, images, tmp_path):
    for number in range(8):  # human masks, which stand for references and take no time
        (tmp_path / "masks").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "masks" / f"{number}.png"), np.eye(60, 72) * 255)
    for network, mask in [("false", "false"), ("false", "true"), ("true", "false"), ("true", "true")]:
        cache = tmp_path / f"cache_{network}_{mask}"
        one = trainer(saliency_network=network, saliency_mask=mask, cache=cache, masks=tmp_path / "masks")
        needed = "true" in (network, mask)
        assert ("reference" in one.data[0]) == needed == (cache / "saliency").is_dir()
        assert len(one.data) == 8


def test_a_frozen_s_is_bit_equal_after_a_training_and_needs_no_references(launcher, trainer, tmp_path):
    start = tmp_path / "start"
    launcher.run(start, max_steps=5, keep_detail=0.5, use_ema="false")
    settings = {"train_saliency": "false", "initial_style": start, "cache": tmp_path / "cache", "max_steps": 3}
    one = trainer(**settings)
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    assert one.train() == 0 and not (tmp_path / "cache/saliency").exists()
    for network in (one.model, one.ema):
        after = network.state_dict()
        changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
        assert changed and all(name.startswith("generator") for name in changed)
    shipped = SDPGAN.from_pretrained(start)
    assert shipped.config["keep_detail"] == 0.5


def test_a_style_without_a_saliency_network_ships_none_and_its_card_and_sheet_show_none(launcher, tmp_path):
    """What such a model does is tested in test_model.py."""
    launcher.run(tmp_path / "style", max_steps=5, saliency_network="false", mask_peak="3")
    assert not any(name.startswith("saliency") for name in load_file(tmp_path / "style/model.safetensors"))
    card = (tmp_path / "style/README.md").read_text()
    assert "saliency_map" not in card and "L_con_s" in card and "3.0" in card
    assert cv2.imread(str(tmp_path / "style/samples/step_000005.png")).shape == (2 * 48, 8 * 48, 3)


# arguments


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"photos": "./gallery/nothing"}, "gallery/nothing"),
        ({"paintings": "gallery"}, "gallery"),
        ({"masks": "gallery/none"}, "gallery/none"),
        ({"vgg_weights": "gallery/vgg"}, "gallery/vgg"),
        ({"output": "file/style"}, "file/style"),
        ({"config": "gallery/no.yaml"}, "no.yaml"),
        ({"resume_from_checkpoint": "latest"}, "checkpoints"),
        ({"resume_from_checkpoint": "gallery/step"}, "gallery/step"),
        ({"push_to_hub": "only-a-name"}, "'only-a-name'"),
        ({"hub_every": 5}, "--push_to_hub"),
        ({"max_steps": 0}, "--max_steps is 0"),
        ({"crop_size": 64}, "crop_size 64"),
        ({"batch_size": 9}, "batch_size 9"),
        ({"gradient_accumulation_steps": 5}, "10 photos"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_trained_is_one_sentence_before_any_network_is_built(
    launcher, here, monkeypatch, capsys, settings, named
):
    (here / "file").touch()
    (here / "gallery").mkdir()
    monkeypatch.setattr("training.train.Trainer", Mock(side_effect=AssertionError("training was started")))
    assert main(launcher.arguments("style", **settings)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("train.py: ") and named in lines[0]


def test_checkpoints_of_another_run_stay_until_it_is_said_what_becomes_of_them(launcher, tmp_path):
    own, other = tmp_path / "style/checkpoints/step_00000004", tmp_path / "other/checkpoints/step_00000009"
    for folder in (own, other):
        folder.mkdir(parents=True)

    def read(*flags: str, **settings: object):
        return read_command_line(launcher.arguments(tmp_path / "style", *flags, **settings))

    for flags, which in (((), None), ((), other), (("--overwrite_output_dir",), "latest")):
        with pytest.raises(SDPGANError, match="--overwrite_output_dir"):
            read(*flags, **({} if which is None else {"resume_from_checkpoint": which}))
    for flags, which in (((), "latest"), ((), own), (("--overwrite_output_dir",), other)):
        read(*flags, resume_from_checkpoint=which)
    assert own.is_dir()


def test_a_run_that_may_overwrite_starts_without_the_checkpoints_before(trainer, tmp_path):
    for name in ("checkpoints/step_00000004", "samples", "cache"):
        (tmp_path / "style" / name).mkdir(parents=True)
    one = trainer("--overwrite_output_dir")
    assert [path.name for path in one.output.iterdir()] == ["cache"]


def test_few_paintings_are_a_warning(trainer, capsys):
    trainer()
    assert "6 paintings" in capsys.readouterr().err


def test_arguments_are_read_without_torch(launcher, tmp_path):
    arguments = launcher.arguments(tmp_path / "style", photos=tmp_path / "absent")
    command = [sys.executable, "-X", "importtime", str(ROOT / "training/train.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith(f"train.py: {tmp_path / 'absent'}")
    assert "numpy" in done.stderr and "torch" not in done.stderr
