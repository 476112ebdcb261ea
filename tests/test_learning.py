"""Real trainings of seconds, photos of discs towards paintings of stripes: what a training that is wired wrong fails.

Each test names a fact about what was learnt, on crops that were not trained on. Planted faults that have to make one
fail: D's labels swapped; D shown the photo in place of G(x); paintings in place of edge-blurred ones; y and c cropped
apart; a learning rate that never falls; an average that never moves; D's gradient left out.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
import training_extra  # noqa: F401
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from training_fixtures import batch_of

from sdpgan_hub import SDPGAN
from training.data.dataset import edge_blurred
from training.losses import discriminators
from training.run.arguments import read_command_line
from training.train import Trainer

SETTINGS = {
    "base_channels": 8, "residual_blocks": 2, "discriminator_channels": 16, "batch_size": 4, "w_con": 0.02,
    "learning_rate": 1e-3, "discriminator_learning_rate": 6e-4, "lr_milestones": 0.8, "initialization_epochs": 10,
    "epochs": 30, "ema_decay": 0.9, "logging_steps": 1000,
}  # fmt: skip
"""Two steps an epoch of eight photos: 20 of initialisation, 60 adversarial, the last 12 at a tenth of the rates."""
HELD_OUT = tuple(range(10_000, 10_016))


@dataclass
class Learned:
    """A training that was watched."""

    trainer: Trainer
    held_out: dict[str, torch.Tensor]
    first_weights: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]
    """Of S and G, and of D."""
    numbers: list[dict[str, float]] = field(default_factory=list)
    rates: list[list[float]] = field(default_factory=list)
    """Of the optimiser's groups, as each step was made."""
    before: torch.Tensor | None = None
    """Results on the held-out photos after the initialisation phase."""
    judged: torch.Tensor | None = None
    """What D was shown in the last step."""
    stylized: torch.Tensor | None = None
    """G(x) of the last step."""

    @torch.no_grad()
    def results(self) -> torch.Tensor:
        return self.trainer.model(self.held_out["photo"])[0]

    @torch.no_grad()
    def judgements(self, images: torch.Tensor) -> torch.Tensor:
        """D's mean logit of each image and each of its parts, parts x images."""
        projected = self.trainer.config.discriminator == "projected"
        features = discriminators.pyramids(self.trainer.vgg, images) if projected else ()
        pixels, heads = self.trainer.discriminator(images, features)
        return torch.stack([logits.flatten(1).mean(1) for logits in (pixels, *heads)])


def watched_training(launcher, output: Path, settings: dict[str, object]) -> Learned:
    AcceleratorState._reset_state(reset_partial_state=True)
    arguments = launcher.arguments(output, **SETTINGS, **settings)
    trainer = Trainer(*read_command_line(arguments))
    networks = (trainer.model, trainer.discriminator)
    one = Learned(trainer, batch_of(trainer, HELD_OUT), tuple(copy.deepcopy(net.state_dict()) for net in networks))
    backward, update = trainer.backward, trainer.update

    def watched_backward(batch):
        if trainer.progress.step == trainer.schedule.initialization_steps:
            one.before = one.results()
        numbers = backward(batch)
        one.numbers.append({name: float(value) for name, value in numbers.items()})
        return numbers

    def watched_update():
        norms = update()
        one.rates.append([group["lr"] for group in trainer.optimizer.param_groups])
        return norms

    trainer.backward, trainer.update = watched_backward, watched_update
    shown: list[torch.Tensor] = []
    with (
        trainer.discriminator.register_forward_hook(lambda module, inputs, output: shown.append(inputs[0].detach())),
        trainer.model.register_forward_hook(
            lambda module, inputs, output: setattr(one, "stylized", output[0].detach())
        ),
    ):
        assert trainer.train() == 0
    one.judged = shown[-2]  # the last is G(x) alone, for G's update
    trainer.backward = backward
    trainer.model.eval()
    trainer.discriminator.eval()
    return one


@pytest.fixture(scope="module")
def patch(launcher, tmp_path_factory) -> Iterator[Learned]:
    """With the paper's D."""
    yield watched_training(launcher, tmp_path_factory.mktemp("patch"), {})
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def projected(launcher, tmp_path_factory) -> Iterator[Learned]:
    """With heads on VGG's features, and the identity loss."""
    settings = {"discriminator": "projected", "adversarial_loss": "hinge", "w_identity": 1}
    yield watched_training(launcher, tmp_path_factory.mktemp("projected"), settings)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(params=["patch", "projected"])
def learned(request) -> Learned:
    return request.getfixturevalue(request.param)


def levels(signed: torch.Tensor) -> np.ndarray:
    return ((signed + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def stripes(images: torch.Tensor) -> float:
    """How much more rows differ than columns do: variance of the rows' mean luma over that of the columns'."""
    grey = images.mean(1)
    return (grey.mean(2).var(1).mean() / (grey.mean(1).var(1).mean() + 1e-3)).item()


def test_s_learns_where_the_discs_are(learned: Learned):
    losses = [numbers["loss/sali"] for numbers in learned.numbers]
    assert len(losses) == 80 and np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])
    with torch.no_grad():
        saliency = (learned.trainer.ema.eval()(learned.held_out["photo"])[1] + 1) / 2
    reference = learned.held_out["reference"]
    assert (saliency - reference).abs().mean() < 0.5 * reference.mean()  # the empty map has the mean


def test_d_tells_paintings_from_results_and_from_edge_blurred_ones(learned: Learned):
    painting, blurred, generated = (
        learned.judgements(images)
        for images in (learned.held_out["painting"], learned.held_out["edge_blurred"], learned.results())
    )
    higher = (painting[:, :, None] > generated[:, None]).float().mean((1, 2))  # 0.5: chance
    assert higher.mean() > 0.6, higher  # roundings move the patch D between 0.66 and 0.77
    assert (painting[0] > blurred[0]).float().mean() > 0.65  # each painting beside its own


def test_results_move_towards_the_paintings(projected: Learned):
    # the paper's D alone takes longer
    photo, before, after = (
        stripes(images) for images in (projected.held_out["photo"], projected.before, projected.results())
    )
    assert after > 10 * photo and after > 1.5 * before  # the identity loss alone has brought some


def test_the_learning_rates_fall_in_the_optimiser_when_the_schedule_says_so(learned: Learned):
    assert learned.rates == [pytest.approx([1e-3, 6e-4])] * 68 + [pytest.approx([1e-4, 6e-5])] * 12


def test_every_network_is_trained(learned: Learned):
    for network, first in zip(
        (learned.trainer.model, learned.trainer.discriminator), learned.first_weights, strict=True
    ):
        still = [name for name, value in network.named_parameters() if torch.equal(value, first[name])]
        assert still == []


def test_the_average_follows_the_weights_and_is_what_ships(learned: Learned):
    first, average, current = (
        learned.first_weights[0],
        learned.trainer.ema.state_dict(),
        learned.trainer.model.state_dict(),
    )

    def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
        return sum((a[name] - b[name]).square().sum().item() for name in a) ** 0.5

    assert 0 < distance(average, current) < 0.3 * distance(first, current)
    shipped = load_file(learned.trainer.output / "model.safetensors")
    assert shipped.keys() == average.keys()
    assert all(torch.equal(shipped[name], average[name].half()) for name in shipped)
    assert SDPGAN.from_pretrained(learned.trainer.output).config == learned.trainer.model.config


def test_d_was_shown_paintings_their_edge_blurred_copies_and_results(learned: Learned):
    painting, blurred, generated = learned.judged.chunk(3)
    assert torch.equal(generated, learned.stylized[:4])
    for y, c in zip(painting, blurred, strict=True):
        assert np.array_equal(levels(c), edge_blurred(levels(y))) and not torch.equal(y, c)
    assert painting.amax(1).sub(painting.amin(1)).max() == 0  # the paintings are grey, photos and results are not
    assert generated.amax(1).sub(generated.amin(1)).mean() > 0.02
