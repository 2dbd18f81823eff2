"""The table of predictions that `evaluate` writes, without rows that no model can give."""

import csv
import io
import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stages.gate.paired_tests import Floats

REMEDY = "`dvc repro --force` regenerates it"
COLUMNS = ["picture", "actual", "predicted", "loss", "confidence"]
# Six decimals are off by up to half a unit of the last; what is compared here has two such numbers.
ROUNDING = 1e-6 * (1 + 1e-3)


@dataclass(frozen=True)
class Predictions:
    """One entry per image, each (N,).

    actual, predicted: names of classes.  loss: cross entropy in nats.  confidence: probability of
    the predicted class.
    """

    pictures: tuple[str, ...]
    actual: tuple[str, ...]
    predicted: tuple[str, ...]
    loss: Floats
    confidence: Floats

    @cached_property
    def hits(self) -> NDArray[np.bool_]:
        """Whether each image was classified correctly, (N,)."""
        return np.array([a == p for a, p in zip(self.actual, self.predicted, strict=True)])

    @property
    def classes(self) -> set[str]:
        """The classes that appear. The model may know more."""
        return {*self.actual, *self.predicted}

    def check_possible(self, classes: float, where: str) -> None:
        """Raise ValueError for a row that no model with so many classes can give.

        The probability of the predicted class is the largest of K that add up to 1.
        """
        confidence, hits, wrong = self.confidence, self.hits, ~self.hits
        probability = np.exp(-self.loss)  # of the actual class
        least = np.maximum(probability, (1 - probability) / max(classes - 1, 1))
        unsure = hits & (probability < 1 / classes - ROUNDING)
        too_sure = wrong & (probability > 1 / 2 + ROUNDING)
        unequal = hits & (np.abs(probability - confidence) > ROUNDING)
        outside = (confidence < least - ROUNDING) | (confidence > 1 - probability + ROUNDING)
        for rows, expected in (
            (
                unsure,
                f"a loss of at most ln {classes:g} where the predicted class is the actual one",
            ),
            (too_sure, "a loss of at least ln 2 where the predicted class is not the actual one"),
            (unequal, "exp(-loss) as the confidence where the predicted class is the actual one"),
            (wrong & outside, "a confidence that is the largest of probabilities that add up to 1"),
        ):
            if rows.any():
                row = int(rows.argmax())
                names = [self.pictures[row], self.actual[row], self.predicted[row]]
                numbers = f"{self.loss[row]:.6f},{confidence[row]:.6f}"
                raise ValueError(
                    f"{where}: line {row + 2}: found {','.join([*names, numbers])[:80]!r}; expected"
                    f" {expected}; {REMEDY}"
                )


def parse_predictions(content: bytes, where: str) -> Predictions:
    """Read the table. Raises ValueError for the first malformed line."""
    try:
        table = csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
        header, *rows = list(table) or [[]]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{where}: not valid CSV: {error}; {REMEDY}") from None
    if header != COLUMNS:
        found = ",".join(header)[:80]
        raise ValueError(f"{where}: found the columns {found!r}; expected {','.join(COLUMNS)}")
    if not rows:
        raise ValueError(f"{where}: found no predictions; {REMEDY}")
    for number, row in enumerate(rows, start=2):
        if not _is_valid(row):
            raise ValueError(
                f"{where}: line {number}: found {','.join(row)[:80]!r}; expected"
                f" {','.join(COLUMNS)}, with a finite loss of 0 or more and a confidence of at"
                f" most 1; {REMEDY}"
            )
    pictures, actual, predicted, loss, confidence = zip(*rows, strict=True)
    if len(set(pictures)) < len(pictures):
        twice = Counter(pictures).most_common(1)[0][0]
        raise ValueError(f"{where}: found {twice[:80]!r} twice; expected each once; {REMEDY}")
    return Predictions(
        pictures, actual, predicted, np.array(loss, np.float64), np.array(confidence, np.float64)
    )


def _is_valid(row: list[str]) -> bool:
    try:
        loss, confidence = map(float, row[3:])
    except ValueError:  # not two, or not numbers
        return False
    return 0 <= loss < math.inf and 0 <= confidence <= 1
