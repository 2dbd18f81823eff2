"""Metrics as functions of sums over the images, from which they and their noise are computed.

Leaving an image out subtracts its row from the sums, which gives a metric's standard error.
Swapping two models' answers to an image exchanges two rows, which gives a paired test.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.gate.paired_tests import BATCH, Floats
from stages.gate.predictions import ROUNDING, Predictions


@dataclass(frozen=True)
class Contributions:
    """What each image adds to M sums, and the metrics that follow from the sums.

    rows: one per image, a sparse array of SciPy's, (N, M).  of: sums (..., M) -> the metrics by
    name, each (...).  rounding: by how much the published metrics may be off, since they and the
    predictions have six decimals.
    """

    rows: Any
    of: Callable[[Floats], dict[str, Any]]
    rounding: float

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of all images."""
        return {name: float(value) for name, value in self.of(self.rows.sum(0)).items()}

    def standard_error(self, metric: str) -> float:
        """The standard error of a metric on these images, by the jackknife (Tukey 1958).

        For a mean, that is the standard deviation of the values over sqrt(N).
        """
        images, width = self.rows.shape
        total = self.rows.sum(0)
        step = max(1, BATCH // width)
        without_one = [
            self.of(total - self.rows[start : start + step].toarray())[metric]
            for start in range(0, images, step)
        ]
        return float(np.sqrt((images - 1) * np.concatenate(without_one).var()))


def of_losses(predictions: Predictions) -> Contributions:
    """What gives the cross entropy: the number of images and the sum of their losses."""

    def of(sums: Floats) -> dict[str, Any]:
        images, loss = np.moveaxis(sums, -1, 0)
        return {"cross_entropy": loss / np.maximum(images, 1)}

    rows = _rows([(0, np.ones(len(predictions.loss))), (1, predictions.loss)], 2)
    return Contributions(rows, of, ROUNDING)


def of_confidences(predictions: Predictions, bins: int) -> Contributions:
    """What gives the calibration error: the images, and confidence - accuracy summed by bin.

    Each of the bins, which are equally wide, includes its upper edge. A confidence next to an edge
    may have been in the neighbouring bin before it was rounded, which takes its gap from one bin's
    sum and adds it to another's.
    """
    scaled = predictions.confidence * bins
    gaps = predictions.confidence - predictions.hits
    bin_of = np.clip(np.ceil(scaled), 1, bins).astype(np.int64)  # (N,)
    edge = np.rint(scaled)
    may_move = (np.abs(scaled - edge) <= bins * ROUNDING) & (edge > 0) & (edge < bins)
    rounding = ROUNDING + 2 * float(np.abs(gaps[may_move]).sum()) / len(gaps)

    def of(sums: Floats) -> dict[str, Any]:
        error = np.abs(sums[..., 1:]).sum(-1) / np.maximum(sums[..., 0], 1)
        return {"expected_calibration_error": error}

    rows = _rows([(0, np.ones(len(gaps))), (bin_of, gaps)], bins + 1)
    return Contributions(rows, of, rounding)


def of_classes(predictions: Predictions, names: Sequence[str], classes: float) -> Contributions:
    """What gives all other metrics: the images by actual class, by predicted class, and by both.

    names: the classes that appear, in one order for all models to compare.  classes: the number
    that the model knows; F1 is 0 for those that do not appear.
    """
    code = {name: number for number, name in enumerate(names)}
    actual, predicted = (
        np.array([code[name] for name in column])
        for column in (predictions.actual, predictions.predicted)
    )
    k, ones, hits = len(names), np.ones(len(actual)), predictions.hits.astype(np.float64)

    def of(sums: Floats) -> dict[str, Any]:
        of_class, answered, right = np.split(sums, 3, axis=-1)  # (..., K)
        images, correct = np.maximum(of_class.sum(-1), 1), right.sum(-1)
        recall = right / np.maximum(of_class, 1)
        return {
            "accuracy": correct / images,
            "balanced_accuracy": recall.sum(-1) / np.maximum((of_class > 0).sum(-1), 1),
            "baseline_accuracy": of_class.max(-1) / images,
            "errors": images - correct,
            "images": images,
            "macro_f1": (2 * right / np.maximum(of_class + answered, 1)).sum(-1) / classes,
            **{f"recall.{name}": recall[..., number] for name, number in code.items()},
        }

    rows = _rows([(actual, ones), (k + predicted, ones), (2 * k + actual, hits)], 3 * k)
    return Contributions(rows, of, ROUNDING / 2)


def _rows(parts: Sequence[tuple[NDArray[np.int64] | int, Floats]], width: int) -> Any:
    """Rows with one number from each part, which is its column, (N,) or one for all, and values."""
    from scipy import sparse

    values = np.stack([values for _, values in parts], axis=1)  # (N, parts)
    columns = np.stack([np.broadcast_to(column, len(values)) for column, _ in parts], axis=1)
    starts = np.arange(0, values.size + 1, len(parts))
    return sparse.csr_array((values.ravel(), columns.ravel(), starts), (len(values), width))
