"""Rules and the results of two revisions -> which metrics regressed. Reads and writes nothing."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from stages.gate.paired_tests import PairedTest, accuracy_test, mean_test
from stages.gate.results import Predictions, Results
from stages.gate.rules import DECIMALS, Rule

Word = Literal[
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
FAILURES: tuple[Word, ...] = ("WORSE", "BEYOND ITS LIMIT")


@dataclass(frozen=True)
class Judged:
    """One metric: its values, the change's test where there is one, and what its rule says."""

    metric: str
    rule: Rule
    base: float | None
    now: float
    test: PairedTest | None
    word: Word

    @property
    def change(self) -> float | None:
        """The value now minus the base's."""
        return None if self.base is None else round(self.now - self.base, DECIMALS)

    @property
    def failed(self) -> bool:
        """Whether this metric fails the gate."""
        return self.word in FAILURES


@dataclass(frozen=True)
class Images:
    """Test images on which the two models differ in being right, by (actual, taken for).

    lost: right at the base, now taken for another class.  gained: the other way round, with the
    class that the base took them for.
    """

    total: int
    lost: Counter[tuple[str, str]]
    gained: Counter[tuple[str, str]]


@dataclass(frozen=True)
class Verdict:
    """What the gate says of all the metrics; images: None where there is no base to compare."""

    metrics: list[Judged]
    images: Images | None
    notes: list[str] = field(default_factory=list)

    @property
    def failed(self) -> list[Judged]:
        """The metrics that fail the gate."""
        return [judged for judged in self.metrics if judged.failed]


def judge(
    rules: Mapping[str, Rule],
    now: Results,
    base: Results | None,
    accepted_before: Mapping[str, float],
    accept_new_test_set: bool,
) -> Verdict:
    """Hold `now` to `rules`, against `base` if it has results.

    accepted_before: the values that the base's own rules accept, by metric.
    Raises ValueError if a metric with a rule is no finite number on either side, or if the test
    sets differ and that is not accepted.
    """
    values = {metric: now.metric(metric) for metric in rules}
    if base is None:
        return _limits_alone(rules, values, {}, "the base has no metrics yet: limits alone decide")
    before = {metric: base.metric(metric) for metric in rules}
    difference = _difference(base.predictions, now.predictions)
    if difference is not None:
        if not accept_new_test_set:
            raise ValueError(
                f"the test set has changed ({difference}): metrics on other images cannot be"
                " compared; `--accept-new-test-set` holds the new ones to their limits alone"
            )
        note = f"the test set has changed ({difference}), and was accepted: limits alone decide"
        return _limits_alone(rules, values, before, note)
    images = compare_images(base.predictions, now.predictions)
    judged, notes = [], []
    for metric, rule in rules.items():
        was, value = before[metric], values[metric]
        test = paired_test(metric, base.predictions, now.predictions)
        expired = _has_expired(rule, was, accepted_before.get(metric))
        word = _word(rule, was, value, test, expired)
        judged.append(Judged(metric, rule, was, value, test, word))
        if word == "worse, accepted":
            notes.append(f"{metric}: accepted to {rule.accepted:g}: {rule.accepted_because}")
        elif rule.accepted is not None and (
            expired or rule.worse_by(rule.accepted, value) < -rule.tolerance
        ):
            notes.append(
                f"{metric} has recovered from the accepted {rule.accepted:g}:"
                f" remove gate.{metric}.accepted and its reason"
            )
    return Verdict(judged, images, notes)


def paired_test(metric: str, base: Predictions, now: Predictions) -> PairedTest | None:
    """The test of a metric's change on the same images; None if it has no value an image."""
    if metric == "accuracy":
        lost = int((base.hits & ~now.hits).sum())
        gained = int((~base.hits & now.hits).sum())
        return accuracy_test(lost, gained, len(now.hits))
    if metric == "cross_entropy":
        return mean_test(base.loss, now.loss)
    return None


def compare_images(base: Predictions, now: Predictions) -> Images:
    """The images that only one of two models gets right; the labels must be the same."""
    lost: Counter[tuple[str, str]] = Counter()
    gained: Counter[tuple[str, str]] = Counter()
    for actual, was, is_now in zip(now.actual, base.predicted, now.predicted, strict=True):
        if was == actual != is_now:
            lost[actual, is_now] += 1
        elif was != actual == is_now:
            gained[actual, was] += 1
    return Images(len(now.actual), lost, gained)


def same_test_set(base: Predictions, now: Predictions) -> bool:
    """Whether the two are of the same pictures, with the same labels, in the same order."""
    return _difference(base, now) is None


def _difference(base: Predictions, now: Predictions) -> str | None:
    if len(base.actual) != len(now.actual):
        return f"{len(base.actual)} images at the base, now {len(now.actual)}"
    others = sum(a != b for a, b in zip(base.pictures, now.pictures, strict=True))
    if others:
        return f"{others} of {len(now.actual)} images are other pictures"
    others = sum(a != b for a, b in zip(base.actual, now.actual, strict=True))
    return f"{others} of {len(now.actual)} images have another label" if others else None


def _has_expired(rule: Rule, base: float, accepted_before: float | None) -> bool:
    """An acceptance that the base already holds, where the base is better again than it says."""
    return (
        rule.accepted is not None
        and rule.accepted == accepted_before
        and rule.worse_by(base, rule.accepted) > rule.tolerance
    )


def _word(rule: Rule, base: float, now: float, test: PairedTest | None, expired: bool) -> Word:
    worse_by = rule.worse_by(base, now)
    noise = rule.alpha is not None and test is not None and test.p_value > rule.alpha
    if rule.is_beyond_limit(now):
        return "BEYOND ITS LIMIT"
    if worse_by <= 0:
        return "same" if worse_by == 0 else "better, may be noise" if noise else "better"
    if worse_by <= rule.tolerance:
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
        Judged(
            metric,
            rule,
            base.get(metric),
            now[metric],
            None,
            "BEYOND ITS LIMIT" if rule.is_beyond_limit(now[metric]) else "not compared",
        )
        for metric, rule in rules.items()
    ]
    return Verdict(judged, None, [note])
