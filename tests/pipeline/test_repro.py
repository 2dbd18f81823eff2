"""The pipeline as people use it: through `dvc repro`, on a few pictures."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.pipelines import commit, run, set_params, stages_run

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def test_an_unchanged_pipeline_runs_nothing_and_changes_no_file(pipeline: Path) -> None:
    output = run(pipeline, "dvc", "repro")
    assert stages_run(output) == []
    assert "up to date" in output
    assert run(pipeline, "git", "status", "--short") == ""


@pytest.mark.slow
def test_a_clone_without_the_cache_gets_the_same_lock(pipeline: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    run(tmp_path, "git", "clone", "--quiet", str(pipeline), str(clone))
    shutil.copytree(pipeline / "pictures/animals", clone / "pictures/animals")
    (clone / "dvc.lock").unlink()
    assert stages_run(run(clone, "dvc", "repro", OMP_NUM_THREADS="1")) == list(STAGES)
    assert run(clone, "git", "status", "--short") == ""


@pytest.mark.parametrize(
    ("param", "value", "expected"),
    [
        ("tensorize.validation", 0.2, ["tensorize", "train", "evaluate"]),
        ("train.optimizer", "sgd", ["train", "evaluate"]),
        ("evaluate.mistakes", 9, ["evaluate"]),
    ],
)
def test_a_param_reruns_the_stages_that_it_affects_and_back_none(
    pipeline: Path, param: str, value: Any, expected: list[str]
) -> None:
    committed = (pipeline / "params.yaml").read_text()
    set_params(pipeline, {param: value})
    assert stages_run(run(pipeline, "dvc", "repro")) == expected
    (pipeline / "params.yaml").write_text(committed)
    assert stages_run(run(pipeline, "dvc", "repro")) == []  # restored from the run cache
    assert run(pipeline, "git", "status", "--short") == ""


def test_a_code_file_reruns_the_stages_that_import_it(pipeline: Path) -> None:
    for name in ("stages/training/loop.py", "stages/gate/verdict.py", "params.yaml"):
        with (pipeline / name).open("a") as file:
            file.write("\n# A change that changes no result.\n")
    assert stages_run(run(pipeline, "dvc", "repro")) == ["train"]
    assert run(pipeline, "git", "diff", "--stat", "data") == ""


@pytest.mark.parametrize(
    ("param", "value", "message"),
    [
        ("download.dataset", "MNOST", "download.dataset: found 'MNOST'; expected a data set"),
        ("train.batch_size", 0, "train.batch_size: found 0; expected greater than or"),
    ],
)
def test_a_wrong_param_gets_a_one_line_error_and_loses_nothing(
    pipeline: Path, param: str, value: Any, message: str
) -> None:
    committed = (pipeline / "params.yaml").read_text()
    set_params(pipeline, {param: value})
    with pytest.raises(AssertionError) as caught:
        run(pipeline, "dvc", "repro")
    output = str(caught.value)
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert message in line
    assert "Traceback" not in output
    (pipeline / "params.yaml").write_text(committed)
    assert stages_run(run(pipeline, "dvc", "repro")) == []
    assert run(pipeline, "git", "status", "--short") == ""


def test_metrics_diff_compares_two_branches(pipeline: Path) -> None:
    run(pipeline, "git", "checkout", "--quiet", "-b", "shorter")
    set_params(pipeline, {"train.iterations": 2})
    run(pipeline, "dvc", "repro")
    commit(pipeline)
    diff = json.loads(run(pipeline, "dvc", "metrics", "diff", "main", "shorter", "--json"))
    changed = diff["data/metrics.json"]["cross_entropy"]
    assert changed["new"] > changed["old"]
    assert changed["diff"] == pytest.approx(changed["new"] - changed["old"])


def test_plots_show_draws_every_plot(pipeline: Path) -> None:
    run(pipeline, "dvc", "plots", "show", "--out", "dvc_plots")
    page = (pipeline / "dvc_plots/index.html").read_text()
    for title in (
        "Cross entropy (nats)",
        "The most frequent confusions",
        "perfect calibration",
        "confusion.svg",
        "mistakes.svg",
        "weights.svg",
    ):
        assert title in page
    assert run(pipeline, "git", "status", "--short") == ""
