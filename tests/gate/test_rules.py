from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.gate.rules import TESTED, Rules
from tests.conftest import ROOT

ACCURACY: dict[str, Any] = {"better": "higher", "tolerance": 0.001, "floor": 0.9, "alpha": 0.05}


def load(tmp_path: Path, gate: object) -> Rules:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({"gate": gate}))
    return Rules.load(path, "gate")


def test_the_repositorys_rules_are_valid() -> None:
    assert Rules.load(ROOT / "params.yaml", "gate").by_metric


def test_rules_keep_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    rule = "{better: lower, tolerance: 1e-3, ceiling: 1, alpha: null}"
    path.write_text(f"gate:\n  b: {rule}\n  a: {rule}\n")
    rules = Rules.load(path, "gate").by_metric
    assert list(rules) == ["b", "a"]
    assert rules["b"].tolerance == 0.001  # though it is text to YAML 1.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"better": "up"}, "gate.accuracy.better: found 'up'; expected 'higher' or 'lower'"),
        ({"tolerance": -1}, "gate.accuracy.tolerance: found -1; expected greater than or equal"),
        ({"tolerance": float("nan")}, "gate.accuracy.tolerance: found nan; expected a finite"),
        ({"tolerance": True}, "gate.accuracy.tolerance: found True"),
        ({"alpha": 0}, "gate.accuracy.alpha: found 0; expected greater than 0"),
        ({"alpha": 1}, "gate.accuracy.alpha: found 1; expected less than 1"),
        ({"tolerance": None}, "gate.accuracy.tolerance: found None; expected 0 or more, or auto"),
        ({"tolerance": "car"}, "gate.accuracy.tolerance: found 'car'; expected a valid number"),
        ({"tolerance": "auto", "alpha": None}, "gate.accuracy: tolerance: auto needs an alpha"),
        ({"ceiling": 1}, "gate.accuracy: found a ceiling; expected a floor where higher is better"),
        ({"better": "lower"}, "gate.accuracy: found a floor; expected a ceiling where lower"),
        ({"tolerence": 1}, "gate.accuracy.tolerence: unknown key; did you mean tolerance?"),
        ({"accepted": 0.95}, "gate.accuracy: expected both accepted and accepted_because, or"),
        ({"accepted_because": "x"}, "gate.accuracy: expected both accepted and accepted_because"),
        (
            {"accepted": 0.8, "accepted_because": "smaller"},
            "gate.accuracy: accepted: found 0.8; expected no value beyond the floor 0.9",
        ),
    ],
)
def test_an_invalid_rule_is_an_error_that_names_the_key(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match="params") as error:
        load(tmp_path, {"accuracy": ACCURACY | change})
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ({}, "gate: found no rules"),
        (3, "gate: found 3"),
        ({"accuracy": 3}, "gate.accuracy: found 3; expected a rule: better, tolerance"),
        (
            {"accuracy": {"better": "higher", "floor": 0}},
            "gate.accuracy.tolerance: missing; expected change for the worse to ignore",
        ),
        (
            {"errors": ACCURACY},
            "gate: errors.alpha: found 0.05; expected null: there is no test for it, only for acc",
        ),
    ],
)
def test_an_invalid_gate_section_is_an_error(tmp_path: Path, gate: object, message: str) -> None:
    with pytest.raises(ValueError, match="params") as error:
        load(tmp_path, gate)
    assert message in str(error.value)


def test_all_invalid_rules_are_reported_at_once(tmp_path: Path) -> None:
    wrong = {"accuracy": ACCURACY | {"alpha": 2}, "macro_f1": {"better": "higher"}}
    with pytest.raises(ValueError, match="params") as error:
        load(tmp_path, wrong)
    for key in ("accuracy.alpha", "macro_f1.tolerance", "macro_f1.alpha"):
        assert f"gate.{key}:" in str(error.value)


@pytest.mark.parametrize("metric", [*TESTED, "recall.a dog"])
def test_a_rule_without_a_limit_and_with_a_tolerance_by_itself_is_valid(
    tmp_path: Path, metric: str
) -> None:
    rule = {"better": "higher", "tolerance": "auto", "alpha": 0.05}
    loaded = load(tmp_path, {metric: rule}).by_metric[metric]
    assert (loaded.tolerance, loaded.limit) == (None, None)
    assert not loaded.is_beyond_limit(-1e300)


def test_worse_means_lower_or_higher_as_the_rule_says(tmp_path: Path) -> None:
    loss = {"better": "lower", "tolerance": 0, "ceiling": 0.3, "alpha": None}
    rules = load(tmp_path, {"accuracy": ACCURACY, "loss": loss}).by_metric
    assert rules["accuracy"].worse_by(base=0.93, now=0.92) == 0.01
    assert rules["loss"].worse_by(base=0.2, now=0.21) == 0.01
    assert rules["accuracy"].is_beyond_limit(0.899999)
    assert not rules["accuracy"].is_beyond_limit(0.9)
    assert rules["loss"].is_beyond_limit(0.300001)
    assert not rules["loss"].is_beyond_limit(0.3)


def test_float_error_does_not_count_as_a_change(tmp_path: Path) -> None:
    rule = load(tmp_path, {"accuracy": ACCURACY}).by_metric["accuracy"]
    assert 0.928 - 0.927 > 0.001  # in floats
    assert rule.worse_by(base=0.928, now=0.927) == rule.tolerance
