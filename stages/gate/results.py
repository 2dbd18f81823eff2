"""The metrics and the predictions of one revision, checked: what the gate compares."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from stages.base.params import number
from stages.gate.lockfile import Lockfile
from stages.gate.predictions import REMEDY, ROUNDING, Predictions, parse_predictions
from stages.gate.revisions import Revision

BINS = "evaluate.calibration_bins"


@dataclass(frozen=True)
class Results:
    """How well the model of a revision did.

    metrics: by name, nested ones as `recall.8`, of whatever type JSON gave them.
    calibration_bins: as in the params of that revision, None if they do not say.
    where: the metrics file, for messages.
    """

    where: str
    metrics: Mapping[str, Any]
    predictions: Predictions
    calibration_bins: Any = None

    @classmethod
    def load(cls, revision: Revision, gated: Iterable[str]) -> Self | None:
        """The results of `revision`, or None if it records none because nothing was measured yet.

        Raises ValueError if a file is missing or corrupt, if a metric in `gated` is not a finite
        number, if the predictions are impossible or give other metrics, or if dvc.lock records
        other results, code or params than the same revision holds.
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
            where[0],
            parse_metrics(metrics, where[0]),
            parse_predictions(predictions, where[1]),
            lockfile.param(paths[0], BINS),
        )
        for name in gated:
            results.metric(name)
        results.check_agreement(where[1])
        lockfile.check()
        return results

    def metric(self, name: str) -> float:
        """The metric `name`. Raises ValueError unless it is a finite number."""
        if name not in self.metrics:
            raise ValueError(f"{self.where}: found no metric {name}, which has a rule in params")
        value = self.metrics[name]
        try:
            if isinstance(value, int | float) and not isinstance(value, bool):
                finite = float(value)
                if math.isfinite(finite):
                    return finite
        except OverflowError:  # an integer beyond every float
            pass
        raise ValueError(f"{self.where}: {name}: found {_json(value)}; expected a finite number")

    def check_agreement(self, where: str) -> None:
        """Raise ValueError unless the predictions, the file `where`, can give these metrics."""
        predictions = self.predictions
        classes = self._classes()
        implied = {name: (value, 0.0) for name, value in predictions.exact_metrics.items()}
        implied["macro_f1"] = (predictions.sum_of_f1 / classes, ROUNDING / 2)
        implied["cross_entropy"] = (float(predictions.loss.mean()), ROUNDING)
        if predictions.confidence is not None and "expected_calibration_error" in self.metrics:
            implied["expected_calibration_error"] = predictions.calibration_error(
                predictions.confidence, self._bins()
            )
        for name in self.metrics:
            if name.startswith("recall.") and name not in implied:
                raise ValueError(
                    f"{self.where}: found {name}; expected no recall of a class that no image in"
                    f" {where} has; {REMEDY}"
                )
            if name in implied and abs(self.metric(name) - implied[name][0]) > implied[name][1]:
                raise ValueError(
                    f"{self.where}: {name}: found {self.metrics[name]}; expected"
                    f" {round(implied[name][0], 6)}, which follows from {where};"
                    " `dvc repro --force` regenerates both"
                )
        predictions.check_possible(classes, where)

    def _classes(self) -> float:
        """The number of classes that the model knows, infinite if nothing bounds it.

        Those that appear in the predictions, and more where macro F1 says so: each class that does
        not appear adds 0 to its sum.
        """
        seen, total = max(2, len(self.predictions.classes)), self.predictions.sum_of_f1
        if "macro_f1" not in self.metrics or total == 0:
            return math.inf
        macro_f1 = self.metric("macro_f1")
        return max(seen, round(total / macro_f1)) if macro_f1 > ROUNDING else seen

    def _bins(self) -> int:
        bins = number(self.calibration_bins)
        if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
            raise ValueError(
                f"{self.where}: expected_calibration_error cannot be checked: {BINS}: found"
                f" {_json(self.calibration_bins)}; expected an integer of 1 or more"
            )
        return bins


def parse_metrics(content: bytes, where: str) -> dict[str, Any]:
    """A JSON object -> its values by dotted name. Raises ValueError if it is no such object."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not valid JSON: {error}; {REMEDY}") from None
    if not isinstance(document, dict):
        raise ValueError(f"{where}: found {_json(document)}; expected an object of metrics")
    return _flat(document)


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
