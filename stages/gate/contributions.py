"""Metrics as functions of sums over the images, from which their noise can be computed.

Leaving an image out subtracts its row from the sum, which gives a metric's standard error. Swapping
two models' answers to an image exchanges two rows, which gives a paired test.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.gate.paired_tests import BATCH, Floats
from stages.gate.predictions import Predictions


@dataclass(frozen=True)
class Contributions:
    """metric = of(the sum of the rows).

    rows: one per image, a sparse array of SciPy's, (N, M).  of: sums (..., M) -> metric (...).
    """

    rows: Any
    of: Callable[[Floats], Any]


def contributions(
    metric: str, predictions: Predictions, names: Sequence[str], classes: float, bins: int
) -> Contributions | None:
    """The rows and the function of a metric, None if it does not follow from the predictions.

    names: the classes that appear, in the same order for both models.  classes: the number that
    the model knows.  bins: of confidence, for the calibration error.
    """
    hits = predictions.hits.astype(np.float64)
    ones = np.ones(len(hits))
    if metric == "cross_entropy":
        return Contributions(_rows([(0, ones), (1, predictions.loss)], 2), _mean)
    if metric == "expected_calibration_error":
        if predictions.confidence is None:
            return None
        bin_of = predictions.bin_of(bins)
        gaps = predictions.confidence - hits
        return Contributions(_rows([(0, ones), (bin_of, gaps)], bins + 1), _calibration_error)
    code = {name: number for number, name in enumerate(names)}
    actual, predicted = (
        np.array([code[name] for name in column])
        for column in (predictions.actual, predictions.predicted)
    )
    k = len(names)
    rows = _rows([(actual, ones), (k + predicted, ones), (2 * k + actual, hits)], 3 * k)

    def of(sums: Floats) -> Any:
        of_class, answered, right = (sums[..., i * k : (i + 1) * k] for i in range(3))  # (..., K)
        recall = right / np.maximum(of_class, 1)
        if metric == "accuracy":
            return right.sum(-1) / np.maximum(of_class.sum(-1), 1)
        if metric == "balanced_accuracy":
            return recall.sum(-1) / (of_class > 0).sum(-1)
        if metric == "macro_f1":
            return (2 * right / np.maximum(of_class + answered, 1)).sum(-1) / classes
        return recall[..., code[metric.removeprefix("recall.")]]

    return Contributions(rows, of)


def standard_error(metric: Contributions) -> float:
    """The standard error of a metric on its images, by the jackknife (Tukey 1958).

    For a mean, that is the standard deviation of the values over sqrt(N).
    """
    images, width = metric.rows.shape
    total = metric.rows.sum(0)
    step = max(1, BATCH // width)
    without_one = np.concatenate(
        [
            metric.of(total - metric.rows[start : start + step].toarray())
            for start in range(0, images, step)
        ]
    )
    return float(np.sqrt((images - 1) * without_one.var()))


def _rows(parts: Sequence[tuple[NDArray[np.int64] | int, Floats]], width: int) -> Any:
    """Rows with one number from each part, which is its column, (N,) or one for all, and values."""
    from scipy import sparse

    values = np.stack([values for _, values in parts], axis=1)  # (N, parts)
    columns = np.stack([np.broadcast_to(column, len(values)) for column, _ in parts], axis=1)
    starts = np.arange(0, values.size + 1, len(parts))
    return sparse.csr_array((values.ravel(), columns.ravel(), starts), (len(values), width))


def _mean(sums: Floats) -> Any:
    return sums[..., 1] / np.maximum(sums[..., 0], 1)


def _calibration_error(sums: Floats) -> Any:
    return np.abs(sums[..., 1:]).sum(-1) / np.maximum(sums[..., 0], 1)
