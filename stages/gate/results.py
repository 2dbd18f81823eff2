"""The metrics and the predictions of one revision, checked: what the gate compares."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from stages.base.params import number
from stages.gate.contributions import Contributions, of_classes, of_confidences, of_losses
from stages.gate.lockfile import Lockfile, bounded, flat, load_params
from stages.gate.predictions import REMEDY, Predictions, parse_predictions
from stages.gate.revisions import Revision
from stages.gate.rules import RECALL

BINS = "evaluate.calibration_bins"

Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class Results:
    """How well the model of a revision did.

    metrics: by name, nested ones as `recall.8`, of whatever type JSON gave them.
    calibration_bins: as in the params of that revision, None if they do not say.
    validation: the metrics on the validation images, which params may be chosen by.
    where: the metrics file, for messages.
    """

    where: str
    metrics: Mapping[str, Any]
    predictions: Predictions
    calibration_bins: Any = None
    validation: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, revision: Revision, gated: Iterable[str]) -> Self | None:
        """The results of `revision`, or None if it records none because nothing was measured yet.

        Raises ValueError if a file is missing or corrupt, if a metric in `gated` is not a finite
        number, if the predictions are impossible or give other metrics, or if dvc.lock records
        other results, code or params than the same revision holds.
        """
        lockfile = Lockfile.load(revision)
        paths = lockfile.results()
        if not paths:
            return None
        metrics, predictions, validation = paths
        results = cls(
            revision.where(metrics),
            _read(revision, metrics, parse_metrics),
            _read(revision, predictions, parse_predictions),
            load_params(revision).get(BINS),
            _read(revision, validation, parse_metrics),
        )
        for name in gated:
            results.metric(name)
        results.check_agreement(revision.where(predictions))
        lockfile.check()
        return results

    def metric(self, name: str) -> float:
        """The metric `name`. Raises ValueError unless it is a finite number."""
        if name not in self.metrics:
            raise ValueError(f"{self.where}: found no metric {name}, which has a rule in params")
        return _finite(self.metrics[name], f"{self.where}: {name}")

    def validation_metric(self, name: str) -> float:
        """The metric `name` on the validation images. Raises ValueError unless it is there."""
        name = f"validation_{name}"
        if name not in self.validation:
            raise ValueError(
                f"found no {name}; expected a run with validation images (tensorize.validation)"
            )
        return _finite(self.validation[name], name)

    def contributions(self, metric: str, names: Sequence[str]) -> Contributions:
        """What each image adds to the sums that a metric follows from.

        names: the classes in one order for all results to compare.
        """
        if metric == "cross_entropy":
            return of_losses(self.predictions)
        if metric == "expected_calibration_error":
            return of_confidences(self.predictions, self._bins)
        return of_classes(self.predictions, names, self._classes)

    def check_agreement(self, where: str) -> None:
        """Raise ValueError unless the predictions, the file `where`, can give these metrics."""
        predictions = self.predictions
        recalls = {f"{RECALL}{name}" for name in predictions.actual}
        for name in self.metrics:
            if name.startswith(RECALL) and name not in recalls:
                raise ValueError(
                    f"{self.where}: found {name}; expected no recall of a class that no image in"
                    f" {where} has; {REMEDY}"
                )
        for metric in ("accuracy", "cross_entropy", "expected_calibration_error"):
            implied = self.contributions(metric, sorted(predictions.classes))
            for name, value in implied.metrics.items():
                if name in self.metrics and abs(self.metric(name) - value) > implied.rounding:
                    raise ValueError(
                        f"{self.where}: {name}: found {self.metrics[name]}; expected"
                        f" {number(round(value, 6))}, which follows from {where};"
                        " `dvc repro --force` regenerates both"
                    )
        predictions.check_possible(self._classes, where)

    @property
    def _classes(self) -> float:
        """The number of classes that the model knows; without that metric, those that appear."""
        appear = len(self.predictions.classes)
        known = _finite(self.metrics.get("classes", appear), f"{self.where}: classes")
        if known < appear or not known.is_integer():
            raise ValueError(
                f"{self.where}: classes: found {known:g}; expected the {appear} that appear in the"
                f" predictions, or more; {REMEDY}"
            )
        return known

    @property
    def _bins(self) -> int:
        """The number of bins of confidence."""
        bins = number(self.calibration_bins)
        if type(bins) is int and bins > 0:
            return bins
        raise ValueError(
            f"{self.where}: expected_calibration_error cannot be checked: {BINS}: found"
            f" {_json(self.calibration_bins)}; expected an integer of 1 or more"
        )


def _read(revision: Revision, path: str, parse: Callable[[bytes, str], Parsed]) -> Parsed:
    where = revision.where(path)
    content = revision.read(path)
    if content is None:
        raise ValueError(f"{where}: no such file, though dvc.lock records it; {REMEDY}")
    return parse(content, where)


def _finite(value: Any, where: str) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and abs(value) <= sys.float_info.max:
        return float(value)
    raise ValueError(f"{where}: found {_json(value)}; expected a finite number")


def parse_metrics(content: bytes, where: str) -> dict[str, Any]:
    """A JSON object -> its values by dotted name. Raises ValueError if it is no such object."""
    try:
        document = json.loads(content, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not valid JSON: {error}; {REMEDY}") from None
    if not isinstance(document, dict):
        raise ValueError(f"{where}: found {_json(document)}; expected an object of metrics")
    return flat(bounded(document, where), where)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"found {name[:40]!r} twice in one object")
        values[name] = value
    return values


def _json(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
