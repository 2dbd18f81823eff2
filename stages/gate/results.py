"""The metrics and the predictions of one revision, checked: what the gate compares."""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np

from stages.gate.lockfile import Lockfile
from stages.gate.paired_tests import Floats
from stages.gate.revisions import Revision

REMEDY = "`dvc repro` makes it anew"
COLUMNS = ["picture", "actual", "predicted", "loss"]
# A mean of losses with six decimals is off by up to half a unit of the last, the metric as well.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Predictions:
    """One row an image: which picture it is and classes' names, each (N,), and the cross entropy in
    nats, (N,) float64."""

    pictures: tuple[str, ...]
    actual: tuple[str, ...]
    predicted: tuple[str, ...]
    loss: Floats

    @cached_property
    def hits(self) -> "np.ndarray[Any, np.dtype[np.bool_]]":
        """Whether each image is predicted right, (N,)."""
        pairs = zip(self.actual, self.predicted, strict=True)
        return np.array([actual == predicted for actual, predicted in pairs])


@dataclass(frozen=True)
class Results:
    """What a revision's model was measured to be.

    metrics: by name, those within another as `recall.8`, of whatever type JSON gave them.
    where: the metrics file, for messages.
    """

    where: str
    metrics: Mapping[str, Any]
    predictions: Predictions

    @classmethod
    def load(cls, revision: Revision, gated: Iterable[str]) -> Self | None:
        """The results of `revision`, or None if it records none: nothing was measured yet.

        Raises ValueError if a file is missing or corrupt, if a metric in `gated` is no finite
        number, if metrics and predictions disagree, or if they are not what dvc.lock, the code and
        the params of the same revision say.
        """
        lockfile = Lockfile.load(revision)
        paths = lockfile.results()
        if paths is None:
            return None
        where = [revision.where(path) for path in paths]
        contents = [revision.read(path) for path in paths]
        for name, content in zip(where, contents, strict=True):
            if content is None:
                raise ValueError(f"{name}: no such file, though dvc.lock records it; {REMEDY}")
        metrics, predictions = (content or b"" for content in contents)
        results = cls(
            where[0], parse_metrics(metrics, where[0]), parse_predictions(predictions, where[1])
        )
        for name in gated:
            results.metric(name)
        results.check_agreement(where[1])
        lockfile.check()
        return results

    def metric(self, name: str) -> float:
        """The metric `name`. Raises ValueError unless it is a finite number."""
        if name not in self.metrics:
            raise ValueError(f"{self.where}: no metric {name}, which the gate has a rule for")
        value = self.metrics[name]
        try:
            if isinstance(value, int | float) and not isinstance(value, bool):
                number = float(value)
                if math.isfinite(number):
                    return number
        except OverflowError:  # an integer beyond every float
            pass
        raise ValueError(f"{self.where}: {name}: found {_json(value)}; expected a finite number")

    def check_agreement(self, where: str) -> None:
        """Raise ValueError unless the predictions, the file `where`, give the same metrics."""
        images = len(self.predictions.actual)
        errors = images - int(self.predictions.hits.sum())
        of = Counter(self.predictions.actual)
        pairs = zip(self.predictions.actual, self.predictions.predicted, strict=True)
        right = Counter(actual for actual, predicted in pairs if actual == predicted)
        recall = math.fsum(right[name] / of[name] for name in of) / len(of)
        exact = {
            "images": images,
            "errors": errors,
            "accuracy": round((images - errors) / images, 6),
            "balanced_accuracy": round(recall, 6),
            "baseline_accuracy": round(max(of.values()) / images, 6),
        }
        for name, counted in exact.items():
            if name in self.metrics and self.metric(name) != counted:
                raise ValueError(self._disagreement(name, counted, where))
        if "cross_entropy" in self.metrics:
            mean = float(self.predictions.loss.sum()) / images
            if abs(self.metric("cross_entropy") - mean) > ROUNDING * 1.001:
                raise ValueError(self._disagreement("cross_entropy", round(mean, 6), where))

    def _disagreement(self, name: str, counted: float, where: str) -> str:
        return (
            f"{self.where}: {name} is {self.metrics[name]}, but {where} gives {counted};"
            " `dvc repro` makes both from the same model"
        )


def parse_metrics(content: bytes, where: str) -> dict[str, Any]:
    """A JSON object -> its values by dotted name. Raises ValueError if it is not an object."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not valid JSON: {error}; {REMEDY}") from None
    if not isinstance(document, dict):
        raise ValueError(f"{where}: found {_json(document)}; expected an object of metrics")
    return _flat(document)


def parse_predictions(content: bytes, where: str) -> Predictions:
    """The CSV that `evaluate` writes. Raises ValueError that names the first line that is wrong."""
    try:
        rows = list(csv.reader(io.StringIO(content.decode(), newline=""), strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{where}: not valid CSV: {error}; {REMEDY}") from None
    if not rows or rows[0] != COLUMNS:
        found = ",".join(rows[0])[:80] if rows else "nothing"
        raise ValueError(f"{where}: found the columns {found}; expected {','.join(COLUMNS)}")
    if len(rows) == 1:
        raise ValueError(f"{where}: no predictions; {REMEDY}")
    losses = []
    for number, row in enumerate(rows[1:], start=2):
        try:
            _, _, _, text = row
            loss = float(text)
        except ValueError:
            loss = math.nan
        if not loss >= 0 or math.isinf(loss):
            raise ValueError(
                f"{where}: line {number}: found {','.join(row)[:80]!r};"
                " expected a picture, two classes and a finite loss of 0 or more"
            )
        losses.append(loss)
    pictures, actual, predicted, _ = zip(*rows[1:], strict=True)
    return Predictions(pictures, actual, predicted, np.array(losses))


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            metrics |= _flat(value, f"{prefix}{name}.")
        else:
            metrics[f"{prefix}{name}"] = value
    return metrics


def _json(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
