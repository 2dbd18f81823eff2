"""The table of predictions -> the metrics that follow from it, and the rows that no model can give.

The column `confidence` is newer than the others, so a base may lack it. All metrics but the
calibration error can be recomputed without it.
"""

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stages.gate.paired_tests import Floats

REMEDY = "`dvc repro --force` regenerates it"
COLUMNS = ["picture", "actual", "predicted", "loss"]
CONFIDENCE = "confidence"
# Six decimals are off by up to half a unit of the last; what is compared here has two such numbers.
ROUNDING = 1e-6 * (1 + 1e-3)


@dataclass(frozen=True)
class Predictions:
    """One entry per image, each (N,).

    actual, predicted: names of classes.  loss: cross entropy in nats.  confidence: probability of
    the predicted class, None if the table has no such column.
    """

    pictures: tuple[str, ...]
    actual: tuple[str, ...]
    predicted: tuple[str, ...]
    loss: Floats
    confidence: Floats | None = None

    @cached_property
    def hits(self) -> NDArray[np.bool_]:
        """Whether each image was classified correctly, (N,)."""
        return np.array([a == p for a, p in zip(self.actual, self.predicted, strict=True)])

    @cached_property
    def _by_class(self) -> tuple[Counter[str], Counter[str], Counter[str]]:
        """Images by actual class, by predicted class, and by class those of them that are right."""
        right = Counter(a for a, p in zip(self.actual, self.predicted, strict=True) if a == p)
        return Counter(self.actual), Counter(self.predicted), right

    @property
    def classes(self) -> set[str]:
        """The classes that appear. The model may know more."""
        return {*self.actual, *self.predicted}

    @property
    def sum_of_f1(self) -> float:
        """F1 = 2 TP / (2 TP + FP + FN), summed over the classes that appear; others add 0."""
        actual, predicted, right = self._by_class
        return math.fsum(2 * right[c] / (actual[c] + predicted[c]) for c in self.classes)

    @property
    def exact_metrics(self) -> dict[str, float]:
        """The metrics that are ratios of counts, to the six decimals of their publication."""
        actual, _, right = self._by_class
        images, hits = len(self.actual), right.total()
        recall = {name: right[name] / number for name, number in actual.items()}
        metrics = {
            "accuracy": hits / images,
            "balanced_accuracy": math.fsum(recall.values()) / len(recall),
            "baseline_accuracy": max(actual.values()) / images,
            "errors": images - hits,
            "images": images,
            **{f"recall.{name}": share for name, share in recall.items()},
        }
        return {name: round(value, 6) for name, value in metrics.items()}

    def bin_of(self, bins: int) -> NDArray[np.int64]:
        """The bin of confidence of each image, (N,), from 1; each includes its upper edge."""
        if self.confidence is None:
            raise TypeError("predictions without confidence have no bins")
        return np.clip(np.ceil(self.confidence * bins), 1, bins).astype(np.int64)

    def calibration_error(self, confidence: Floats, bins: int) -> tuple[float, float]:
        """The expected calibration error, and by how much the rounding of confidences may move it.

        A confidence next to the edge of a bin may have been in the neighbouring one before it was
        rounded. That takes its gap from one bin's sum and adds it to another's.
        """
        scaled = confidence * bins
        gaps = confidence - self.hits
        sums = np.bincount(np.unique(self.bin_of(bins), return_inverse=True)[1], gaps)
        edge = np.rint(scaled)
        moves = (np.abs(scaled - edge) <= bins * ROUNDING) & (edge > 0) & (edge < bins)
        images = len(gaps)
        uncertainty = ROUNDING + 2 * float(np.abs(gaps[moves]).sum()) / images
        return float(np.abs(sums).sum()) / images, uncertainty

    def check_possible(self, classes: float, where: str) -> None:
        """Raise ValueError for the first row that no model with so many classes can give."""
        for wrong, expected in self._impossible(classes):
            if wrong.any():
                row = int(wrong.argmax())
                found = [self.pictures[row], self.actual[row], self.predicted[row]]
                found += [f"{self.loss[row]:.6f}"]
                if self.confidence is not None:
                    found += [f"{self.confidence[row]:.6f}"]
                raise ValueError(
                    f"{where}: line {row + 2}: found {','.join(found)[:80]!r}; expected {expected};"
                    f" {REMEDY}"
                )

    def _impossible(self, classes: float) -> Iterator[tuple[NDArray[np.bool_], str]]:
        """Rows that contradict themselves, (N,), and what was expected of them.

        The probability of the predicted class is the largest of K that add up to 1.
        """
        probability = np.exp(-self.loss)  # of the actual class
        hits, wrong = self.hits, ~self.hits
        yield (
            hits & (probability < 1 / classes - ROUNDING),
            f"a loss of at most ln {classes:g} where the predicted class is the actual one",
        )
        yield (
            wrong & (probability > 1 / 2 + ROUNDING),
            "a loss of at least ln 2 where the predicted class is not the actual one",
        )
        if self.confidence is None:
            return
        yield (
            hits & (np.abs(probability - self.confidence) > ROUNDING),
            "exp(-loss) as the confidence where the predicted class is the actual one",
        )
        least = np.maximum(probability, (1 - probability) / (classes - 1))
        too_high = probability + self.confidence > 1 + ROUNDING
        yield (
            wrong & (too_high | (self.confidence < least - ROUNDING)),
            "a confidence that is the largest of probabilities that add up to 1",
        )


def parse_predictions(content: bytes, where: str) -> Predictions:
    """Read the table that `evaluate` writes. Raises ValueError for the first malformed line."""
    try:
        header, *rows = list(
            csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
        ) or [[]]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{where}: not valid CSV: {error}; {REMEDY}") from None
    if header not in (COLUMNS, [*COLUMNS, CONFIDENCE]):
        found = ",".join(header)[:80]
        raise ValueError(f"{where}: found the columns {found!r}; expected {','.join(COLUMNS)}")
    if not rows:
        raise ValueError(f"{where}: found no predictions; {REMEDY}")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header) or not _are_plausible(row[3:]):
            raise ValueError(
                f"{where}: line {number}: found {','.join(row)[:80]!r}; expected"
                f" {','.join(header)}, with a finite loss of 0 or more"
                f"{' and a confidence of at most 1' if CONFIDENCE in header else ''}; {REMEDY}"
            )
    pictures, actual, predicted, *numbers = zip(*rows, strict=True)
    if len(set(pictures)) < len(pictures):
        twice = Counter(pictures).most_common(1)[0][0]
        raise ValueError(f"{where}: found {twice[:80]!r} twice; expected each once; {REMEDY}")
    return Predictions(pictures, actual, predicted, *(np.array(n, np.float64) for n in numbers))


def _are_plausible(numbers: list[str]) -> bool:
    """Whether these are a loss and, if there are two, a confidence."""
    try:
        loss, confidence, *_ = [*map(float, numbers), 1.0]
    except ValueError:
        return False
    return 0 <= loss < math.inf and 0 <= confidence <= 1
