import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.base.command import run
from stages.gate import best
from stages.gate.rules import Rule
from tests.repositories import RULES, Repository

Best = Callable[..., list[str]]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """HEAD misclassifies 10 images, three experiments 40, 8 and 4; another has other images."""
    repository = Repository.create(tmp_path / "repository")
    repository.measure(range(10))
    head = repository.commit()
    for name, wrong, images in (
        ("short", range(40), 200),
        ("long", range(8), 200),
        ("longest", range(4), 200),
        ("others", range(1), 240),
    ):
        repository.measure(wrong, images=images)
        commit = repository.commit()
        repository.git("update-ref", f"refs/exps/{head[:2]}/{head[2:]}/{name}", commit)
        repository.git("reset", "--quiet", "--hard", head)
    repository.git("update-ref", "refs/exps/exec/EXEC_HEAD", head)
    monkeypatch.chdir(repository.folder)
    return repository


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
def test_experiments_are_ranked_in_the_direction_of_the_metric(run_best: Best) -> None:
    title, _, _, *rows, left_out = run_best()
    assert title == "accuracy, higher is better"
    assert [row.split()[0] for row in rows] == ["longest", "long", "HEAD", "short"]
    assert [row.split("  ")[-1].strip() for row in rows] == [
        "best",
        "may be noise",  # 4 images lost, none gained: p = 0.125
        "worse",  # 6: p = 0.03
        "worse",
    ]
    assert left_out == "left out: others: its test set differs from that of HEAD"
    rows = run_best("--metric", "cross_entropy")[3:-1]
    assert [row.split()[0] for row in rows] == ["longest", "long", "HEAD", "short"]


def test_the_tolerance_ranks_experiments_if_there_is_no_paired_test(
    repository: Repository, run_best: Best
) -> None:
    repository.params({"accuracy": RULES["accuracy"] | {"alpha": None, "tolerance": 0.02}})
    rows = run_best()[3:-1]
    words = [row.split("  ")[-1].strip() for row in rows]
    assert words == ["best", "within tolerance", "worse", "worse"]


@pytest.mark.usefixtures("repository")
def test_revisions_to_rank_can_be_passed(run_best: Best) -> None:
    rows = run_best("main")[3:]
    assert [row.split()[0] for row in rows] == ["main"]
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
