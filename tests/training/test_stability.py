from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from stages.formats.split_file import Split
from stages.training import stability
from stages.training.data import Examples
from stages.training.loop import Step, fit
from stages.training.stability import (
    FIRST_STEPS,
    LIMIT,
    UNIT,
    Fit,
    Twin,
    exceeds,
    other_roundings,
    stable_learning_rate,
)
from tests.training.runs import final_margin, make_params


@pytest.fixture
def split(make_images: Callable[..., Split]) -> Split:
    """Images that no weights can tell apart: a rate that is too large never comes to rest."""
    made = make_images(n=200)
    made.labels[:] = np.random.default_rng(1).permutation(made.labels)
    return made


def runs(split: Split) -> Fit:
    return lambda params, disturb: fit(params, Examples.of(split), 3, disturb=disturb)


def test_a_twin_is_off_by_at_most_a_unit_in_the_last_place_at_random() -> None:
    error = torch.ones(3, 1000, dtype=torch.float64)
    units = (other_roundings()(error.clone()) - error) / UNIT
    assert set(units.flatten().tolist()) == {-1.0, 0.0, 1.0}
    assert units.mean().abs() < 0.1


@pytest.mark.parametrize(
    ("early", "late", "factor", "expected"),
    [
        (1e-5, 1e-5, 1000, False),  # it has stopped growing
        (1e-5, 2e-5, 400, False),  # in proportion to the steps: 0.008
        (1e-5, 2e-5, 600, True),  # 0.012
        (1e-14, 4e-14, 10, False),  # four times as much in each of 18 periods: 0.003
        (1e-13, 4e-13, 10, True),  # 0.03
        (0.1, 0.02, 1000, True),  # it is too large already
        (0.0, 0.0, 1000, False),
        (1e-300, 1e-3, 1000, True),
        (0.0, 1e-9, 1, True),
    ],
)
def test_the_margin_is_extrapolated_by_a_power_law_or_if_it_grows_faster_an_exponential(
    early: float, late: float, factor: float, expected: bool
) -> None:
    assert exceeds(LIMIT, early, late, factor) == expected


@pytest.mark.parametrize(("learning_rate", "followed"), [(0.1, False), (5.0, True)])
def test_only_a_twin_that_moves_away_is_followed_to_the_end(
    split: Split, learning_rate: float, followed: bool
) -> None:
    params = make_params(learning_rate=learning_rate, iterations=300)
    taken = []

    def counted() -> Iterator[Step]:
        for step in runs(split)(params, other_roundings()):
            taken.append(step)
            yield step

    twin = Twin(counted(), params.iterations)
    for step in runs(split)(params, None):
        twin.follow(step)
    assert len(taken) == (300 if followed else FIRST_STEPS)
    assert (twin.margin > LIMIT) == followed
    if followed:
        assert twin.margin == final_margin(split, params)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_the_stable_rate_found_is_stable_for_the_whole_run(
    split: Split, optimizer: str, schedule: str
) -> None:
    params = make_params(optimizer=optimizer, learning_rate=20.0, schedule=schedule, iterations=400)
    rate = stable_learning_rate(params, runs(split))
    assert rate is not None
    assert final_margin(split, params.model_copy(update={"learning_rate": rate})) <= LIMIT


def test_no_rate_is_named_if_none_is_found(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stability, "HALVINGS", 2)
    params = make_params(learning_rate=1e3, iterations=300)
    assert stable_learning_rate(params, runs(split)) is None
