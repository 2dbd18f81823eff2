"""Rules and the results of two revisions -> which metrics regressed. Does no I/O."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from stages.gate.contributions import standard_error
from stages.gate.paired_tests import PairedTest, accuracy_test, mean_test, swap_test
from stages.gate.predictions import Predictions
from stages.gate.results import Results
from stages.gate.rules import DECIMALS, RECALL, Rule

Outcome = Literal[
    "same",
    "better",
    "better, may be noise",
    "worse, within tolerance",
    "worse, may be noise",
    "worse, accepted",
    "WORSE",
    "BEYOND ITS LIMIT",
    "not compared",
]
FAILURES: tuple[Outcome, ...] = ("WORSE", "BEYOND ITS LIMIT")


@dataclass(frozen=True)
class MetricVerdict:
    """One metric: its values, the paired test if there is one, and what its rule says.

    tolerance: as applied, in the metric's unit; None if nothing was compared.
    """

    metric: str
    rule: Rule
    base: float | None
    now: float
    tolerance: float | None
    test: PairedTest | None
    outcome: Outcome

    @property
    def change(self) -> float | None:
        """The value now minus the value at the base."""
        return None if self.base is None else round(self.now - self.base, DECIMALS)

    @property
    def failed(self) -> bool:
        """Whether this metric fails the gate."""
        return self.outcome in FAILURES


@dataclass(frozen=True)
class Images:
    """Test images that only one of the two models classifies correctly, out of `total`.

    lost: right at the base and wrong now, by actual class and predicted class now.  gained: wrong
    at the base and right now, by actual class and predicted class at the base.
    """

    total: int
    lost: Counter[tuple[str, str]]
    gained: Counter[tuple[str, str]]


@dataclass(frozen=True)
class Verdict:
    """The verdict on all metrics.

    images: None if there is no base to compare with.  warnings: what the test set is too small for.
    """

    metrics: list[MetricVerdict]
    images: Images | None
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def failed(self) -> list[MetricVerdict]:
        """The metrics that fail the gate."""
        return [judged for judged in self.metrics if judged.failed]


def judge(
    rules: Mapping[str, Rule],
    now: Results,
    base: Results | None,
    accepted_before: Mapping[str, float],
    accept_new_test_set: bool,
) -> Verdict:
    """Apply the rules to `now`, compared with `base` if that has results.

    accepted_before: the values that the rules of the base accept, by metric.
    Raises ValueError if a metric with a rule is not a finite number on either side, or if the test
    sets differ and that was not accepted.
    """
    values = {metric: now.metric(metric) for metric in rules}
    if base is None:
        return _limits_alone(rules, values, {}, "the base has no metrics yet")
    before = {metric: base.metric(metric) for metric in rules}
    difference = _difference(base.predictions, now.predictions)
    if difference is not None:
        if not accept_new_test_set:
            raise ValueError(
                f"the test set has changed ({difference}), so the metrics cannot be compared;"
                " `--accept-new-test-set` applies only the limits"
            )
        note = f"the test set has changed ({difference}), as accepted"
        return _limits_alone(rules, values, before, note)
    images = compare_images(base.predictions, now.predictions)
    judged, notes, warnings = [], [], []
    for metric, rule in rules.items():
        was, value = before[metric], values[metric]
        tolerance = _tolerance(metric, rule, base)
        test = paired_test(metric, base, now) if rule.alpha else None
        expired = (
            rule.accepted is not None
            and rule.accepted == accepted_before.get(metric)
            and rule.worse_by(was, rule.accepted) > tolerance
        )
        outcome = _outcome(rule, was, value, tolerance, test, expired)
        judged.append(MetricVerdict(metric, rule, was, value, tolerance, test, outcome))
        warnings += _blind_spot(metric, rule, tolerance, base.predictions)
        if outcome == "worse, accepted":
            notes.append(
                f"{metric}: a regression to {rule.accepted:g} is accepted: {rule.accepted_because}"
            )
        elif rule.accepted is not None and (
            expired or rule.worse_by(rule.accepted, value) < -tolerance
        ):
            notes.append(
                f"{metric} has recovered from the accepted {rule.accepted:g}; remove"
                f" gate.{metric}.accepted and gate.{metric}.accepted_because"
            )
    return Verdict(judged, images, notes, warnings)


def paired_test(metric: str, base: Results, now: Results) -> PairedTest | None:
    """The paired test of a metric; None if the metric does not follow from the predictions."""
    before, after = base.predictions, now.predictions
    if metric == "accuracy":
        lost = int((before.hits & ~after.hits).sum())
        gained = int((~before.hits & after.hits).sum())
        return accuracy_test(lost, gained, len(after.hits))
    if metric == "cross_entropy":
        return mean_test(before.loss, after.loss)
    names = sorted(before.classes | after.classes)
    one, other = base.contributions(metric, names), now.contributions(metric, names)
    return swap_test(one.rows, other.rows, other.of) if one and other else None


def fewest_lost(alpha: float) -> int:
    """How many images must be lost, and none gained, for p to be at most alpha: 2 / 2^n <= alpha.

    No paired test on right and wrong answers can see less, however many test images there are.
    """
    return math.ceil(math.log2(2 / alpha))


def _tolerance(metric: str, rule: Rule, base: Results) -> float:
    """The tolerance of a rule; `auto` is the metric's standard error at the base.

    That is the one-standard-error rule (Breiman, Friedman, Olshen and Stone 1984): models that
    differ by less are equally good as far as such a test set can say.
    """
    if rule.tolerance is not None:
        return rule.tolerance
    contributions = base.contributions(metric, sorted(base.predictions.classes))
    if contributions is None:
        raise ValueError(
            f"gate.{metric}.tolerance: auto cannot be computed from the predictions of the base;"
            " expected a number"
        )
    return round(standard_error(contributions), DECIMALS)


def _blind_spot(metric: str, rule: Rule, tolerance: float, base: Predictions) -> list[str]:
    """A note if the test set is too small for the test to see a loss that the rule forbids."""
    of = base.actual.count(metric.removeprefix(RECALL)) if metric.startswith(RECALL) else 0
    images = len(base.actual) if metric == "accuracy" else of
    if rule.alpha is None or not images:
        return []
    fewest = fewest_lost(rule.alpha)
    if fewest / images <= tolerance:
        return []
    blind = f"less than {fewest / images:.2g} ({fewest} images)" if fewest <= images else "any size"
    return [f"{metric}: {images} test images cannot tell a loss of {blind} from noise"]


def compare_images(base: Predictions, now: Predictions) -> Images:
    """The images that only one of two models classifies correctly; their labels must agree."""
    lost: Counter[tuple[str, str]] = Counter()
    gained: Counter[tuple[str, str]] = Counter()
    for actual, was, is_now in zip(now.actual, base.predicted, now.predicted, strict=True):
        if was == actual != is_now:
            lost[actual, is_now] += 1
        elif was != actual == is_now:
            gained[actual, was] += 1
    return Images(len(now.actual), lost, gained)


def same_test_set(base: Predictions, now: Predictions) -> bool:
    """Whether both are of the same pictures with the same labels in the same order."""
    return _difference(base, now) is None


def _difference(base: Predictions, now: Predictions) -> str | None:
    if len(base.actual) != len(now.actual):
        return f"{len(base.actual)} images at the base, {len(now.actual)} now"
    others = sum(a != b for a, b in zip(base.pictures, now.pictures, strict=True))
    if others:
        return f"{others} of {len(now.actual)} images are different pictures"
    others = sum(a != b for a, b in zip(base.actual, now.actual, strict=True))
    return f"{others} of {len(now.actual)} images have a different label" if others else None


def _outcome(
    rule: Rule,
    base: float,
    now: float,
    tolerance: float,
    test: PairedTest | None,
    expired: bool,
) -> Outcome:
    worse_by = rule.worse_by(base, now)
    noise = rule.alpha is not None and test is not None and test.p_value > rule.alpha
    if rule.is_beyond_limit(now):
        return "BEYOND ITS LIMIT"
    if worse_by <= 0:
        return "same" if worse_by == 0 else "better, may be noise" if noise else "better"
    if worse_by <= tolerance:
        return "worse, within tolerance"
    if noise:
        return "worse, may be noise"
    return "worse, accepted" if _is_accepted(rule, now) and not expired else "WORSE"


def _is_accepted(rule: Rule, now: float) -> bool:
    return rule.accepted is not None and rule.worse_by(rule.accepted, now) <= 0


def _limits_alone(
    rules: Mapping[str, Rule], now: Mapping[str, float], base: Mapping[str, float], note: str
) -> Verdict:
    judged = [
        MetricVerdict(
            metric,
            rule,
            base.get(metric),
            now[metric],
            None,
            None,
            "BEYOND ITS LIMIT" if rule.is_beyond_limit(now[metric]) else "not compared",
        )
        for metric, rule in rules.items()
    ]
    limited = any(rule.limit is not None for rule in rules.values())
    left = "only the limits apply" if limited else "nothing applies: no rule has a limit"
    return Verdict(judged, None, [f"{note}, so {left}"])
