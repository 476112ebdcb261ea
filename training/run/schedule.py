"""Everything that depends on the step, and how far a run has come."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from ..losses.objective import content_weight
from ..losses.terms import TERMS
from .config import TrainingConfig


@dataclasses.dataclass
class Schedule:
    """Phases, weights of the loss terms and learning rates, as functions of the step alone."""

    config: TrainingConfig
    steps_per_epoch: float

    @property
    def initialization_steps(self) -> int:
        return round(self.config.initialization_epochs * self.steps_per_epoch)

    @property
    def total_steps(self) -> int:
        steps = self.config.adversarial_steps or round(self.config.epochs * self.steps_per_epoch)
        return self.initialization_steps + steps

    def adversarial(self, step: int) -> bool:
        return step >= self.initialization_steps

    def w_con(self, step: int) -> float:
        """Eq. 9; the initialisation phase has its first value."""
        epoch = max(0, step - self.initialization_steps) / self.steps_per_epoch
        config = self.config
        return content_weight(config.w_con, int(epoch), config.w_con_decay, config.w_con_decay_epochs)

    def weights(self, step: int) -> dict[str, float]:
        """Of the terms that G and S minimise at this step; a term that is not there is not computed."""
        settings, adversarial = vars(self.config), self.adversarial(step)
        terms = [term for term in TERMS if term.active(settings) and (adversarial or not term.adversarial)]
        weights = {term.name: 1.0 if term.key is None else settings[term.key] for term in terms}
        return weights | ({"con": self.w_con(step)} if "con" in weights else {})

    def learning_rate(self, step: int) -> float:
        """Of G and S; D's falls with it."""
        return self.config.learning_rate * self.decay(step)

    def decay(self, step: int) -> float:
        """The factor of the learning rates at this step."""
        start = self.initialization_steps if self.initialization_steps < self.total_steps else 0
        done = (step - start) / max(1, self.total_steps - start)
        passed = sum(done >= milestone for milestone in self.config.lr_milestones)
        return self.config.lr_gamma**passed


@dataclasses.dataclass
class Progress:
    """What a checkpoint holds beside networks, optimiser and random states."""

    step: int = 0
    seconds: float = 0.0

    def state_dict(self) -> dict[str, float]:
        return dataclasses.asdict(self)

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.step, self.seconds = int(state["step"]), float(state["seconds"])


@torch.no_grad()
def update_average(averaged: nn.Module, current: nn.Module, step: int, decay: float) -> None:
    """Exponential moving average that forgets its first values faster: the decay is min(decay, (1 + n) / (10 + n))."""
    share = 1 - min(decay, (1 + step) / (10 + step))
    for old, new in zip(averaged.parameters(), current.parameters(), strict=True):
        old.lerp_(new, share)
