"""What a run that goes wrong says, which weights of one that goes well are shipped, and what an ablation leaves out."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import subprocess
import sys
import weakref

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from training_fixtures import ROOT, scalars

from sdpgan_hub import SDPGAN, SDPGANError

try:
    from accelerate.optimizer import AcceleratedOptimizer
    from accelerate.state import AcceleratorState

    from training import objective
    from training.arguments import read_command_line
    from training.checkpoints import Checkpoints, fault
    from training.health import WINDOW, Health
    from training.selection import kernel_distance
    from training.train import Trainer, main
except (ImportError, RuntimeError) as error:  # torchvision of another torch build raises RuntimeError
    pytest.skip(f"the extra 'training' is not installed ({error})", allow_module_level=True)

WELL = {"loss/discriminator": 1.9, "loss/con": 1.5, "loss/gan": 0.8, "output/contrast": 0.4, "output/variety": 0.5}
WEIGHTS = {"con": 0.25, "gan": 1.0}


@pytest.mark.parametrize(
    ("ill", "named"),
    [
        ({"loss/con": math.nan}, "loss con is nan"),
        ({"loss/con": math.inf, "gradient_norm/generator": math.nan}, "loss con is inf"),
        ({"gradient_norm/discriminator": math.inf}, "gradient_norm discriminator is inf though every loss is finite"),
    ],
)
def test_the_term_that_is_not_finite_is_named_at_once(ill, named):
    diverged, collapsed = Health().observe(WELL | ill, WEIGHTS)
    assert diverged == named and collapsed is None


@pytest.mark.parametrize(
    ("ill", "named"),
    [
        (
            {"loss/discriminator": 0.001},
            r"D's loss was below 0.02 in 90% of the last 100 steps \(now 0.001\), so the term gan \(0.8\)",
        ),
        ({"output/contrast": 0.003, "loss/con": 9.0}, "one flat colour .* largest term of its loss was con"),
        ({"output/variety": 0.003, "loss/gan": 9.0}, "the same for every photo .* largest term of its loss was gan"),
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


def test_a_run_that_diverges_says_so_and_leaves_the_checkpoint_and_the_style(launcher, tmp_path):
    style = tmp_path / "style"
    launcher.run(style, max_steps=5)
    before = {name: (style / name).read_bytes() for name in ("model.safetensors", "training.json", "README.md")}
    # every number of step 6 is finite; its update is what ruins the weights, and saving them would cost the good ones
    text = launcher.run(style, code=2, resume_from_checkpoint="latest", learning_rate="1e30", logging_steps=1000,
                        checkpointing_steps=3, checkpoints_total_limit=1)  # fmt: skip
    sentence = text[text.index("train.py: ") :].strip()
    assert "\n" not in sentence and "Traceback" not in text
    assert "The run diverged at step 6: its update made G(x) not finite" in sentence
    checkpoints = list((style / "checkpoints").iterdir())
    assert [path.name for path in checkpoints] == ["step_00000005"] and fault(checkpoints[0]) is None
    assert {name: (style / name).read_bytes() for name in before} == before
    text = launcher.run(style, code=2, resume_from_checkpoint="latest", learning_rate="1e30")  # and nothing to save
    assert "The run diverged at step 7: loss discriminator is nan and loss con is nan" in text


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
    stopped = int(re.search(r"The run collapsed by step (\d+): G's results were one flat colour", sentence)[1])
    assert 90 <= stopped - 5 <= 200 and re.search(r"the largest term of its loss was \w+ \(", sentence)
    assert str(checkpoints.folder) in sentence and "Traceback" not in text
    assert [path.name for path in checkpoints.all()] == ["step_00000005"]


@pytest.mark.slow
def test_a_run_whose_discriminator_has_won_is_stopped_within_200_steps_of_its_last_sound_one(launcher, tmp_path):
    # D learns fast, and w_con keeps G at the photos
    settings = {"learning_rate": 4e-3, "discriminator_channels": 32, "w_con": 1e5, "edge_blurred": "false"}
    text = launcher.run(tmp_path / "style", code=2, timeout=500, initialization_epochs=0, epochs=1000, **settings)
    stopped = int(re.search(r"The run collapsed by step (\d+)", text)[1])
    assert "D's loss was" in text
    ill = scalars(tmp_path / "style")["loss/discriminator"]
    assert stopped - max(step for step, value in ill.items() if value > 0.2) <= 200


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


def test_accuracy_is_the_share_of_patches_that_d_tells_right():
    logits = torch.tensor([-2.0, 0.2, 0.7, 3.0])
    assert objective.accuracy(logits, True) == 0.75 and objective.accuracy(logits, False) == 0.25
    assert objective.accuracy(logits, True, "least_squares") == 0.5


# which weights are shipped


def test_the_kernel_distance_is_the_unbiased_mean_of_its_kernel_over_different_pairs():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(5, 3)), random.normal(1, 1, size=(4, 3))

    def k(a, b):
        return (a @ b / 3 + 1) ** 3

    def pairs(z):
        return np.mean([k(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j])

    expected = pairs(x) + pairs(y) - 2 * np.mean([k(a, b) for a in x for b in y])
    assert kernel_distance(torch.tensor(x), torch.tensor(y)) == pytest.approx(expected)


def test_the_kernel_distance_of_equal_distributions_is_0_on_average():
    random = torch.Generator().manual_seed(0)
    values = [kernel_distance(*torch.randn(2, 20, 8, generator=random)) for _ in range(400)]
    error = np.std(values) / 20
    assert abs(np.mean(values)) < 3 * error and min(values) < 0
    assert kernel_distance(torch.randn(20, 8), torch.randn(20, 8) + 1) > 5 * np.std(values)


def test_the_shipped_weights_are_those_with_the_lowest_distance_on_the_validation_images(launcher, images, tmp_path):
    style = tmp_path / "style"
    launcher.run(style, max_steps=12, select_by="kernel_distance", select_steps=2, checkpointing_steps=2,
                 checkpoints_total_limit=100, learning_rate=2e-3, val_photos=images / "photos",
                 val_paintings=images / "paintings")  # fmt: skip
    measured = scalars(style)["validation/kernel_distance"]
    assert measured.keys() == {4, 6, 8, 10, 12}
    best = min(measured, key=measured.__getitem__)
    facts = json.loads((style / "training.json").read_text())
    assert facts["steps"] == best
    assert facts["validation"]["kernel_distance"] == pytest.approx(measured[best], rel=1e-5)
    checkpoint = style / "checkpoints" / f"step_{best:08d}"
    states = [torch.load(path, weights_only=True) for path in checkpoint.glob("custom_checkpoint_*.pkl")]
    average = next(state for state in states if "step" not in state)
    shipped = load_file(style / "model.safetensors")
    assert all(torch.equal(average[name].half(), value) for name, value in shipped.items())
    assert "lowest kernel_distance" in (style / "README.md").read_text()


# one trainer in this process


@pytest.fixture
def trainer(launcher, tmp_path):
    """A function: settings -> Trainer at its first adversarial step, in this process."""

    def build(**settings) -> Trainer:
        AcceleratorState._reset_state(reset_partial_state=True)
        arguments = launcher.arguments(tmp_path / "style", initialization_epochs=0, **settings)
        return Trainer(*read_command_line(arguments))

    yield build
    AcceleratorState._reset_state(reset_partial_state=True)


def batch_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {key: torch.stack([trainer.data[n][key] for n in range(2)]) for key in trainer.data[0]}


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


def test_the_terms_one_after_the_other_give_the_gradients_of_their_sum(trainer):
    one = trainer(w_texture=1, w_detail=1, w_colour_grain=1)
    batch, weights = batch_of(one), one.schedule.weights(0)
    one.backward(batch)
    gradients = {name: parameter.grad.clone() for name, parameter in one.model.named_parameters()}
    one.model.zero_grad()
    stylized, saliency = one.model(batch["photo"])
    kinds = (one.vgg_terms, one.discriminator_terms, one.saliency_terms, one.pixel_terms)
    terms = {name: term for kind in kinds for name, term in kind(batch, stylized, saliency, weights.keys()).items()}
    assert terms.keys() == weights.keys() > {"texture", "detail", "colour_grain", "con_s"}
    sum(weights[name] * term for name, term in terms.items()).backward()
    for name, parameter in one.model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-6)


def test_the_activations_of_vgg_are_gone_when_the_next_networks_see_the_result(trainer):
    one = trainer()
    activations, alive = [], []
    one.vgg.layers[5].register_forward_hook(lambda module, inputs, result: activations.append(weakref.ref(result)))
    one.vgg.register_forward_hook(lambda *_: alive.append(sum(ref() is not None for ref in activations)))
    for network in (one.discriminator, one.model.saliency_network):
        network.register_forward_hook(lambda *_: alive.append(sum(ref() is not None for ref in activations)))
    one.backward(batch_of(one))
    # S(x), D of all images; VGG(x), which needs no gradient, VGG(G(x)); D(G(x)), S(G(x))
    assert alive == [0, 0, 0, 1, 0, 0]


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
        ({"w_con_s": 0}, {"discriminator", "con", "sali", "gan"}, 1, "saliency"),
        ({"feature_concatenation": "false"}, {"discriminator", "con", "sali", "gan", "con_s"}, 2, "saliency"),
        ({"saliency_network": "false", "saliency_mask": "false"}, {"discriminator", "con", "gan"}, 0, None),
    ],
    ids=["paper", "no network", "no mask", "no con_s", "no concatenation", "cartoongan"],
)
def test_an_ablation_leaves_out_its_terms_and_what_they_cost(
    trainer, monkeypatch, settings, terms, runs_of_s, mask_from
):
    one = trainer(**settings)
    batch = batch_of(one)
    ran, masked = [], []
    if one.model.saliency_network is not None:
        one.model.saliency_network.register_forward_hook(lambda *_: ran.append("S"))
    one.model.generator.register_forward_hook(lambda *_: ran.append("G"))
    one.vgg.register_forward_hook(lambda *_: ran.append("VGG"))
    one.discriminator.register_forward_hook(lambda *_: ran.append("D"))
    mask = objective.saliency_mask
    monkeypatch.setattr(objective, "saliency_mask", lambda value, peak: masked.append(value) or mask(value, peak))

    numbers = one.backward(batch)
    assert {name.removeprefix("loss/") for name in numbers if name.startswith("loss/")} == terms
    assert sorted(ran) == sorted(["S"] * runs_of_s + ["G", "VGG", "VGG", "D", "D"])
    assert len(masked) == (mask_from is not None)
    if masked:
        assert torch.equal(masked[0], batch["reference"]) == (mask_from == "reference")
    # every network that is there learns, from a loss that is not constant
    for network in filter(None, (one.model.saliency_network, one.model.generator, one.discriminator)):
        assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters() if parameter.ndim > 1)
    joined = one.model.generator.down2[0].in_channels // one.model.generator.down1[0].out_channels
    assert joined == (1 if {"saliency_network", "feature_concatenation"} & settings.keys() else 2)


def test_the_texture_term_is_weighed_in_and_its_gradient_reaches_the_generator(trainer):
    plain, textured = trainer(w_con_s=0), trainer(w_con_s=0, w_texture=25)
    numbers, gradients = [], []
    for one in (plain, textured):
        numbers.append(one.backward(batch_of(one)))
        gradients.append(one.model.generator.output[0].weight.grad.clone())
    assert numbers[1].keys() - numbers[0].keys() == {"loss/texture"} and numbers[1]["loss/texture"] > 0
    assert numbers[1]["loss/con"] == pytest.approx(numbers[0]["loss/con"].item(), rel=1e-5)
    assert not torch.allclose(*gradients, rtol=1e-3)
    assert [len(one) for one in textured.painting_textures] == [64, 128, 256, 512]


def test_the_detail_term_is_the_masked_content_loss_of_relu2_2(trainer):
    one = trainer(w_detail=2, mask_peak=3)
    batch = batch_of(one)
    saliency, _ = one.model.saliency_network(batch["photo"])
    pair = [one.vgg.layers[:9](one.vgg._normalized(x)) for x in (one.model(batch["photo"])[0], batch["photo"])]
    expected = objective.content_loss(*pair, objective.saliency_mask(saliency, 3))
    assert one.backward(batch)["loss/detail"].item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("term", ["detail", "colour_grain"])
def test_a_term_beyond_the_paper_is_weighed_in_and_its_gradient_reaches_the_generator(trainer, term):
    plain, more = trainer(), trainer(**{f"w_{term}": 2})
    numbers = [one.backward(batch_of(one)) for one in (plain, more)]
    assert numbers[1].keys() - numbers[0].keys() == {f"loss/{term}"} and numbers[1][f"loss/{term}"] > 0
    gradients = [one.model.generator.output[0].weight.grad for one in (plain, more)]
    assert not torch.allclose(*gradients, rtol=1e-3)


def test_human_masks_switches_between_the_masks_and_the_references(trainer, images, tmp_path):
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks/0.png"), np.full((60, 72), 255, np.uint8))
    shutil.copytree(images / "cache", tmp_path / "cache")
    everywhere = {}
    for switch in ("true", "false"):
        one = trainer(masks=tmp_path / "masks", cache=tmp_path / "cache", human_masks=switch)
        everywhere[switch] = sum(bool((one.data[number]["reference"] == 1).all()) for number in range(8))
    assert everywhere == {"true": 1, "false": 0}


def test_a_training_without_s_and_mask_makes_no_references_and_resumes_and_selects(launcher, images, tmp_path):
    photos, cache = tmp_path / "photos", tmp_path / "cache"
    shutil.copytree(images / "photos", photos)
    whole = (photos / "0.png").read_bytes()
    (photos / "half.png").write_bytes(whole[: len(whole) // 2])
    settings = {"photos": photos, "cache": cache, "saliency_network": "false", "saliency_mask": "false",
                "select_by": "kernel_distance", "select_steps": 2, "val_photos": images / "photos",
                "val_paintings": images / "paintings", "masks": images / "photos"}  # fmt: skip
    text = launcher.run(tmp_path / "once", max_steps=7, **settings)
    assert not (cache / "saliency").exists() and (cache / "edge_blurred").is_dir()
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
        shutil.copytree(images / "cache/edge_blurred", cache / "edge_blurred")
        one = trainer(saliency_network=network, saliency_mask=mask, cache=cache, masks=tmp_path / "masks")
        needed = "true" in (network, mask)
        assert ("reference" in one.data[0]) == needed == (cache / "saliency").is_dir()
        assert len(one.data) == 8


def test_a_training_with_a_detail_skip_sees_it_and_its_style_has_it(launcher, images, trainer, tmp_path):
    one = trainer(detail_skip=1)
    batch = batch_of(one)
    painted = one.model(batch["photo"])[0]
    one.model.config["detail_skip"] = 0.0
    assert (painted - one.model(batch["photo"])[0]).abs().max() > 0.05
    launcher.run(tmp_path / "skipped", max_steps=3, detail_skip=0.5)
    style = SDPGAN.from_pretrained(tmp_path / "skipped")
    assert style.config["detail_skip"] == 0.5
    assert "paintings have 0.5 of the photo's fine structure" in (tmp_path / "skipped/README.md").read_text()
    photo = cv2.imread(str(images / "photos/0.png"))
    assert not np.array_equal(style.stylize(photo), style.stylize(photo, detail_skip=0))


def test_a_style_without_a_saliency_network_loads_and_says_that_it_has_no_maps(launcher, images, tmp_path):
    launcher.run(tmp_path / "style", max_steps=5, saliency_network="false", mask_peak="3")
    model = SDPGAN.from_pretrained(tmp_path / "style")
    photo = cv2.imread(str(images / "photos/0.png"))
    assert model.stylize(photo).shape == photo.shape
    with pytest.raises(SDPGANError, match="no saliency maps"):
        model.saliency_map(photo)
    assert not any(name.startswith("saliency") for name in load_file(tmp_path / "style/model.safetensors"))
    card = (tmp_path / "style/README.md").read_text()
    assert "saliency_map" not in card and "| left out | the saliency network, L_sali and L_con_s |" in card
    assert "the mask of Eq. 4 up to 3.0 (the paper: 2.0)" in card
    assert cv2.imread(str(tmp_path / "style/samples/step_000005.png")).shape == (2 * 48, 8 * 48, 3)


# arguments


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"photos": "FOLDER/nothing"}, "nothing is not a folder"),
        ({"paintings": "FOLDER"}, "FOLDER holds no image"),
        ({"masks": "FOLDER/none"}, "FOLDER/none is not a folder"),
        ({"vgg_weights": "FOLDER/vgg"}, "FOLDER/vgg is not a file"),
        ({"output": "FILE/style"}, "FILE/style cannot be made a folder"),
        ({"config": "FOLDER/no.yaml"}, "no.yaml is not a readable YAML file"),
        ({"select_by": "kernel_distance"}, "needs --val_photos"),
        ({"val_photos": "PHOTOS"}, "give both or none"),
        ({"resume_from_checkpoint": "latest"}, "holds no checkpoint"),
        ({"resume_from_checkpoint": "FOLDER/step"}, "FOLDER/step is not a checkpoint folder"),
        ({"push_to_hub": "only-a-name"}, "'only-a-name' is not a Hub id"),
        ({"hub_every": 5}, "need --push_to_hub"),
        ({"max_steps": 0}, "--max_steps is 0"),
        ({"crop_size": 64}, "crop_size 64 is larger than image_size 48"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_trained_is_one_sentence_before_any_network_is_built(
    launcher, tmp_path, monkeypatch, capsys, settings, named
):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()

    def filled(text: str) -> str:
        places = {"FOLDER": tmp_path / "folder", "FILE": tmp_path / "file", "PHOTOS": launcher.images / "photos"}
        for name, path in places.items():
            text = text.replace(name, str(path))
        return text

    def fail(*_):
        raise AssertionError("training was started")

    monkeypatch.setattr("training.train.Trainer", fail)
    settings = {key: filled(str(value)) for key, value in settings.items()}
    assert main(launcher.arguments(tmp_path / "style", **settings)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("train.py: ") and filled(named) in lines[0]


def test_a_single_painting_is_refused_and_few_are_a_warning_before_vgg_is_read(launcher, images, tmp_path, capsys):
    (tmp_path / "one").mkdir()
    (tmp_path / "one/painting.png").write_bytes((images / "paintings/0.png").read_bytes())
    (tmp_path / "vgg.safetensors").write_text("not weights")
    AcceleratorState._reset_state(reset_partial_state=True)
    settings = {"paintings": tmp_path / "one", "vgg_weights": tmp_path / "vgg.safetensors"}
    assert main(launcher.arguments(tmp_path / "style", **settings)) == 2
    assert "holds one painting" in capsys.readouterr().err
    AcceleratorState._reset_state(reset_partial_state=True)
    assert main(launcher.arguments(tmp_path / "style", vgg_weights=tmp_path / "vgg.safetensors")) == 2
    errors = capsys.readouterr().err
    assert "holds only 6 paintings" in errors and "vgg.safetensors is not a readable" in errors


def test_arguments_are_read_without_torch(launcher, tmp_path):
    arguments = launcher.arguments(tmp_path / "style", photos=tmp_path / "absent")
    command = [sys.executable, "-X", "importtime", str(ROOT / "training/train.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith(f"train.py: {tmp_path / 'absent'}")
    assert "numpy" in done.stderr and "torch" not in done.stderr
