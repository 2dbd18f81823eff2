import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.base.command import run
from stages.gate import best
from stages.gate.rules import Rule
from tests.repositories import RULES, VALIDATION, Repository

Best = Callable[..., list[str]]


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HEAD misclassifies 10 test images, three experiments 40, 8 and 4; another has other images.

    On the validation images, accuracy and cross entropy name another experiment the best.
    """
    repository = Repository.create(tmp_path_factory.mktemp("best") / "repository")
    repository.measure(range(10), validation=(0.93, 0.3))
    head = repository.commit()
    for name, wrong, images, validation in (
        ("short", range(40), 200, (0.85, 0.5)),
        ("long", range(8), 200, (0.94, 0.1)),
        ("longest", range(4), 200, (0.95, 0.2)),
        ("others", range(1), 240, (0.99, 0.0)),
    ):
        repository.measure(wrong, images=images, validation=validation)
        add_experiment(repository, head, name)
    repository.git("update-ref", "refs/exps/exec/EXEC_HEAD", head)
    repository.git("gc", "--quiet")  # fewer files to copy
    return repository.folder


@pytest.fixture
def repository(experiments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    folder = tmp_path / "repository"
    shutil.copytree(experiments, folder)
    monkeypatch.chdir(folder)
    return Repository(folder)


def add_experiment(repository: Repository, head: str, name: str) -> None:
    """Keep the files here as DVC keeps an experiment, and go back to `head`."""
    commit = repository.commit()
    repository.git("update-ref", f"refs/exps/{head[:2]}/{head[2:]}/{name}", commit)
    repository.git("reset", "--quiet", "--hard", head)


def words(rows: list[str]) -> list[str]:
    """The verdicts, without p-values."""
    return [re.split("  +", row)[3].partition(",")[0] for row in rows]


def names(rows: list[str]) -> list[str]:
    return [row.split()[0] for row in rows]


@pytest.fixture
def run_best(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Best:
    """The lines of standard output, then of standard error."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def ranked(*arguments: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["best", *arguments])
        with pytest.raises(SystemExit) as ended:
            run(best.main, Rule)
        out, err = capsys.readouterr()
        assert (ended.value.code or 0) == (2 if err.startswith("error") else 0)
        return (out + err).splitlines()

    return ranked


@pytest.mark.usefixtures("repository")
def test_experiments_are_ranked_on_validation_in_the_direction_of_the_metric(
    run_best: Best,
) -> None:
    title, _, header, *rows, _, legend, left_out = run_best()
    assert title == "accuracy, higher is better; ranked on the validation images"
    assert re.split("  +", header) == [
        *("experiment", "validation", "test", "on the test images", "unlike HEAD")
    ]
    assert names(rows) == ["longest", "long", "HEAD", "short"]
    assert words(rows) == [
        "best on validation",
        "may be noise",  # 4 images lost, none gained: p = 0.125
        "worse",  # 6: p = 0.03
        "worse",
    ]
    assert legend == "± standard error; ~ the validation images cannot tell it from the best"
    assert left_out == "left out: others: its test set differs from that of HEAD"
    rows = run_best("--metric", "cross_entropy")[3:-1]
    assert names(rows) == ["long", "longest", "HEAD", "short"]


@pytest.mark.usefixtures("repository")
def test_each_row_has_the_validation_and_test_values_and_the_paired_test_against_the_best(
    run_best: Best,
) -> None:
    longest, long, head = run_best()[3:6]
    # sqrt(0.95 * 0.05 / 900) is 0.0073: 0.94 is beyond that
    assert re.split("  +", longest)[1:] == ["0.950000 ±0.0073", "0.980000", "best on validation"]
    assert re.split("  +", long)[1:] == [
        *("0.940000 ±0.0079", "0.960000", "may be noise, p = 0.12")
    ]
    assert re.split("  +", head) == [*("HEAD", "0.930000 ±0.0085", "0.950000", "worse, p = 0.031")]


def test_experiments_within_a_standard_error_of_the_best_on_validation_are_marked(
    repository: Repository, run_best: Best
) -> None:
    repository.measure(range(9), validation=(0.943, 0.2))
    add_experiment(repository, repository.git("rev-parse", "HEAD"), "close")
    rows = run_best()[3:7]
    assert names(rows) == ["longest", "close", "long", "HEAD"]
    assert ["~" in row for row in rows] == [False, True, False, False]


def test_the_params_that_differ_are_listed_within_100_columns(
    repository: Repository, run_best: Best
) -> None:
    head = repository.git("rev-parse", "HEAD")
    repository.params(RULES, iterations=300)
    params = "".join(f"  param_{number}: {number}\n" for number in range(9))
    text = repository.read("params.yaml").replace("train:\n", f"train:\n{params}")
    repository.write("params.yaml", text)
    repository.measure(range(4), validation=(0.96, 0.2))
    add_experiment(repository, head, "other")
    lines = run_best()
    assert max(map(len, lines)) <= 100
    listed = " ".join(lines).split()
    assert {f"param_{number}={number}" for number in range(9)} | {"iterations=300"} <= {*listed}
    assert not any(word.startswith("rate=") for word in listed)  # the same everywhere


def test_params_with_one_last_name_are_listed_with_their_sections() -> None:
    assert best.short_names(["train.seed", "tensorize.seed", "train.rate"]) == {
        "train.seed": "train.seed",
        "tensorize.seed": "tensorize.seed",
        "train.rate": "rate",
    }


def test_an_experiment_with_the_results_of_another_is_called_the_same(
    repository: Repository, run_best: Best
) -> None:
    repository.measure(range(4), validation=(0.95, 0.2))
    add_experiment(repository, repository.git("rev-parse", "HEAD"), "twin")
    rows = run_best()[3:6]
    assert names(rows) == ["longest", "twin", "long"]
    assert words(rows)[1] == "same as longest"


def test_experiments_that_are_queued_or_failed_are_named(
    repository: Repository, run_best: Best
) -> None:
    head = repository.git("rev-parse", "HEAD")
    for ref, name in (("stash", "later"), ("failed", "broken")):
        message = f"dvc-exp:{head}:{head}:{name}"
        repository.git(
            "update-ref", "--create-reflog", "-m", message, f"refs/exps/celery/{ref}", head
        )
    assert run_best()[-2:] == [
        "queued: later; `dvc exp run --run-all` runs it",
        "failed: broken; `dvc queue logs broken` says why",
    ]
    assert not any("later" in line for line in run_best("HEAD"))


@pytest.mark.parametrize(
    ("rule", "word"), [({}, "better"), ({"alpha": None}, "better"), ({"alpha": 1e-9}, "may be")]
)
def test_an_experiment_better_on_the_test_images_is_not_ranked_first_for_that(
    repository: Repository, run_best: Best, rule: dict[str, Any], word: str
) -> None:
    repository.params({"accuracy": RULES["accuracy"] | rule})
    repository.measure(range(30), validation=(0.99, 0.1))
    add_experiment(repository, repository.git("rev-parse", "HEAD"), "lucky")
    repository.params({"accuracy": RULES["accuracy"] | rule})
    rows = run_best()[3:8]
    assert names(rows) == ["lucky", "longest", "long", "HEAD", "short"]
    first, *others, _ = words(rows)
    assert first == "best on validation"
    assert all(other.startswith(word) for other in others)


def test_equal_validation_metrics_keep_the_order_of_the_revisions(
    repository: Repository, run_best: Best
) -> None:
    head = repository.git("rev-parse", "HEAD")
    for name, wrong in (("a", range(3)), ("z", range(20))):
        repository.measure(wrong, validation=(0.95, 0.2))
        add_experiment(repository, head, name)
    assert names(run_best()[3:9]) == ["a", "longest", "z", "long", "HEAD", "short"]


def test_revisions_without_validation_metrics_are_left_out_with_the_reason(
    repository: Repository, run_best: Best
) -> None:
    head = repository.git("rev-parse", "HEAD")
    repository.measure(range(2), validation=None)
    add_experiment(repository, head, "without-split")
    output = run_best()
    assert names(output[3:7]) == ["longest", "long", "HEAD", "short"]
    assert output[-2:] == [
        "left out: others: its test set differs from that of HEAD",
        "left out: without-split: found no validation_accuracy; expected a run with validation"
        " images (tensorize.validation)",
    ]


@pytest.mark.parametrize("value", ["null", "NaN", '"0.93"'])
def test_a_validation_metric_that_is_no_number_is_left_out(
    repository: Repository, run_best: Best, value: str
) -> None:
    repository.write(VALIDATION, repository.read(VALIDATION).replace("0.93", value))
    repository.lock()
    repository.commit()
    assert run_best("HEAD", "HEAD~")[-1] == (
        f"left out: HEAD: validation_accuracy: found {value}; expected a finite number"
    )


def test_a_validation_metric_that_dvc_lock_does_not_record_is_left_out(
    repository: Repository, run_best: Best
) -> None:
    repository.write(VALIDATION, repository.read(VALIDATION).replace("0.93", "0.99"))
    repository.commit()
    assert run_best("HEAD", "HEAD~")[-1].startswith(
        f"left out: HEAD: dvc.lock of HEAD is out of date: {VALIDATION} is not the"
    )


def test_the_tolerance_ranks_experiments_if_there_is_no_paired_test(
    repository: Repository, run_best: Best
) -> None:
    repository.params({"accuracy": RULES["accuracy"] | {"alpha": None, "tolerance": 0.02}})
    rows = run_best()[3:7]
    assert words(rows) == ["best on validation", "within tolerance", "worse", "worse"]


@pytest.mark.usefixtures("repository")
def test_revisions_to_rank_can_be_passed(run_best: Best) -> None:
    rows = run_best("main")[3:4]
    assert names(rows) == ["main"]
    assert run_best("nowhere")[0].startswith("error: no revision 'nowhere' in this clone")


def test_a_revision_without_metrics_is_left_out_of_the_ranking(
    repository: Repository, run_best: Best
) -> None:
    repository.git("rm", "--quiet", "data/metrics.json")
    repository.commit()
    assert run_best("HEAD", "HEAD~")[-1].startswith("left out: HEAD: data/metrics.json of HEAD: no")
    assert run_best("HEAD")[0].startswith(
        "error: found no experiment with the metric accuracy: HEAD: "
    )


@pytest.mark.usefixtures("repository")
def test_a_metric_without_a_rule_cannot_be_ranked_by(run_best: Best) -> None:
    (error,) = run_best("--metric", "errors")
    assert error == (
        "error: params.yaml: gate: found no rule for errors;"
        " expected one of accuracy, cross_entropy"
    )
