"""DVC's experiments -> the best one on the validation images, and which others are really worse.

In: the commits of the experiments, in git. They are ranked by what `train` measured on the
validation split: whoever chooses by the test images no longer knows how good the choice is. The
test images only report: the gate's own test compares each experiment with the winner on them.
"""

import json
import math
import os
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import typer
from typer import Argument, Option

from stages.base.command import run
from stages.gate.changes import differences
from stages.gate.lockfile import PARAMS, Lockfile, load_params
from stages.gate.report import columns, p_text
from stages.gate.results import Results
from stages.gate.revisions import Revision, commit_of, git, named
from stages.gate.rules import SECTION, Rule, Rules
from stages.gate.verdict import changed_test_set, paired_test

# DVC keeps an experiment at refs/exps/<its base, 2 and 38 digits>/<its name>.
EXPERIMENT = re.compile(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/(.+)")
# Tasks of its queue are the entries of two reflogs, whose messages end with the names.
QUEUED, FAILED = "refs/exps/celery/stash", "refs/exps/celery/failed"
WIDTH = 100  # columns of the table; the params are wrapped, nothing else is


@dataclass(frozen=True)
class Candidate:
    """A revision, and its value of the metric on the validation and test images.

    params: those of the stages, by full name.  outs: the MD5 of what the stages made, by path.
    error: the standard error of an accuracy on the validation images, None for other metrics.
    """

    name: str
    results: Results
    params: Mapping[str, Any]
    outs: Mapping[str, str | None]
    validation: float
    error: float | None
    test: float

    @classmethod
    def load(cls, revision: Revision, metric: str) -> Self:
        """Raises ValueError if the revision has no such metric, or not on both."""
        results = Results.load(revision, [metric])
        if results is None:
            raise ValueError("found no metrics")
        value, error = results.validation_metric(metric), None
        if metric == "accuracy":
            images = results.validation_metric("images")
            error = math.sqrt(max(0, value * (1 - value)) / max(1, images))
        params = {
            name: value
            for name, value in load_params(revision).items()
            if not name.startswith(f"{SECTION}.")
        }
        outs, test = Lockfile.load(revision).outs, results.metric(metric)
        return cls(revision.name, results, params, outs, value, error, test)


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


def tasks(reflog: str) -> list[str]:
    """The names of the experiments in one of the lists of DVC's queue."""
    lines = git("reflog", "show", "--format=%gs", reflog).stdout.decode().splitlines()
    return [line.rpartition(":")[2] for line in lines]


def candidates(revisions: list[Revision], metric: str) -> tuple[list[Candidate], list[str]]:
    """The revisions measured on the test set of the first one, and the reason for each other.

    Raises ValueError if there are none.
    """
    found: list[Candidate] = []
    left_out = []
    for revision in revisions:
        try:
            one = Candidate.load(revision, metric)
            if found and changed_test_set(found[0].results.predictions, one.results.predictions):
                raise ValueError(f"its test set differs from that of {found[0].name}")
            found.append(one)
        except ValueError as error:
            left_out.append(f"{revision.name}: {error}")
    if not found:
        raise ValueError(f"found no experiment with the metric {metric}: {'; '.join(left_out)}")
    return found, left_out


def ranked(found: list[Candidate], metric: str, rule: Rule) -> list[tuple[str, ...]]:
    """The rows of the table, the best on the validation images first; ties keep their order."""
    sign = -1 if rule.better == "higher" else 1
    order = sorted(found, key=lambda candidate: sign * candidate.validation)
    unlike = {one.name: differences(found[0].params, one.params) for one in found}
    names = short_names(sorted({name for params in unlike.values() for name in params}))
    return [
        (
            candidate.name,
            _measured(candidate, order[0]),
            f"{candidate.test:.6f}",
            _verdict(candidate, order, metric, rule),
            " ".join(
                f"{names[name]}={json.dumps(value, default=str)}"
                for name, (_, value) in unlike[candidate.name].items()
            ),
        )
        for candidate in order
    ]


def short_names(names: list[str]) -> Mapping[str, str]:
    """The last part of each full name, where that belongs to one of them alone."""
    last = Counter(name.rpartition(".")[2] for name in names)
    return {name: end if last[end := name.rpartition(".")[2]] == 1 else name for name in names}


def _measured(candidate: Candidate, best: Candidate) -> str:
    if candidate.error is None or best.error is None:
        return f"{candidate.validation:.6f}"
    close = abs(candidate.validation - best.validation) <= best.error
    mark = "~" if close and candidate is not best else " "
    return f"{candidate.validation:.6f} ±{candidate.error:.4f}{mark}"


def _verdict(candidate: Candidate, order: list[Candidate], metric: str, rule: Rule) -> str:
    best = order[0]
    if candidate is best:
        return "best on validation"
    for other in order[: order.index(candidate)]:
        if other.outs == candidate.outs:
            return f"same as {other.name}"
    worse_by = rule.worse_by(best.test, candidate.test)
    really = "worse" if worse_by > 0 else "better"
    if rule.alpha is None:
        return "within tolerance" if abs(worse_by) <= (rule.tolerance or 0) else really
    p_value = paired_test(metric, best.results, candidate.results).p_value
    return f"{really if p_value <= rule.alpha else 'may be noise'}, p = {p_text(p_value)}"


def table(rows: list[tuple[str, ...]], first: str) -> list[str]:
    """Aligned lines; params that do not fit into WIDTH go on in the next line."""
    header = ("experiment", "validation", "test", "on the test images", f"unlike {first}")
    *fixed, _ = zip(header, *rows, strict=True)
    room = max(20, WIDTH - sum(max(map(len, column)) + 2 for column in fixed))
    wrapped = []
    for *cells, params in rows:
        start, *more = textwrap.wrap(params, room, break_on_hyphens=False) or [""]
        wrapped += [(*cells, start), *(("", "", "", "", line) for line in more)]
    return columns(header, wrapped, range(1, 3))


def main(
    revisions: Annotated[
        list[str] | None,
        Argument(help="in: revisions to rank; by default HEAD and DVC's experiments"),
    ] = None,
    metric: Annotated[
        str | None, Option(help="the metric to rank by; by default the first that has a rule")
    ] = None,
) -> None:
    """Rank experiments on validation images, and say which are really worse on the test images."""
    rules = Rules.load(Path(PARAMS), SECTION).by_metric
    name = metric or next(iter(rules))
    if name not in rules:
        raise ValueError(
            f"{PARAMS}: gate: found no rule for {name}; expected one of {', '.join(rules)}"
        )
    chosen = [named(revision) for revision in revisions] if revisions else list(experiments())
    found, left_out = candidates(chosen, name)
    rows = ranked(found, name, rules[name])
    typer.echo(f"{name}, {rules[name].better} is better; ranked on the validation images\n")
    typer.echo(
        "\n".join(table(rows, found[0].name)),
        color=False if os.environ.get("NO_COLOR") else None,
    )
    if any(candidate.error for candidate in found):
        print("\n± standard error; ~ the validation images cannot tell it from the best")
    for reason in left_out:
        print(f"left out: {reason}", file=sys.stderr)
    if not revisions:
        for task in tasks(QUEUED):
            print(f"queued: {task}; `dvc exp run --run-all` runs it", file=sys.stderr)
        for task in tasks(FAILED):
            print(f"failed: {task}; `dvc queue logs {task}` says why", file=sys.stderr)


if __name__ == "__main__":
    run(main, Rule)
