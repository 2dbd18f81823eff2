import json
from collections.abc import Collection

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from stages.gate.contributions import Contributions
from stages.gate.paired_tests import mcnemar_test, randomization_test
from stages.gate.predictions import Predictions, parse_predictions
from stages.gate.results import Results, parse_metrics
from stages.gate.rules import TESTED
from tests.repositories import BINS, metrics, predictions

NAMES = ("0", "1", "2", "3")
METRICS = [*TESTED, "recall.2"]


def of_predictions(metric: str, parsed: Predictions) -> Contributions:
    results = Results("metrics", {"classes": len(NAMES)}, parsed, BINS)
    return results.contributions(metric, NAMES)


def of_table(metric: str, table: str) -> Contributions:
    return of_predictions(metric, parse_predictions(table.encode(), "table"))


def p_value(metric: str, base: Contributions, now: Contributions) -> float:
    return randomization_test(base.rows, now.rows, lambda sums: now.of(sums)[metric]).p_value


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
    assert of_table(metric, table).metrics[metric] == pytest.approx(published[metric], abs=2e-6)


@pytest.mark.parametrize("metric", ["accuracy", "cross_entropy"])
def test_the_standard_error_of_a_mean_is_the_deviation_over_the_root_of_n(metric: str) -> None:
    parsed = simulated(np.random.default_rng(0), 300, 0.8)
    values = parsed.hits if metric == "accuracy" else parsed.loss
    expected = np.std(values, ddof=1) / np.sqrt(300)
    assert of_predictions(metric, parsed).standard_error(metric) == pytest.approx(expected)


@pytest.fixture(scope="module")
def test_sets() -> list[Predictions]:
    generator = np.random.default_rng(0)
    return [simulated(generator, 400, 0.8) for _ in range(300)]


@pytest.mark.parametrize("metric", METRICS)
def test_the_standard_error_is_how_much_a_metric_varies_between_test_sets(
    metric: str, test_sets: list[Predictions]
) -> None:
    sets = [of_predictions(metric, one) for one in test_sets]
    spread = np.std([one.metrics[metric] for one in sets])
    errors = [one.standard_error(metric) for one in sets[:100]]
    assert np.mean(errors) == pytest.approx(spread, rel=0.15)


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (6, 0), (4, 2), (2, 11), (13, 0)])
def test_swapping_the_answers_to_few_images_gives_the_exact_mcnemar_test(
    lost: int, gained: int
) -> None:
    base, now = (
        of_table("accuracy", predictions(wrong))
        for wrong in (range(100, 100 + gained), range(lost))
    )
    exact = mcnemar_test(lost, gained, 200).p_value
    assert p_value("accuracy", base, now) == pytest.approx(exact)


def test_swapping_the_answers_at_random_gives_about_the_exact_mcnemar_test() -> None:
    base, now = (of_table("accuracy", predictions(wrong)) for wrong in (range(26), range(26, 66)))
    exact = mcnemar_test(40, 26, 200).p_value
    found = p_value("accuracy", base, now)
    assert found == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 9999))
    assert p_value("accuracy", base, now) == found  # the seed is fixed


@pytest.mark.parametrize("metric", ["macro_f1", "balanced_accuracy", "expected_calibration_error"])
def test_the_swap_test_is_scipys_permutation_test_of_pairs(metric: str) -> None:
    generator = np.random.default_rng(3)
    actual = generator.choice(4, 9)
    pair = [of_predictions(metric, answered(generator, actual, 0.4)) for _ in range(2)]
    rows = np.stack([one.rows.toarray() for one in pair])  # (2, 9, M)
    images = np.arange(9)

    def change(whose: NDArray[np.float64], others: NDArray[np.float64]) -> float:
        sums = [rows[of.astype(int), images].sum(0) for of in (whose, others)]
        base, now = (pair[0].of(of_model)[metric] for of_model in sums)
        return abs(float(now - base))

    reference = stats.permutation_test(
        (np.zeros(9), np.ones(9)), change, permutation_type="samples", alternative="greater"
    )
    found = p_value(metric, *pair)
    assert 0 < found < 1
    assert found == pytest.approx(reference.pvalue)


@pytest.mark.parametrize("metric", ["macro_f1", "expected_calibration_error"])
def test_equally_good_models_differ_really_in_at_most_alpha_of_all_pairs(metric: str) -> None:
    generator = np.random.default_rng(0)
    p_values = []
    for _ in range(400):
        actual = generator.choice(4, 12, p=[0.5, 0.3, 0.1, 0.1])
        base, now = (of_predictions(metric, answered(generator, actual, 0.7)) for _ in range(2))
        p_values.append(p_value(metric, base, now))
    share = np.mean(np.array(p_values) <= 0.1)
    assert 0.02 < share < 0.1 + 3 * np.sqrt(0.1 * 0.9 / 400)


def test_a_real_difference_in_macro_f1_is_found() -> None:
    generator = np.random.default_rng(0)
    actual = generator.choice(4, 500)
    good, bad = (of_predictions("macro_f1", answered(generator, actual, a)) for a in (0.95, 0.85))
    assert p_value("macro_f1", good, bad) < 0.001
    assert p_value("macro_f1", bad, good) < 0.001
