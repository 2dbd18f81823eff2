import json
from collections import Counter
from collections.abc import Collection
from typing import Any

import pytest

from stages.gate.paired_tests import mcnemar_test
from stages.gate.predictions import parse_predictions
from stages.gate.results import Results, parse_metrics
from stages.gate.rules import Rule
from stages.gate.verdict import MetricVerdict, Verdict, fewest_lost, judge
from tests.repositories import RULES, metrics, predictions

TEN = set(range(10))  # images that the base gets wrong


def results(wrong: Collection[int], **changes: Any) -> Results:
    table = predictions(wrong)
    return Results("metrics", metrics(table) | changes, parse_predictions(table.encode(), "table"))


def verdict(
    wrong: Collection[int],
    accepted_before: float | None = None,
    base: Collection[int] = TEN,
    **rule: Any,
) -> tuple[MetricVerdict, Verdict]:
    """The verdict on accuracy, and the whole one."""
    rules = {"accuracy": Rule.model_validate(RULES["accuracy"] | rule)}
    before = {} if accepted_before is None else {"accuracy": accepted_before}
    found = judge(rules, results(wrong), results(base), before, accept_new_test_set=False)
    return found.metrics[0], found


@pytest.mark.parametrize(
    ("wrong", "rule", "outcome"),
    [
        (TEN, {}, "same"),
        (range(12), {}, "worse, within tolerance"),  # just 0.01: two images of 200
        (range(10, 22), {"tolerance": 0}, "worse, may be noise"),  # 12 lost, 10 gained
        (range(13), {}, "worse, may be noise"),  # 3 lost, 0 gained: p = 0.25
        (range(16), {}, "WORSE"),  # 6 lost, 0 gained: p = 0.03
        (range(16), {"alpha": 0.03125}, "WORSE"),  # p is exactly that, and counts as real
        (range(16), {"alpha": 0.01}, "worse, may be noise"),
        (range(13), {"alpha": None}, "WORSE"),
        (range(16), {"floor": 0.92}, "WORSE"),  # being at the floor is not being below it
        (range(16), {"floor": 0.925}, "BEYOND ITS LIMIT"),
        (TEN, {"floor": 0.96}, "BEYOND ITS LIMIT"),  # whatever the base has
        (range(5), {"floor": 0.99}, "BEYOND ITS LIMIT"),  # even if it is better
        (range(8), {}, "better, may be noise"),
        (range(8), {"alpha": None}, "better"),
        ((), {}, "better"),
    ],
)
def test_outcome_of_a_metric_by_its_rule(
    wrong: Collection[int], rule: dict[str, Any], outcome: str
) -> None:
    judged, whole = verdict(wrong, **rule)
    assert judged.outcome == outcome
    assert whole.failed == ([judged] if outcome.isupper() else [])


def test_a_higher_loss_is_worse() -> None:
    rules = {"cross_entropy": Rule.model_validate(RULES["cross_entropy"])}
    worse, better, same = (
        judge(rules, results(wrong), results(TEN), {}, False).metrics[0]
        for wrong in (range(30), (), TEN)
    )
    assert (worse.outcome, better.outcome, same.outcome) == ("WORSE", "better", "same")
    assert worse.test
    assert better.test
    assert worse.test.interval
    assert better.test.interval
    assert worse.test.interval[0] > 0 > better.test.interval[1]


def test_the_tolerance_decides_for_a_metric_without_a_paired_test() -> None:
    rule = Rule.model_validate(RULES["accuracy"] | {"alpha": None, "floor": 0})
    for value, outcome in ((0.49, "worse, within tolerance"), (0.4899, "WORSE"), (0.6, "better")):
        now = results(TEN, **{"recall.0": value})
        base = results(TEN, **{"recall.0": 0.5})
        judged = judge({"recall.0": rule}, now, base, {}, False).metrics[0]
        assert (judged.outcome, judged.test) == (outcome, None)


def test_one_failed_metric_fails_the_gate() -> None:
    rules = {name: Rule.model_validate(rule) for name, rule in RULES.items()}
    rules["accuracy"] = Rule.model_validate(RULES["accuracy"] | {"tolerance": 1})
    found = judge(rules, results(range(40)), results(TEN), {}, False)
    assert [judged.metric for judged in found.failed] == ["cross_entropy"]


def test_the_change_is_now_minus_base() -> None:
    judged, _ = verdict(range(20))
    assert judged.change == -0.05
    assert judged.test
    assert judged.test.interval
    assert judged.test.interval[0] < -0.05 < judged.test.interval[1] < 0


def test_images_lost_and_gained_are_counted_by_their_classes() -> None:
    _, whole = verdict({0, 1, 2, 40, 44, 41}, base={0, 1, 2, 3})
    assert whole.disagreements
    assert whole.disagreements.images == 200
    assert whole.disagreements.lost == Counter({("0", "1"): 2, ("1", "2"): 1})
    assert whole.disagreements.gained == Counter({("3", "0"): 1})


ACCEPTED: dict[str, Any] = {"accepted": 0.9, "accepted_because": "a smaller model"}


@pytest.mark.parametrize(
    ("errors", "outcome"),
    [(20, "worse, accepted"), (21, "WORSE"), (18, "worse, accepted"), (10, "same")],
)
def test_a_regression_is_accepted_down_to_its_value(errors: int, outcome: str) -> None:
    judged, whole = verdict(range(errors), **ACCEPTED)
    assert judged.outcome == outcome
    noted = "accuracy: a regression to 0.9 is accepted: a smaller model" in whole.notes
    assert noted == (outcome == "worse, accepted")


def test_an_acceptance_does_not_lift_the_floor() -> None:
    assert verdict(range(60), **ACCEPTED, floor=0.85)[0].outcome == "BEYOND ITS LIMIT"


def test_an_acceptance_expires_when_the_metric_has_recovered() -> None:
    # The base has the entry, and 0.95 again.
    judged, whole = verdict(range(20), accepted_before=0.9, **ACCEPTED)
    assert judged.outcome == "WORSE"
    assert "has recovered from the accepted 0.9; remove gate.accuracy.accepted" in whole.notes[0]


def test_an_acceptance_of_another_value_counts_as_new() -> None:
    assert verdict(range(20), accepted_before=0.91, **ACCEPTED)[0].outcome == "worse, accepted"


def test_a_merged_acceptance_need_not_be_removed_while_the_metric_is_low() -> None:
    # 19 errors at the base, 20 now: within the tolerance, so there is nothing to remove yet.
    judged, whole = verdict(range(20), accepted_before=0.9, base=range(19), **ACCEPTED)
    assert (judged.outcome, whole.notes) == ("worse, within tolerance", [])


def test_a_recovery_asks_to_remove_the_acceptance_and_passes() -> None:
    judged, whole = verdict(range(10), accepted_before=0.9, base=range(20), **ACCEPTED)
    assert not judged.failed
    assert "accuracy has recovered from the accepted 0.9" in whole.notes[0]


def test_a_recovery_within_the_tolerance_does_not_ask_to_remove_the_acceptance() -> None:
    judged, whole = verdict(range(19), accepted_before=0.9, base=range(20), **ACCEPTED)
    assert (judged.outcome, whole.notes) == ("better, may be noise", [])


def test_a_test_set_of_another_size_is_compared_only_if_accepted() -> None:
    rules = {"accuracy": Rule.model_validate(RULES["accuracy"])}
    table = predictions(range(30), images=120)
    now = Results("metrics", metrics(table), parse_predictions(table.encode(), "table"))
    with pytest.raises(ValueError, match=r"test set has changed \(200 images at the base, 120 now"):
        judge(rules, now, results(TEN), {}, accept_new_test_set=False)
    found = judge(rules, now, results(TEN), {}, accept_new_test_set=True)
    assert found.metrics[0].outcome == "not compared"
    assert "the test set has changed" in found.notes[0]
    strict = {"accuracy": Rule.model_validate(RULES["accuracy"] | {"floor": 0.9})}
    assert judge(strict, now, results(TEN), {}, accept_new_test_set=True).failed


def test_different_labels_make_a_different_test_set() -> None:
    rules = {"accuracy": Rule.model_validate(RULES["accuracy"])}
    table = predictions(TEN, labels="0124")
    now = Results("metrics", metrics(table), parse_predictions(table.encode(), "table"))
    with pytest.raises(ValueError, match="50 of 200 images have a different label"):
        judge(rules, now, results(TEN), {}, accept_new_test_set=False)


def test_different_pictures_make_a_different_test_set() -> None:
    rules = {"accuracy": Rule.model_validate(RULES["accuracy"])}
    table = predictions(TEN).replace("test/7,", "test/new,")
    now = Results("metrics", metrics(table), parse_predictions(table.encode(), "table"))
    with pytest.raises(ValueError, match="1 of 200 images are different pictures"):
        judge(rules, now, results(TEN), {}, accept_new_test_set=False)


def test_only_limits_apply_if_the_base_has_no_metrics() -> None:
    rules = {"accuracy": Rule.model_validate(RULES["accuracy"])}
    found = judge(rules, results(TEN), None, {}, accept_new_test_set=False)
    assert (found.failed, found.disagreements) == ([], None)
    assert found.notes == ["the base has no metrics yet, so only the limits apply"]
    assert judge(rules, results(range(150)), None, {}, accept_new_test_set=False).failed


def test_a_rule_without_a_floor_has_no_limit_to_break() -> None:
    judged, whole = verdict(range(200), base=range(200), floor=None)
    assert (judged.outcome, whole.failed) == ("same", [])


def test_the_first_metrics_pass_with_a_note_if_no_rule_has_a_limit() -> None:
    rules = {"accuracy": Rule.model_validate(RULES["accuracy"] | {"floor": None})}
    found = judge(rules, results(range(150)), None, {}, accept_new_test_set=False)
    assert found.notes == [
        "the base has no metrics yet, so nothing applies: no rule has a limit",
    ]


@pytest.mark.parametrize(
    ("wrong", "outcome"),
    [
        (range(13), "worse, within tolerance"),  # 0.015; sqrt(0.95 * 0.05 / 199) is 0.01545
        (range(14), "worse, may be noise"),  # 4 lost: p = 0.125
        (range(16), "WORSE"),
    ],
)
def test_an_automatic_tolerance_is_the_standard_error_at_the_base(
    wrong: Collection[int], outcome: str
) -> None:
    judged, _ = verdict(wrong, tolerance="auto")
    assert judged.tolerance == pytest.approx((0.95 * 0.05 / 199) ** 0.5, abs=1e-9)
    assert judged.outcome == outcome


def test_an_automatic_tolerance_grows_as_the_test_set_shrinks() -> None:
    judged, _ = verdict(range(20), base=range(19), tolerance="auto")
    large, _ = verdict(TEN, tolerance="auto")
    assert judged.tolerance
    assert large.tolerance
    assert judged.tolerance > large.tolerance


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1", "recall.1"])
def test_a_metric_without_a_value_per_image_fails_only_if_the_difference_is_real(
    metric: str,
) -> None:
    rule = {"better": "higher", "tolerance": 0, "alpha": 0.05}
    rules = {metric: Rule.model_validate(rule)}

    def outcome(lost: int) -> str:
        now = range(1, 4 * lost, 4)  # images of class 1
        base, later = (
            Results(
                "m",
                parse_metrics(json.dumps(metrics(t)).encode(), ""),
                parse_predictions(t.encode(), "t"),
            )
            for t in (predictions(()), predictions(now))
        )
        return judge(rules, later, base, {}, False).metrics[0].outcome

    assert [outcome(lost) for lost in (0, 5, 6)] == ["same", "worse, may be noise", "WORSE"]


@pytest.mark.parametrize(
    ("alpha", "fewest"), [(0.05, 6), (0.03125, 6), (0.03, 7), (0.25, 3), (0.5, 2), (0.9, 2)]
)
def test_the_fewest_lost_images_that_are_significant_follow_from_the_exact_test(
    alpha: float, fewest: int
) -> None:
    assert fewest_lost(alpha) == fewest
    assert mcnemar_test(fewest, 0, 1000).p_value <= alpha
    assert mcnemar_test(fewest - 1, 0, 1000).p_value > alpha


@pytest.mark.parametrize(
    ("rule", "warnings"),
    [
        (
            {},
            [
                "accuracy: 200 test images cannot tell a loss of less than 0.03 (6 images)"
                " from noise"
            ],
        ),
        ({"tolerance": 0.03}, []),
        ({"alpha": None}, []),
        ({"alpha": 1e-70}, ["accuracy: 200 test images cannot tell a loss of any size from noise"]),
    ],
)
def test_a_test_set_too_small_for_its_rule_is_reported(
    rule: dict[str, Any], warnings: list[str]
) -> None:
    assert verdict(TEN, **rule)[1].warnings == warnings


def test_the_recall_of_a_rare_class_is_reported_with_the_number_of_its_images() -> None:
    rule = {"better": "higher", "tolerance": 0.1, "alpha": 0.05}
    table = predictions(TEN).replace(",3,", ",2,", 40)
    found = Results(
        "m",
        parse_metrics(json.dumps(metrics(table)).encode(), ""),
        parse_predictions(table.encode(), "t"),
    )
    whole = judge({"recall.3": Rule.model_validate(rule)}, found, found, {}, False)
    images = found.predictions.actual.count("3")
    assert 6 < images < 30
    assert whole.warnings[0].startswith(
        f"recall.3: {images} test images cannot tell a loss of less"
    )
