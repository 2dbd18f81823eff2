"""Rules and the results of two revisions -> which metrics regressed. Does no I/O."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stages.gate.paired_tests import PairedTest, mcnemar_test, paired_t_test, randomization_test
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

    tolerance: as applied, in the metric's unit; None if nothing was compared.  expired: whether the
    rule accepts a value that the base accepts too, and has recovered from.
    """

    metric: str
    rule: Rule
    base: float | None
    now: float
    outcome: Outcome
    tolerance: float | None = None
    test: PairedTest | None = None
    expired: bool = False

    @property
    def change(self) -> float | None:
        """The value now minus the value at the base."""
        return None if self.base is None else round(self.now - self.base, DECIMALS)

    @property
    def failed(self) -> bool:
        """Whether this metric fails the gate."""
        return self.outcome in FAILURES


@dataclass(frozen=True)
class Disagreements:
    """Test images that only one of the two models classifies correctly, out of `images`.

    lost: right at the base and wrong now, by actual class and predicted class now.  gained: wrong
    at the base and right now, by actual class and predicted class at the base.
    """

    images: int
    lost: Counter[tuple[str, str]]
    gained: Counter[tuple[str, str]]


@dataclass(frozen=True)
class Verdict:
    """The verdict on all metrics.

    disagreements: None if nothing was compared.  warnings: what the test set is too small for.
    """

    metrics: list[MetricVerdict]
    disagreements: Disagreements | None
    notes: list[str]
    warnings: list[str]

    @property
    def failed(self) -> list[MetricVerdict]:
        """The metrics that fail the gate."""
        return [judged for judged in self.metrics if judged.failed]


def judge(
    rules: Mapping[str, Rule],
    now: Results,
    base: Results | None,
    accepted_at_base: Mapping[str, Any],
    accept_new_test_set: bool,
) -> Verdict:
    """Apply the rules to `now`, compared with `base` if that has results.

    accepted_at_base: the values that the rules of the base accept, by metric; None without.
    Raises ValueError if a metric with a rule is not a finite number on either side, or if the test
    sets differ and that was not accepted.
    """
    if base is None:
        return _limits_alone(rules, now, None, "the base has no metrics yet")
    if difference := changed_test_set(base.predictions, now.predictions):
        if not accept_new_test_set:
            raise ValueError(
                f"the test set has changed ({difference}), so the metrics cannot be compared;"
                " `--accept-new-test-set` applies only the limits"
            )
        note = f"the test set has changed ({difference}), as accepted"
        return _limits_alone(rules, now, base, note)
    metrics = [
        _compared(metric, rule, base, now, accepted_at_base.get(metric))
        for metric, rule in rules.items()
    ]
    notes = [note for judged in metrics for note in _acceptance(judged)]
    warnings = [note for judged in metrics for note in _blind_spot(judged, base.predictions)]
    return Verdict(metrics, disagreements(base.predictions, now.predictions), notes, warnings)


def _compared(
    metric: str, rule: Rule, base: Results, now: Results, accepted_at_base: Any
) -> MetricVerdict:
    was, value = base.metric(metric), now.metric(metric)
    tolerance = _tolerance(metric, rule, base)
    test = paired_test(metric, base, now) if rule.alpha else None
    expired = rule.accepted == accepted_at_base and _has_recovered(rule, was, tolerance)
    outcome = _outcome(rule, was, value, tolerance, test, expired)
    return MetricVerdict(metric, rule, was, value, outcome, tolerance, test, expired)


def _tolerance(metric: str, rule: Rule, base: Results) -> float:
    """The tolerance of a rule; `auto` is the metric's standard error at the base.

    That is the one-standard-error rule (Breiman, Friedman, Olshen and Stone 1984): models that
    differ by less are equally good as far as such a test set can say.
    """
    if rule.tolerance is not None:
        return rule.tolerance
    contributions = base.contributions(metric, sorted(base.predictions.classes))
    return round(contributions.standard_error(metric), DECIMALS)


def paired_test(metric: str, base: Results, now: Results) -> PairedTest:
    """The paired test of a metric that follows from the predictions."""
    before, after = base.predictions, now.predictions
    if metric == "accuracy":
        found = disagreements(before, after)
        return mcnemar_test(found.lost.total(), found.gained.total(), found.images)
    if metric == "cross_entropy":
        return paired_t_test(before.loss, after.loss)
    names = sorted(before.classes | after.classes)
    one, other = base.contributions(metric, names), now.contributions(metric, names)
    return randomization_test(one.rows, other.rows, lambda sums: other.of(sums)[metric])


def _outcome(
    rule: Rule, base: float, now: float, tolerance: float, test: PairedTest | None, expired: bool
) -> Outcome:
    worse_by = rule.worse_by(base, now)
    noise = rule.alpha is not None and test is not None and test.p_value > rule.alpha
    if rule.is_beyond_limit(now):
        return "BEYOND ITS LIMIT"
    if worse_by == 0:
        return "same"
    if worse_by < 0:
        return "better, may be noise" if noise else "better"
    if worse_by <= tolerance:
        return "worse, within tolerance"
    if noise:
        return "worse, may be noise"
    accepted = rule.accepted is not None and rule.worse_by(rule.accepted, now) <= 0
    return "worse, accepted" if accepted and not expired else "WORSE"


def _has_recovered(rule: Rule, value: float, tolerance: float) -> bool:
    """Whether `value` is better than the accepted one by more than the tolerance."""
    return rule.accepted is not None and rule.worse_by(value, rule.accepted) > tolerance


def _acceptance(judged: MetricVerdict) -> Iterator[str]:
    """A note if a regression was accepted, or need no longer be."""
    metric, rule = judged.metric, judged.rule
    if judged.outcome == "worse, accepted":
        yield f"{metric}: a regression to {rule.accepted:g} is accepted: {rule.accepted_because}"
    elif judged.expired or _has_recovered(rule, judged.now, judged.tolerance or 0):
        yield (
            f"{metric} has recovered from the accepted {rule.accepted:g}; remove"
            f" gate.{metric}.accepted and gate.{metric}.accepted_because"
        )


def _blind_spot(judged: MetricVerdict, base: Predictions) -> Iterator[str]:
    """A note if the test set is too small for the test to see a loss that the rule forbids."""
    metric, alpha = judged.metric, judged.rule.alpha
    images = base.actual.count(metric.removeprefix(RECALL)) if metric.startswith(RECALL) else 0
    images = len(base.actual) if metric == "accuracy" else images
    if alpha is None or not images:
        return
    fewest = fewest_lost(alpha)
    if fewest / images > (judged.tolerance or 0):
        size = f"less than {fewest / images:.2g} ({fewest} images)"
        blind = size if fewest <= images else "any size"
        yield f"{metric}: {images} test images cannot tell a loss of {blind} from noise"


def fewest_lost(alpha: float) -> int:
    """How many images must be lost, and none gained, for p to be at most alpha: 2 / 2^n <= alpha.

    No paired test on right and wrong answers can see less, however many test images there are.
    """
    return math.ceil(math.log2(2 / alpha))


def disagreements(base: Predictions, now: Predictions) -> Disagreements:
    """The images that only one of two models classifies correctly; their labels must agree."""
    answers = list(zip(now.actual, base.predicted, now.predicted, strict=True))
    return Disagreements(
        len(answers),
        lost=Counter(
            (actual, after) for actual, before, after in answers if before == actual != after
        ),
        gained=Counter(
            (actual, before) for actual, before, after in answers if before != actual == after
        ),
    )


def changed_test_set(base: Predictions, now: Predictions) -> str | None:
    """How two test sets differ; None if they hold the same pictures and labels in one order."""
    images = len(now.actual)
    if len(base.actual) != images:
        return f"{len(base.actual)} images at the base, {images} now"
    for before, after, what in (
        (base.pictures, now.pictures, "are different pictures"),
        (base.actual, now.actual, "have a different label"),
    ):
        if different := sum(one != other for one, other in zip(before, after, strict=True)):
            return f"{different} of {images} images {what}"
    return None


def _limits_alone(
    rules: Mapping[str, Rule], now: Results, base: Results | None, note: str
) -> Verdict:
    metrics = []
    for metric, rule in rules.items():
        was, value = base.metric(metric) if base else None, now.metric(metric)
        outcome: Outcome = "BEYOND ITS LIMIT" if rule.is_beyond_limit(value) else "not compared"
        metrics.append(MetricVerdict(metric, rule, was, value, outcome))
    limited = any(rule.limit is not None for rule in rules.values())
    left = "only the limits apply" if limited else "nothing applies: no rule has a limit"
    return Verdict(metrics, None, [f"{note}, so {left}"], [])
