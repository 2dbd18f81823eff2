"""Predictions on the test images -> the metrics that are published."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.formats.model_file import Model
from stages.formats.split_file import Split


@dataclass(frozen=True)
class Predictions:
    """What a model predicts for N labelled images; each array is (N,), int64 or float64.

    actual and predicted: classes in [0, K).  loss: cross entropy in nats.
    confidence: probability of the predicted class.
    """

    actual: NDArray[np.int64]
    predicted: NDArray[np.int64]
    loss: NDArray[np.float64]
    confidence: NDArray[np.float64]


def predict(model: Model, split: Split, batch_size: int) -> Predictions:
    """The model's predictions for a split, in the split's order."""
    losses, confidences, predicted = [], [], []
    for features, labels in split.batches(batch_size):
        log_p = model.log_probabilities(features)  # (n, K)
        losses.append(-np.take_along_axis(log_p, labels[:, None], 1)[:, 0])
        confidences.append(np.exp(log_p.max(1)))
        predicted.append(log_p.argmax(1))
    return Predictions(
        split.labels,
        np.concatenate(predicted),
        np.concatenate(losses),
        np.concatenate(confidences),
    )


@dataclass(frozen=True)
class Bin:
    """The images whose confidence lies in one bin: mean confidence, accuracy, how many."""

    confidence: float
    accuracy: float
    images: int


def reliability(predictions: Predictions, bins: int) -> list[Bin]:
    """The non-empty bins out of `bins` of equal width; each includes its upper bound."""
    bin_of = np.clip(np.ceil(predictions.confidence * bins).astype(np.int64), 1, bins) - 1  # (N,)
    hits = predictions.actual == predictions.predicted
    images = np.bincount(bin_of, minlength=bins)
    confidence = np.bincount(bin_of, predictions.confidence, bins)
    correct = np.bincount(bin_of, hits, bins)
    return [
        Bin(float(confidence[i] / images[i]), float(correct[i] / images[i]), int(images[i]))
        for i in np.flatnonzero(images).tolist()
    ]


def confusion_counts(
    actual: NDArray[np.int64], predicted: NDArray[np.int64], k: int
) -> NDArray[np.int64]:
    """The confusion matrix of K classes, (K, K): images by actual and predicted class."""
    pairs = actual * k + predicted
    return np.bincount(pairs, minlength=k * k).reshape(k, k)


def metrics(
    predictions: Predictions, classes: Sequence[str], calibration: Sequence[Bin]
) -> dict[str, Any]:
    """The metrics by name.

    accuracy, errors and images; classes, the number that the model knows; baseline_accuracy, that
    of always answering the images' most frequent class; balanced_accuracy, the mean of recall
    (Brodersen et al. 2010), which is 1 / (number of classes) for that answer; cross_entropy in
    nats; macro_f1, the mean over the classes of 2 TP / (2 TP + FP + FN), 0 where that is 0 / 0;
    expected_calibration_error, the mean over the images of |confidence - accuracy| of their bin
    (Naeini et al. 2015); recall, by class, for the classes that have images.
    """
    number = len(predictions.actual)
    counts = confusion_counts(predictions.actual, predictions.predicted, len(classes))
    hits, actual, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    f1 = 2 * hits / np.maximum(actual + predicted, 1)
    gaps = sum(b.images * abs(b.confidence - b.accuracy) for b in calibration)
    recall = {
        name: hit / of
        for name, hit, of in zip(classes, hits.tolist(), actual.tolist(), strict=True)
        if of
    }
    return {
        "accuracy": round(int(hits.sum()) / number, 6),
        # fsum: anyone recomputing it from the predictions may add the classes in any order
        "balanced_accuracy": round(fsum(recall.values()) / len(recall), 6),
        "baseline_accuracy": round(int(actual.max()) / number, 6),
        "classes": len(classes),
        "cross_entropy": round(float(predictions.loss.sum()) / number, 6),
        "errors": number - int(hits.sum()),
        "expected_calibration_error": round(gaps / number, 6),
        "images": number,
        "macro_f1": round(float(f1.mean()), 6),
        "recall": {name: round(value, 6) for name, value in recall.items()},
    }
