import json
from collections.abc import Callable

import numpy as np
import pytest

from stages.formats.split_file import Split
from stages.training.data import Examples
from stages.training.history import History, Row
from stages.training.loop import fit, mean_loss_and_accuracy
from tests.training.runs import make_params

Make = Callable[..., Split]
PARAMS = make_params(iterations=25, eval_every=10)


def test_history_has_a_row_every_eval_every_iterations_and_one_at_the_end(
    make_images: Make,
) -> None:
    training, validation = Examples.of(make_images()), Examples.of(make_images(seed=1))
    history, losses, expected = History(PARAMS, validation), [], []
    for step in fit(PARAMS, training, 3):
        losses.append(step.loss)
        row = history.add(step)
        if step.iteration in (10, 20, 25):
            measured = mean_loss_and_accuracy(step.weight, step.bias, validation)
            expected.append(Row(step.iteration, sum(losses) / len(losses), *measured))
            assert row == expected[-1]
            losses = []
        else:
            assert row is None
    assert history.rows == expected
    assert len(expected) == 3


def test_history_without_a_validation_split_has_no_validation_figures(make_images: Make) -> None:
    nothing = Examples.of(make_images(n=0))
    history = History(PARAMS, nothing)
    for step in fit(PARAMS, Examples.of(make_images()), 3):
        history.add(step)
    assert [(row.validation_loss, row.validation_accuracy) for row in history.rows] == [
        (None, None)
    ] * 3
    assert str(history.rows[0]).startswith("iteration     10  training loss ")
    assert "validation" not in str(history.rows[0])


@pytest.mark.parametrize("stopped_after", [1, 9, 10, 13, 20, 24])
def test_a_restored_history_continues_with_the_same_rows_to_the_last_bit(
    make_images: Make, stopped_after: int
) -> None:
    training = Examples.of(make_images())
    whole, before = History(PARAMS, training), History(PARAMS, training)
    for step in fit(PARAMS, training, 3):
        whole.add(step)
        if step.iteration <= stopped_after:
            before.add(step)
    after = History(PARAMS, training)
    after.restore(json.loads(json.dumps(before.state)))
    for step in fit(PARAMS, training, 3):
        if step.iteration > stopped_after:
            after.add(step)
    assert after.rows == whole.rows


def test_a_history_row_prints_as_one_line() -> None:
    assert str(Row(500, np.log(2), 0.25, 0.5)) == (
        "iteration    500  training loss 0.6931  validation loss 0.2500  accuracy 50.00%"
    )
