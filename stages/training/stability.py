"""Whether a run publishes the same weights on every machine, and if not, which rate would.

A twin stands for another machine: it is the same run, with every P - Y off by up to one unit in the
last place. At a stable learning rate, the two stay so close that hardly any weight is rounded
differently; beyond it, they move apart at every step.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from math import log, log2

import torch
from torch import Tensor

from stages.formats.model_file import straddling
from stages.training.loop import Disturb, Step
from stages.training.settings import TrainParams

UNIT = 2.0**-52  # in the last place of a float64, relative
LIMIT = 0.01  # weights expected to be published differently, beyond which a run is unstable
SUSPECT = LIMIT / 10
LARGEST_EXPONENT = 1.1  # of a stable run: 1 is in proportion to the steps
FIRST_STEPS = 50  # 1.7 % of a default run
SEARCH_STEPS = 1000
HALVINGS = 10

Fit = Callable[[TrainParams, Disturb | None], Iterator[Step]]


def other_roundings() -> Disturb:
    """What a twin does to P - Y, in place: each entry times 1 - UNIT, 1 or 1 + UNIT, at random."""
    return partial(_rounded_differently, generator=torch.Generator().manual_seed(0))


def _rounded_differently(error: Tensor, generator: torch.Generator) -> Tensor:
    units = torch.randint(-1, 2, error.shape, generator=generator)
    return error.mul_(1 + UNIT * units.to(error))


def margin(step: Step, twin: Step) -> float:
    """The expected number of weights that the run and its twin publish differently."""
    one, other = (torch.cat([s.weight.flatten(), s.bias]).cpu().numpy() for s in (step, twin))
    return straddling(one, other)


def exceeds(limit: float, early: float, late: float, factor: float) -> bool:
    """Whether a margin will exceed `limit`.

    It was `early` after half as many steps as `late`, and is estimated after `factor` times as
    many. Where it grows hardly faster than the steps, as it does at a stable learning rate, a power
    law goes through both figures, and its exponent counts as 0 if it is negative; where it grows
    faster, an exponential does.
    """
    if late == 0 or early == 0:
        return late > 0
    exponent = log2(late / early)
    if exponent > LARGEST_EXPONENT:
        growth = 2 * (factor - 1) * log(late / early)
    else:
        growth = max(0.0, exponent) * log(factor)
    return log(late) + growth > log(limit)


class Twin:
    """A run's twin, which takes FIRST_STEPS with it, and all others if their margin is suspect."""

    def __init__(self, steps: Iterator[Step], iterations: int) -> None:
        self.margin = 0.0  # between the last steps that both took
        self._steps, self._iterations = islice(steps, None), iterations
        self._taken, self._early = 0, 0.0

    def follow(self, step: Step) -> None:
        """Take the step that the run has just taken, unless the twin has stopped."""
        twin = next(self._steps, None)
        if twin is None:
            return
        self._taken += 1
        if self._taken == FIRST_STEPS // 2:
            self._early = margin(step, twin)
        if self._taken == FIRST_STEPS or step.iteration == self._iterations:
            self.margin = margin(step, twin)
        if self._taken == FIRST_STEPS and not exceeds(
            SUSPECT, self._early, self.margin, self._iterations / FIRST_STEPS
        ):
            self._steps = islice(self._steps, 0)


def stable_learning_rate(params: TrainParams, fit: Fit) -> float | None:
    """The first of a half, a quarter, ... of the learning rate at which a run is stable.

    Each rate is tried for SEARCH_STEPS at most, and from there the margin is estimated. None if
    HALVINGS do not suffice.
    """
    for halvings in range(1, HALVINGS + 1):
        rate = float(f"{params.learning_rate / 2**halvings:.2g}")
        if _is_stable(params.model_copy(update={"learning_rate": rate}), fit):
            return rate
    return None


def _is_stable(params: TrainParams, fit: Fit) -> bool:
    margins = []
    pairs = zip(fit(params, None), fit(params, other_roundings()), strict=True)
    for step, twin in islice(pairs, SEARCH_STEPS):
        if step.iteration % FIRST_STEPS == 0 or step.iteration == params.iterations:
            margins.append(margin(step, twin))
            if margins[-1] > LIMIT:
                return False
    early, late = margins[(len(margins) - 1) // 2], margins[-1]
    return not exceeds(LIMIT, early, late, params.iterations / step.iteration)
