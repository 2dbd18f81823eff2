"""The metrics and the predictions of one revision, checked: what the gate compares."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from stages.base.params import number
from stages.gate.contributions import Contributions, contributions
from stages.gate.lockfile import Lockfile, flat
from stages.gate.predictions import REMEDY, ROUNDING, Predictions, parse_predictions
from stages.gate.revisions import Revision

BINS = "evaluate.calibration_bins"


@dataclass(frozen=True)
class Results:
    """How well the model of a revision did.

    metrics: by name, nested ones as `recall.8`, of whatever type JSON gave them.
    calibration_bins: as in the params of that revision, None if they do not say.
    validation: the metrics of the stages before the last, which params may be chosen by.
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
            _validation_metrics(lockfile),
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
        return _finite(self.metrics[name], f"{self.where}: {name}")

    def contributions(self, metric: str, names: Sequence[str]) -> Contributions | None:
        """What each image adds to a metric, None if that does not follow from the predictions.

        names: the classes in one order for all results to compare.
        """
        bins = self._bins() if metric == "expected_calibration_error" else 0
        return contributions(metric, self.predictions, names, self._classes(), bins)

    def validation_metric(self, name: str) -> float:
        """The metric `name` on the validation images. Raises ValueError unless it is there."""
        name = f"validation_{name}"
        if name not in self.validation:
            raise ValueError(
                f"found no {name}; expected a run with validation images (tensorize.validation)"
            )
        return _finite(self.validation[name], name)

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

        Results from before that was a metric: those that appear in the predictions, and more where
        macro F1 says so, since each class that does not appear adds 0 to its sum.
        """
        appear = len(self.predictions.classes)
        if "classes" in self.metrics:
            known = self.metric("classes")
            if known < appear or not known.is_integer():
                raise ValueError(
                    f"{self.where}: classes: found {known:g}; expected the {appear} that appear in"
                    f" the predictions, or more; {REMEDY}"
                )
            return known
        seen, total = max(2, appear), self.predictions.sum_of_f1
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


def _finite(value: Any, where: str) -> float:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            finite = float(value)
            if math.isfinite(finite):
                return finite
    except OverflowError:  # an integer beyond every float
        pass
    raise ValueError(f"{where}: found {_json(value)}; expected a finite number")


def _validation_metrics(lockfile: Lockfile) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    for path in lockfile.validation_metrics():
        where = lockfile.revision.where(path)
        content = lockfile.revision.read(path)
        if content is None:
            raise ValueError(f"{where}: no such file, though dvc.lock records it; {REMEDY}")
        metrics |= parse_metrics(content, where)
    return metrics


def parse_metrics(content: bytes, where: str) -> dict[str, Any]:
    """A JSON object -> its values by dotted name. Raises ValueError if it is no such object."""
    try:
        document = json.loads(content, object_pairs_hook=_without_duplicates)
        if isinstance(document, dict):
            return flat(document)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not valid JSON: {error}; {REMEDY}") from None
    raise ValueError(f"{where}: found {_json(document)}; expected an object of metrics")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise ValueError(f"found {twice[:40]!r} twice in one object")
    return values


def _json(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
