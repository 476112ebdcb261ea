"""Whether a run is still a training: no number that is not finite, D not perfect, results that differ."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from statistics import fmean

WINDOW = 100
SHARE = 0.9
"""A collapse is this share of the last `WINDOW` steps: healthy runs have bad steps, collapsed ones good steps."""
LEAST_DISCRIMINATOR_LOSS = 0.02
"""D wins every time: it tells G nothing any more."""
CHANCE_MARGIN = 0.1
"""A D whose loss stays within this of a constant D's has not learnt to tell anything (nats with "bce")."""
LEAST_SPREAD = 0.3
"""Of the paintings' standard deviation, which is 0.3 to 0.6: over the pixels of a result, and over the results of a
batch at one pixel. Healthy runs have 0.8 to 1.1 of it; one that gave every photo the same colour had 0.2."""


class Health:
    """Told every step's numbers, it says what went wrong, naming the term.

    loss/gan, loss/con, loss/con_s, loss/sali     the terms of G and S (Eq. 1), unweighted
    loss/discriminator                            what D minimises (Eq. 3)
    gradient_norm/*                               of G and S, and of D
    constant_loss                                 `objective.constant_discriminator_loss` of this training
    output/contrast, output/variety               standard deviations of G(x) over pixels, over the batch (where it is
    painting/contrast, painting/variety           of one photo, over that result and the one before), and of paintings
    """

    def __init__(self, constant_loss: float = math.inf):
        self.constant_loss = constant_loss
        self.steps = 0
        self.recent: dict[str, deque[float]] = {}

    def observe(self, numbers: Mapping[str, float], weights: Mapping[str, float]) -> tuple[str | None, str | None]:
        """(why the run diverged, why it collapsed) as clauses; None for what did not happen.

        numbers: one step's, by the names above, in the order in which they were computed.
        weights: of the terms of G and S in Eq. 1, by their names, in this step.
        """
        infinite = [name for name, value in numbers.items() if not math.isfinite(value)]
        if infinite:
            # losses come before gradients: where one is not finite the gradients are only what follows of it
            losses = [name for name in infinite if name.startswith("loss/")]
            described = " and ".join(f"{name.replace('/', ' ')} is {numbers[name]}" for name in losses or infinite)
            return described if losses else f"{described} though every loss is finite", None
        self.steps += 1
        for name, value in numbers.items():
            if self.steps > WINDOW or not name.startswith("output/"):  # G's first weights paint grey
                self.recent.setdefault(name, deque(maxlen=WINDOW)).append(value)
        return None, self._collapsed(numbers, weights)

    def _collapsed(self, numbers: Mapping[str, float], weights: Mapping[str, float]) -> str | None:
        if self._below("loss/discriminator", LEAST_DISCRIMINATOR_LOSS, numbers):
            return (
                f"D's loss was below {LEAST_DISCRIMINATOR_LOSS} in {self._span} (now "
                f"{numbers['loss/discriminator']:.2g}), so the term gan ({numbers['loss/gan']:.3g}) no longer tells G "
                "what a painting looks like"
            )
        for kind, what in (("contrast", "one flat colour"), ("variety", "the same for every photo")):
            name, paintings = f"output/{kind}", self.recent.get(f"painting/{kind}", ())
            if paintings and self._below(name, LEAST_SPREAD * fmean(paintings), numbers):
                terms = {term: weight * numbers[f"loss/{term}"] for term, weight in weights.items()}
                largest = max(terms, key=terms.__getitem__)
                return (
                    f"G's results were {what} in {self._span} (standard deviation {numbers[name]:.2g}, of paintings "
                    f"{fmean(paintings):.2g}), while the largest term of its loss was {largest} "
                    f"({terms[largest]:.3g} of {sum(terms.values()):.3g})"
                )
        return None

    def at_chance(self) -> str | None:
        """Why D tells paintings from results no better than a constant would, as a clause; None where it does."""
        values = self.recent.get("loss/discriminator", ())
        near = sum(value > self.constant_loss - CHANCE_MARGIN for value in values)
        if len(values) < WINDOW or near < SHARE * WINDOW:
            return None
        return (
            f"D's loss stayed within {CHANCE_MARGIN} of {self.constant_loss:.3f}, that of a D with one answer for "
            f"everything, in {self._span}: it does not tell paintings from results, and G learns no style from it"
        )

    @property
    def _span(self) -> str:
        return f"{SHARE:.0%} of the last {WINDOW} steps"

    def _below(self, name: str, least: float, numbers: Mapping[str, float]) -> bool:
        values = self.recent.get(name, ())
        return name in numbers and sum(value < least for value in values) >= SHARE * WINDOW
