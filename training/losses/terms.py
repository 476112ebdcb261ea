"""The list of loss terms: what the schedule weighs, the command line explains and the model card shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ADVERSARIAL_LOSSES = ("bce", "least_squares", "hinge")
DISCRIMINATORS = ("patch", "projected")


@dataclass(frozen=True)
class Term:
    """One term that G and S minimise.

    Attributes:
        name: as it is logged, `loss/NAME`.
        symbol: as the card and `--help` call it.
        key: the setting that is its weight; None: 1.
        needs: the settings that must be true, or not 0, for it to be computed.
        adversarial: whether it is left out of the initialisation phase.
        beyond_the_paper: whether Eq. 1 is without it.
    """

    name: str
    symbol: str
    key: str | None
    needs: tuple[str, ...] = ()
    adversarial: bool = False
    beyond_the_paper: bool = False

    def active(self, settings: dict[str, Any]) -> bool:
        return all(settings[key] for key in self.needs)


TERMS = (
    Term("con", "L_con", "w_con", ("w_con",)),
    Term("con_s", "L_con_s", "w_con_s", ("saliency_network", "w_con_s"), adversarial=True),
    Term("sali", "L_sali", "w_sali", ("saliency_network", "train_saliency")),
    Term("gan", "L_GAN", None, adversarial=True),
    Term("identity", "identity", "w_identity", ("w_identity",), beyond_the_paper=True),
    Term("shift", "shift", "w_shift", ("w_shift",), beyond_the_paper=True),
    Term("distill", "distillation", "w_distill", ("w_distill",), beyond_the_paper=True),
)
