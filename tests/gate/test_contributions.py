import json
from collections.abc import Collection

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from stages.gate.contributions import Contributions, contributions, standard_error
from stages.gate.paired_tests import accuracy_test, swap_test
from stages.gate.predictions import Predictions, parse_predictions
from stages.gate.results import parse_metrics
from stages.gate.rules import TESTED
from tests.repositories import BINS, metrics, predictions

NAMES = ("0", "1", "2", "3")
METRICS = [*TESTED, "recall.2"]


def of_table(metric: str, table: str) -> Contributions:
    parsed = parse_predictions(table.encode(), "table")
    return of_predictions(metric, parsed)


def of_predictions(metric: str, parsed: Predictions) -> Contributions:
    found = contributions(metric, parsed, NAMES, len(NAMES), BINS)
    assert found
    return found


def simulated(generator: np.random.Generator, images: int, accuracy: float) -> Predictions:
    """Predictions of four classes, two of them rare, whose errors are anywhere."""
    actual = generator.choice(4, images, p=[0.5, 0.3, 0.1, 0.1])
    return answered(generator, actual, accuracy)


def answered(
    generator: np.random.Generator, actual: NDArray[np.int64], accuracy: float
) -> Predictions:
    images = len(actual)
    predicted = np.where(
        generator.random(images) < accuracy, actual, generator.integers(4, size=images)
    )
    confidence = generator.uniform(0.3, 1, images)
    names = [tuple(map(str, column.tolist())) for column in (np.arange(images), actual, predicted)]
    return Predictions(names[0], names[1], names[2], generator.exponential(size=images), confidence)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("wrong", [(), range(10), range(7, 90, 3)])
def test_the_sum_of_the_contributions_gives_the_published_metric(
    metric: str, wrong: Collection[int]
) -> None:
    table = predictions(wrong)
    published = parse_metrics(json.dumps(metrics(table)).encode(), "metrics")
    found = of_table(metric, table)
    assert found.of(found.rows.sum(0)) == pytest.approx(published[metric], abs=2e-6)


def test_the_calibration_error_of_a_table_without_confidence_is_unknown() -> None:
    parsed = parse_predictions(predictions((), confidence=False).encode(), "table")
    assert contributions("expected_calibration_error", parsed, NAMES, 4, BINS) is None


@pytest.mark.parametrize("metric", ["accuracy", "cross_entropy"])
def test_the_standard_error_of_a_mean_is_the_deviation_over_the_root_of_n(metric: str) -> None:
    parsed = simulated(np.random.default_rng(0), 300, 0.8)
    values = parsed.hits if metric == "accuracy" else parsed.loss
    expected = np.std(values, ddof=1) / np.sqrt(300)
    assert standard_error(of_predictions(metric, parsed)) == pytest.approx(expected)


@pytest.mark.parametrize("metric", METRICS)
def test_the_standard_error_is_how_much_a_metric_varies_between_test_sets(metric: str) -> None:
    generator = np.random.default_rng(0)
    sets = [of_predictions(metric, simulated(generator, 400, 0.8)) for _ in range(300)]
    spread = np.std([one.of(one.rows.sum(0)) for one in sets])
    assert np.mean([standard_error(one) for one in sets]) == pytest.approx(spread, rel=0.15)


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (6, 0), (4, 2), (2, 11), (13, 0)])
def test_swapping_the_answers_to_few_images_gives_the_exact_mcnemar_test(
    lost: int, gained: int
) -> None:
    base, now = (
        of_table("accuracy", predictions(wrong))
        for wrong in (range(100, 100 + gained), range(lost))
    )
    exact = accuracy_test(lost, gained, 200).p_value
    assert swap_test(base.rows, now.rows, now.of).p_value == pytest.approx(exact)


def test_swapping_the_answers_at_random_gives_about_the_exact_mcnemar_test() -> None:
    base, now = (of_table("accuracy", predictions(wrong)) for wrong in (range(26), range(26, 66)))
    exact = accuracy_test(40, 26, 200).p_value
    p_value = swap_test(base.rows, now.rows, now.of).p_value
    assert p_value == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 9999))
    assert swap_test(base.rows, now.rows, now.of).p_value == p_value  # the seed is fixed


@pytest.mark.parametrize("metric", ["macro_f1", "balanced_accuracy", "expected_calibration_error"])
def test_the_swap_test_is_scipys_permutation_test_of_pairs(metric: str) -> None:
    generator = np.random.default_rng(3)
    actual = generator.choice(4, 9)
    pair = [of_predictions(metric, answered(generator, actual, 0.4)) for _ in range(2)]
    rows = np.stack([one.rows.toarray() for one in pair])  # (2, 9, M)
    images = np.arange(9)

    def change(whose: NDArray[np.float64], others: NDArray[np.float64]) -> float:
        sums = [rows[of.astype(int), images].sum(0) for of in (whose, others)]
        return abs(float(pair[0].of(sums[1]) - pair[0].of(sums[0])))

    reference = stats.permutation_test(
        (np.zeros(9), np.ones(9)), change, permutation_type="samples", alternative="greater"
    )
    found = swap_test(pair[0].rows, pair[1].rows, pair[0].of)
    assert 0 < found.p_value < 1
    assert found.p_value == pytest.approx(reference.pvalue)


@pytest.mark.parametrize("metric", ["macro_f1", "expected_calibration_error"])
def test_equally_good_models_differ_really_in_at_most_alpha_of_all_pairs(metric: str) -> None:
    generator = np.random.default_rng(0)
    p_values = []
    for _ in range(400):
        actual = generator.choice(4, 12, p=[0.5, 0.3, 0.1, 0.1])
        base, now = (of_predictions(metric, answered(generator, actual, 0.7)) for _ in range(2))
        p_values.append(swap_test(base.rows, now.rows, now.of).p_value)
    share = np.mean(np.array(p_values) <= 0.1)
    assert 0.02 < share < 0.1 + 3 * np.sqrt(0.1 * 0.9 / 400)


def test_a_real_difference_in_macro_f1_is_found() -> None:
    generator = np.random.default_rng(0)
    actual = generator.choice(4, 500)
    good, bad = (of_predictions("macro_f1", answered(generator, actual, a)) for a in (0.95, 0.85))
    assert swap_test(good.rows, bad.rows, bad.of).p_value < 0.001
    assert swap_test(bad.rows, good.rows, bad.of).p_value < 0.001
