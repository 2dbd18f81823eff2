"""Made-up predictions."""

import numpy as np

from stages.report.metrics import Predictions


def predictions_of(actual: list[int], predicted: list[int], confidence: list[float]) -> Predictions:
    nothing = np.zeros(len(actual))
    return Predictions(np.array(actual), np.array(predicted), nothing, np.array(confidence))
