"""DVC's experiments -> the best one on the validation images, and which others are really worse.

In: the commits of the experiments, in git. They are ranked by what `train` measured on the
validation split: whoever chooses by the test images no longer knows how good the choice is. The
test images only report: the gate's own test compares each experiment with the winner on them.
"""

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from stages.base.command import run
from stages.gate.report import columns, p_text
from stages.gate.results import Results
from stages.gate.revisions import Revision, commit_of, git, named
from stages.gate.rules import SECTION, Rule, Rules
from stages.gate.verdict import paired_test, same_test_set

# DVC keeps an experiment at refs/exps/<its base, 2 and 38 digits>/<its name>.
EXPERIMENT = re.compile(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/(.+)")
HEADER = ("experiment", "commit", "validation", "test", "vs. best", "95 % interval", "p", "verdict")


@dataclass(frozen=True)
class Candidate:
    """A commit, its results, and its value of the metric on the validation and test images."""

    revision: Revision
    results: Results
    validation: float
    test: float


def experiments() -> Iterator[Revision]:
    """HEAD, then every experiment that DVC keeps in this clone."""
    head = commit_of("HEAD")
    if head is not None:
        yield Revision("HEAD", head)
    refs = git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps/")
    for line in refs.stdout.decode().splitlines():
        commit, ref = line.split(" ", 1)
        if match := EXPERIMENT.fullmatch(ref):
            yield Revision(match[1], commit)


def candidates(revisions: list[Revision], metric: str) -> tuple[list[Candidate], list[str]]:
    """The revisions measured on the test set of the first one, and the reason for each other.

    Raises ValueError if there are none.
    """
    found: list[Candidate] = []
    left_out = []
    for revision in revisions:
        try:
            results = Results.load(revision, [metric])
            if results is None:
                raise ValueError("found no metrics")
            if found and not same_test_set(found[0].results.predictions, results.predictions):
                raise ValueError(f"its test set differs from that of {found[0].revision.name}")
            validation = results.validation_metric(metric)
            found.append(Candidate(revision, results, validation, results.metric(metric)))
        except ValueError as error:
            left_out.append(f"{revision.name}: {error}")
    if not found:
        raise ValueError(f"found no experiment with the metric {metric}: {'; '.join(left_out)}")
    return found, left_out


def ranked(found: list[Candidate], metric: str, rule: Rule) -> list[tuple[str, ...]]:
    """The rows of the table, the best on the validation images first; ties keep their order."""
    sign = -1 if rule.better == "higher" else 1
    order = sorted(found, key=lambda candidate: sign * candidate.validation)
    return [_row(candidate, order[0], metric, rule) for candidate in order]


def _row(candidate: Candidate, best: Candidate, metric: str, rule: Rule) -> tuple[str, ...]:
    start = (
        candidate.revision.name,
        str(candidate.revision.commit)[:7],
        f"{candidate.validation:.6f}",
        f"{candidate.test:.6f}",
    )
    if candidate is best:
        return (*start, "-", "-", "-", "best on validation")
    change = f"{candidate.test - best.test:+.6f}"
    test = paired_test(metric, best.results.predictions, candidate.results.predictions)
    worse_by = rule.worse_by(best.test, candidate.test)
    really = "worse" if worse_by > 0 else "better"
    if test is None or rule.alpha is None:
        within = abs(worse_by) <= rule.tolerance
        return (*start, change, "-", "-", "within tolerance" if within else really)
    low, high = test.interval
    word = really if test.p_value <= rule.alpha else "may be noise"
    return (*start, change, f"{low:+.6f} to {high:+.6f}", p_text(test.p_value), word)


def main(
    revisions: Annotated[
        list[str] | None,
        Argument(help="in: revisions to rank; by default HEAD and DVC's experiments"),
    ] = None,
    metric: Annotated[
        str | None, Option(help="the metric to rank by; by default the first that has a rule")
    ] = None,
    params: Annotated[Path, Option(help="in: the file with the section `gate`")] = Path(
        "params.yaml"
    ),
) -> None:
    """Rank experiments on validation images, and say which are really worse on the test images."""
    rules = Rules.load(params, SECTION).by_metric
    name = metric or next(iter(rules))
    if name not in rules:
        raise ValueError(
            f"{params}: gate: found no rule for {name}; expected one of {', '.join(rules)}"
        )
    chosen = [named(revision) for revision in revisions] if revisions else list(experiments())
    found, left_out = candidates(chosen, name)
    typer.echo(f"{name}, {rules[name].better} is better; ranked on the validation images\n")
    lines = columns(HEADER, ranked(found, name, rules[name]), range(2, 7))
    typer.echo("\n".join(lines), color=False if os.environ.get("NO_COLOR") else None)
    for reason in left_out:
        print(f"left out: {reason}", file=sys.stderr)


if __name__ == "__main__":
    run(main, Rule)
