from collections.abc import Callable

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    recall_score,
)

from stages.formats.model_file import Model
from stages.formats.split_file import Split
from stages.report.metrics import metrics, predict, reliability
from tests.report.made_up import predictions_of
from tests.splits import pixel_split

Make = Callable[..., Split]


@pytest.mark.parametrize("batch_size", [1, 16, 1000])
def test_metrics_equal_those_of_scikit_learn(make_images: Make, batch_size: int) -> None:
    made = make_images(n=500, k=5)
    kept = np.flatnonzero((made.labels == 3) | (np.arange(500) % 7 <= made.labels))[:200]
    split = pixel_split(made.images[kept], made.labels[kept], made.classes)
    assert len(set(np.bincount(split.labels).tolist())) > 3
    weight = np.random.default_rng(0).normal(size=(5, 20))
    model = Model(weight, np.arange(5.0), split.classes, split.spec)
    logits = split.features / 255 @ weight.T + model.bias
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    actual, answers = split.labels, p.argmax(1)

    predictions = predict(model, split, batch_size)
    assert np.array_equal(predictions.actual, actual)
    assert np.array_equal(predictions.predicted, answers)
    assert predictions.confidence == pytest.approx(p.max(1), abs=1e-12)
    assert predictions.loss == pytest.approx(-np.log(p[np.arange(200), actual]), abs=1e-12)
    measured = metrics(predictions, split.classes, reliability(predictions, 10))
    f1 = f1_score(actual, answers, average="macro", labels=range(5), zero_division=0)
    baseline = DummyClassifier(strategy="most_frequent").fit(actual, actual)
    recall = recall_score(actual, answers, average=None).tolist()
    assert measured["accuracy"] == pytest.approx(accuracy_score(actual, answers), abs=1e-6)
    assert measured["balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(actual, answers), abs=1e-6
    )
    assert measured["baseline_accuracy"] == baseline.score(actual, actual)
    assert measured["macro_f1"] == pytest.approx(f1, abs=1e-6)
    assert measured["cross_entropy"] == pytest.approx(log_loss(actual, p), abs=1e-6)
    assert list(measured["recall"]) == list(split.classes)
    assert list(measured["recall"].values()) == pytest.approx(recall, abs=1e-6)
    assert measured["images"] == 200
    assert measured["errors"] == int((actual != answers).sum())


def test_calibration_error_is_the_mean_gap_over_the_images() -> None:
    # two bins of 0.5: (0.3, wrong), (0.5, right) and (0.6, right), (0.9, right), (1.0, wrong)
    predictions = predictions_of([0, 0, 0, 0, 0], [1, 0, 0, 0, 1], [0.3, 0.5, 0.6, 0.9, 1.0])
    rows = reliability(predictions, bins=2)
    assert [row.images for row in rows] == [2, 3]
    assert [row.confidence for row in rows] == pytest.approx([0.4, 2.5 / 3])
    assert [row.accuracy for row in rows] == pytest.approx([0.5, 2 / 3])
    measured = metrics(predictions, ("a", "b"), rows)
    assert measured["expected_calibration_error"] == pytest.approx(
        (2 * 0.1 + 3 * (2.5 - 2) / 3) / 5, abs=1e-6
    )


def test_balanced_accuracy_gives_rare_classes_the_same_weight_as_frequent_ones() -> None:
    predictions = predictions_of([0] * 95 + [1] * 5, [0] * 100, [0.9] * 100)
    measured = metrics(predictions, ("a", "b"), reliability(predictions, 5))
    assert measured["accuracy"] == measured["baseline_accuracy"] == 0.95
    assert measured["balanced_accuracy"] == 0.5


def test_a_class_without_test_images_has_no_recall_and_f1_zero() -> None:
    predictions = predictions_of([0, 0, 1], [0, 0, 1], [0.9, 0.9, 0.9])
    measured = metrics(predictions, ("a", "b", "c"), reliability(predictions, 5))
    assert measured["recall"] == {"a": 1.0, "b": 1.0}
    assert measured["balanced_accuracy"] == 1
    assert measured["macro_f1"] == pytest.approx(2 / 3, abs=1e-6)
