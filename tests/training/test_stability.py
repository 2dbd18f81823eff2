from collections.abc import Callable, Iterator

import pytest
import torch

from stages.formats.split_file import Split
from stages.training import stability
from stages.training.data import Examples
from stages.training.loop import Disturb, Step, fit
from stages.training.settings import TrainParams
from stages.training.stability import (
    FIRST_STEPS,
    LIMIT,
    UNIT,
    Twin,
    exceeds,
    other_roundings,
    stable_learning_rate,
)
from tests.training.runs import final_margin, make_params

Make = Callable[..., Split]


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
        (1e-5, 4e-5, 20, True),  # with the square: 0.016
        (0.1, 0.02, 1000, True),  # it is too large already
        (0.0, 0.0, 1000, False),
        (1e-300, 1e-3, 1000, True),
        (0.0, 1e-9, 1, True),
    ],
)
def test_the_margin_is_extrapolated_by_a_power_law(
    early: float, late: float, factor: float, expected: bool
) -> None:
    assert exceeds(LIMIT, early, late, factor) == expected


@pytest.mark.parametrize(("learning_rate", "followed"), [(0.01, False), (20.0, True)])
def test_only_a_twin_that_moves_away_is_followed_to_the_end(
    make_images: Make, learning_rate: float, followed: bool
) -> None:
    split, params = make_images(n=200), make_params(learning_rate=learning_rate, iterations=300)
    taken = []

    def counted() -> Iterator[Step]:
        for step in fit(params, Examples.of(split), 3, disturb=other_roundings()):
            taken.append(step)
            yield step

    twin = Twin(counted(), params.iterations)
    for step in fit(params, Examples.of(split), 3):
        twin.follow(step)
    assert len(taken) == (300 if followed else FIRST_STEPS)
    assert (twin.margin > LIMIT) == followed
    if followed:
        assert twin.margin == final_margin(split, params)


@pytest.mark.parametrize("rare", [False, True])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize(
    ("optimizer", "unstable"), [("sgd", 20.0), ("adam", 20.0), ("adamw", 20.0)]
)
def test_the_stable_rate_found_is_stable_for_the_whole_run(
    make_images: Make, optimizer: str, unstable: float, schedule: str, rare: bool
) -> None:
    split = make_images(n=500)
    if rare:  # pixels lit in few images, as at the border of MNIST's
        split.images[:-2, :, 0] = 0
    params = make_params(
        optimizer=optimizer, learning_rate=unstable, schedule=schedule, iterations=1500
    )
    assert final_margin(split, params) > LIMIT

    def run(params: TrainParams, disturb: Disturb | None) -> Iterator[Step]:
        return fit(params, Examples.of(split), 3, disturb=disturb)

    rate = stable_learning_rate(params, run)
    assert rate is not None
    assert final_margin(split, params.model_copy(update={"learning_rate": rate})) <= LIMIT


def test_no_rate_is_named_if_none_is_found(
    make_images: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stability, "HALVINGS", 2)
    split = make_images(n=100)

    def run(params: TrainParams, disturb: Disturb | None) -> Iterator[Step]:
        return fit(params, Examples.of(split), 3, disturb=disturb)

    assert stable_learning_rate(make_params(learning_rate=1e4, iterations=100), run) is None
