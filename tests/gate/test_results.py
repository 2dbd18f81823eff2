"""What the predictions determine is recomputed, and what no model can predict is refused."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.gate.contributions import of_confidences
from stages.gate.lockfile import Lockfile, load_params
from stages.gate.predictions import ROUNDING, Predictions, parse_predictions
from stages.gate.results import BINS as BINS_KEY
from stages.gate.results import Results, parse_metrics
from stages.gate.revisions import WORKING_TREE
from tests.conftest import ROOT
from tests.gate.conftest import InMemory
from tests.repositories import BINS, METRICS, PREDICTIONS, RULES, VALIDATION, metrics, predictions

WRONG = range(10)


def results(table: str, changes: dict[str, Any] | None = None, bins: Any = BINS) -> Results:
    """The results with such predictions; the metrics are those that follow, but for `changes`."""
    flat = parse_metrics(json.dumps(metrics(table)).encode(), "metrics")
    return Results(
        "metrics", flat | (changes or {}), parse_predictions(table.encode(), "table"), bins
    )


def edited(row: str, new: str, wrong: range = WRONG) -> str:
    table = predictions(wrong)
    assert row in table
    return table.replace(row, new)


@pytest.mark.parametrize("wrong", [range(0), WRONG, range(50, 200), range(200)])
def test_metrics_that_follow_from_the_predictions_are_accepted(wrong: range) -> None:
    results(predictions(wrong)).check_agreement("table")


@pytest.mark.parametrize("step", [1e-6, -1e-6])
@pytest.mark.parametrize(
    "name", parse_metrics(json.dumps(metrics(predictions(WRONG))).encode(), "")
)
def test_a_metric_that_is_off_in_its_last_digit_is_refused(name: str, step: float) -> None:
    good = results(predictions(WRONG))
    if name in ("cross_entropy", "expected_calibration_error", "macro_f1"):
        step *= 2.1  # means of rounded numbers, or of fractions that may round either way
    bad = results(predictions(WRONG), {name: good.metrics[name] + step})
    with pytest.raises(ValueError, match=rf"^metrics: {name}: found \S+; expected "):
        bad.check_agreement("table")


def test_the_committed_metrics_follow_from_the_committed_predictions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    paths = Lockfile.load(WORKING_TREE).results()
    if not paths or not all(map(os.path.exists, paths)):
        pytest.skip("no committed results here")
    measured, table = (Path(path).read_bytes() for path in paths[:2])
    committed = Results(
        "metrics",
        parse_metrics(measured, "metrics"),
        parse_predictions(table, "table"),
        load_params(WORKING_TREE)[BINS_KEY],
    )
    committed.check_agreement("table")


def test_macro_f1_is_the_mean_over_all_the_classes() -> None:
    value = round(results(predictions(WRONG)).metrics["macro_f1"] * 4 / 5, 6)
    results(predictions(WRONG), {"classes": 5, "macro_f1": value}).check_agreement("table")
    with pytest.raises(ValueError, match=r"macro_f1: found 0\.7\d+; expected 0\.9\d+, which"):
        results(predictions(WRONG), {"macro_f1": value}).check_agreement("table")


@pytest.mark.parametrize("classes", [3, 4.5, 0])
def test_more_classes_than_the_model_knows_are_refused(classes: float) -> None:
    with pytest.raises(ValueError, match=rf"classes: found {classes}; expected the 4 that appear"):
        results(predictions(WRONG), {"classes": classes}).check_agreement("table")


def test_without_the_number_of_classes_those_that_appear_count() -> None:
    good = results(predictions(WRONG))
    old = {name: value for name, value in good.metrics.items() if name != "classes"}
    replace(good, metrics=old).check_agreement("table")
    with pytest.raises(ValueError, match="macro_f1: found"):
        replace(good, metrics=old | {"macro_f1": 0.759998}).check_agreement("table")


def test_a_predicted_class_that_does_not_exist_is_refused_though_macro_f1_follows() -> None:
    table = edited("test/0,0,1,", "test/0,0,unknown,")
    with pytest.raises(ValueError, match="classes: found 4; expected the 5 that appear"):
        results(table, {"classes": 4}).check_agreement("table")


def test_recall_of_a_class_that_no_image_has_is_refused() -> None:
    with pytest.raises(ValueError, match=r"found recall\.9; expected no recall of a class that no"):
        results(predictions(WRONG), {"recall.9": 1.0}).check_agreement("table")


RIGHT = ",2,2,0.101000,0.903933"  # exp(-loss)
ERROR = ",0,1,2.000000,0.500000"  # exp(-loss) is 0.135335


@pytest.mark.parametrize(
    ("row", "new", "expected"),
    [
        (RIGHT, ",2,2,1.386300,0.249998", "a loss of at most ln 4 where"),  # ln 4 = 1.386294
        (RIGHT, ",2,2,0.101000,0.903935", r"exp\(-loss\) as the confidence where"),
        (RIGHT, ",2,2,0.101000,0.903931", r"exp\(-loss\) as the confidence where"),
        (ERROR, ",0,1,0.693140,0.500000", "a loss of at least ln 2 where"),  # ln 2 = 0.693147
        (ERROR, ",0,1,1.000000,0.360000", "a confidence that is the largest"),  # exp(-1) = 0.3679
        (ERROR, ",0,1,2.000000,0.864668", "a confidence that is the largest"),  # above 1 - exp(-2)
        (ERROR, ",0,1,2.000000,0.288200", "a confidence that is the largest"),  # of 3 others
    ],
)
def test_a_row_that_no_model_can_give_is_refused(row: str, new: str, expected: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^table: line \d+: found 'test.*{new}'; expected {expected}"
    ):
        results(edited(row, new)).check_agreement("table")


@pytest.mark.parametrize(
    ("row", "new"),
    [
        (RIGHT, ",2,2,1.386294,0.250000"),
        (ERROR, ",0,1,0.693147,0.500000"),
        (ERROR, ",0,1,1.386294,0.250000"),
        (ERROR, ",0,1,2.000000,0.864665"),
        (ERROR, ",0,1,2.000000,0.288222"),
    ],
)
def test_a_row_at_the_edge_of_the_possible_is_accepted(row: str, new: str) -> None:
    results(edited(row, new)).check_agreement("table")


@pytest.mark.parametrize("bins", [None, 0, 1.5, "many", True])
def test_calibration_needs_its_number_of_bins(bins: Any) -> None:
    with pytest.raises(ValueError, match=r"cannot be checked: evaluate\.calibration_bins: found"):
        results(predictions(WRONG), bins=bins).check_agreement("table")


def simulated(generator: np.random.Generator, near_edges: bool) -> tuple[Predictions, float]:
    """300 predictions as published, and their calibration error from exact confidences."""
    n, k = 300, 4
    confidence = generator.uniform(0.3, 1, n)
    confidence[:30] = 1 - 1e-8  # 1.000000 when published
    if near_edges:
        confidence = generator.integers(3, BINS, n) / BINS + generator.normal(0, 4e-7, n)
    hits = generator.random(n) < confidence
    hits[:3] = False
    others = generator.uniform(0.01, 0.9, n) * np.minimum(confidence, 1 - confidence)
    loss = -np.log(np.where(hits, confidence, others))
    bins = np.ceil(confidence * BINS)
    sums = [(confidence - hits)[bins == b].sum() for b in np.unique(bins)]
    actual = generator.integers(0, k, n)
    predicted = np.where(hits, actual, (actual + 1) % k)
    names = [tuple(map(str, column.tolist())) for column in (np.arange(n), actual, predicted)]
    table = Predictions(names[0], names[1], names[2], loss.round(6), confidence.round(6))
    return table, round(float(np.abs(sums).sum()) / n, 6)


@pytest.mark.parametrize("near_edges", [False, True])
def test_rounded_confidences_give_the_calibration_error_of_the_exact_ones(near_edges: bool) -> None:
    generator = np.random.default_rng(0)
    moved = 0
    for _ in range(200):
        table, exact = simulated(generator, near_edges)
        found = of_confidences(table, BINS)
        (error,) = found.metrics.values()
        assert abs(error - exact) <= found.rounding
        moved += abs(error - exact) > ROUNDING
        assert near_edges or found.rounding < 1.1 * ROUNDING + 2 / 300
    assert near_edges == bool(moved)  # the allowance for the edges of bins is needed there


@pytest.mark.parametrize("commit", [None, "c"])
@pytest.mark.parametrize(
    ("path", "old", "new", "message"),
    [
        (METRICS, "0.95", "NaN", "metrics.json{}: accuracy: found NaN; expected a finite number"),
        (METRICS, "0.95", "null", "metrics.json{}: accuracy: found null; expected a finite"),
        (METRICS, "0.95", '"0.95"', 'metrics.json{}: accuracy: found "0.95"; expected a finite'),
        (METRICS, "0.95", "true", "metrics.json{}: accuracy: found true; expected a finite"),
        (METRICS, "0.95", "[0.95]", "metrics.json{}: accuracy: found [0.95]; expected a finite"),
        (METRICS, "0.95", "Infinity", "metrics.json{}: accuracy: found Infinity; expected a"),
        (METRICS, "0.95", "1" + "0" * 400, "metrics.json{}: accuracy: found 1000000"),
        (
            METRICS,
            '"accuracy"',
            '"precision"',
            "metrics.json{}: found no metric accuracy, which has",
        ),
        (METRICS, "{", "", "metrics.json{}: not valid JSON: "),
        (METRICS, "{", "[" * 100_000, "metrics.json{}: not valid JSON: "),
        (METRICS, None, "3", "metrics.json{}: found 3; expected an object of metrics"),
        (
            METRICS,
            "0.95",
            "0.96",
            "accuracy: found 0.96; expected 0.95, which follows from data/predictions.csv{}",
        ),
        (METRICS, '"errors": 10', '"errors": 9', "errors: found 9; expected 10, which"),
        (METRICS, '"images": 200', '"images": 1', "images: found 1; expected 200, which"),
        (
            METRICS,
            'balanced_accuracy": 0.95',
            'balanced_accuracy": 0.96',
            "balanced_accuracy: found 0.96; expected 0.95,",
        ),
        (
            METRICS,
            'baseline_accuracy": 0.25',
            'baseline_accuracy": 0.2',
            "baseline_accuracy: found 0.2; expected 0.25,",
        ),
        (METRICS, "0.20495", "0.204952", "cross_entropy: found 0.204952; expected 0.20495,"),
        (METRICS, "{", "{ ", "dvc.lock{} is out of date: data/metrics.json is not"),
        (PREDICTIONS, "0.101000", "0.101001", "dvc.lock{} is out of date: data/predictions.csv is"),
        (
            PREDICTIONS,
            "2,2,0.101000",
            "2,1,0.101000",
            "accuracy: found 0.95; expected 0.945, which follows from data/predictions.csv{}",
        ),
        (
            PREDICTIONS,
            "2,2,0.101000",
            "2,2,nan",
            "predictions.csv{}: line 12: found 'test/10,2,2,nan,",
        ),
        (
            PREDICTIONS,
            "2,2,0.101000",
            "2,2,-1",
            "predictions.csv{}: line 12: found 'test/10,2,2,-1,",
        ),
        (
            PREDICTIONS,
            "2,2,0.101000",
            "2,2",
            "predictions.csv{}: line 12: found 'test/10,2,2,0.903933'; expected picture",
        ),
        (PREDICTIONS, "2,2,0.101000", '"2,2', "predictions.csv{}: not valid CSV: "),
        (PREDICTIONS, "actual,", "truth,", "predictions.csv{}: found the columns 'picture,truth,"),
        (PREDICTIONS, None, "", "predictions.csv{}: found the columns ''; expected pic"),
        (
            PREDICTIONS,
            None,
            "picture,actual,predicted,loss,confidence\n",
            "predictions.csv{}: found no predictions; ",
        ),
        ("dvc.lock", None, "{", "dvc.lock{}: not valid YAML: "),
        ("dvc.lock", None, "[]", "dvc.lock{}: not written by DVC: its content: "),
        ("dvc.lock", "  evaluate:", "  e:", "dvc.lock{}: evaluate has never run; run `dvc repro`"),
        (
            "dvc.lock",
            "--predictions data/predictions.csv",
            "--predictions p.csv",
            "dvc.lock{}: no stage has made p.csv; run",
        ),
        (
            "dvc.lock",
            "--predictions",
            "--table",
            "dvc.lock{}: no stage has made the predictions of evaluate; run",
        ),
        (
            VALIDATION,
            "0.9",
            "0.91",
            "dvc.lock{} is out of date: data/validation.json is not the rec",
        ),
        (VALIDATION, "{", "", "validation.json{}: not valid JSON: "),
        (VALIDATION, None, "3", "validation.json{}: found 3; expected an object of metrics"),
        (
            "dvc.lock",
            f"path: {VALIDATION}",
            "path: v.json",
            "dvc.lock{}: no stage has made data/validation.json; run",
        ),
        ("dvc.yaml", "python -m train", "python -m t", "out of date: the command of train has"),
        ("dvc.yaml", "  train:", "  again:\n    cmd: a\n  train:", "again has never run"),
        ("train.py", "training", "cheating", "out of date: train.py has changed; run `dvc repro`"),
        ("params.yaml", "3000", "30", "out of date: train in params.yaml has changed; run `dvc"),
        ("dvc.lock", "'1111", "'0111", "data/model has changed since evaluate read it"),
    ],
)
def test_files_that_cannot_be_trusted_are_refused(
    files: dict[str, bytes],
    commit: str | None,
    path: str,
    old: str | None,
    new: str,
    message: str,
) -> None:
    text = files[path].decode()
    assert old is None or old in text
    content = new if old is None else text.replace(old, new, 1)
    revision = InMemory("main", commit, {**files, path: content.encode()})
    with pytest.raises(ValueError, match="data|dvc") as error:
        Results.load(revision, RULES)
    assert message.format(" of main" if commit else "") in str(error.value)


def test_files_that_can_be_trusted_are_loaded(files: dict[str, bytes]) -> None:
    assert Results.load(InMemory("main", "c", files), RULES)
    lock = {"dvc.lock": b"stages: {}"}
    assert Results.load(InMemory("main", "c", {**files, **lock}), RULES) is None
