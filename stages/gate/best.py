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
from typing import Annotated, Any

import typer
from typer import Argument, Option

from stages.base.command import run
from stages.gate.lockfile import Lockfile
from stages.gate.report import columns, p_text
from stages.gate.results import Results
from stages.gate.revisions import Revision, commit_of, git, named
from stages.gate.rules import SECTION, Rule, Rules
from stages.gate.verdict import paired_test, same_test_set

# DVC keeps an experiment at refs/exps/<its base, 2 and 38 digits>/<its name>.
EXPERIMENT = re.compile(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/(.+)")
# Tasks of its queue are the entries of two reflogs, whose messages end with the names.
QUEUED, FAILED = "refs/exps/celery/stash", "refs/exps/celery/failed"
WIDTH = 100  # columns of the table; the params are wrapped, nothing else is


@dataclass(frozen=True)
class Candidate:
    """A commit, its results, and its value of the metric on the validation and test images.

    error: the standard error on the validation images, None if the metrics do not determine it.
    """

    revision: Revision
    results: Results
    lockfile: Lockfile
    validation: float
    error: float | None
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
            results = Results.load(revision, [metric])
            if results is None:
                raise ValueError("found no metrics")
            if found and not same_test_set(found[0].results.predictions, results.predictions):
                raise ValueError(f"its test set differs from that of {found[0].revision.name}")
            validation = results.validation_metric(metric)
            error = _standard_error(metric, validation, results.validation)
            lockfile, test = Lockfile.load(revision), results.metric(metric)
            found.append(Candidate(revision, results, lockfile, validation, error, test))
        except ValueError as error:
            left_out.append(f"{revision.name}: {error}")
    if not found:
        raise ValueError(f"found no experiment with the metric {metric}: {'; '.join(left_out)}")
    return found, left_out


def ranked(found: list[Candidate], metric: str, rule: Rule) -> list[tuple[str, ...]]:
    """The rows of the table, the best on the validation images first; ties keep their order."""
    sign = -1 if rule.better == "higher" else 1
    order = sorted(found, key=lambda candidate: sign * candidate.validation)
    names = short_names(changed_params(found))
    return [
        (
            candidate.revision.name,
            _measured(candidate, order[0]),
            f"{candidate.test:.6f}",
            _verdict(candidate, order, metric, rule),
            _differences(candidate, found[0], names),
        )
        for candidate in order
    ]


def changed_params(found: list[Candidate]) -> list[str]:
    """The full names of the params of which the candidates have different values, sorted."""
    params = [candidate.lockfile.params for candidate in found]
    return sorted(
        name
        for name in {name for of_one in params for name in of_one}
        if any(of_one.get(name) != params[0].get(name) for of_one in params)
    )


def short_names(names: list[str]) -> Mapping[str, str]:
    """The last part of each full name, where that belongs to one of them alone."""
    last = Counter(name.rpartition(".")[2] for name in names)
    return {name: end if last[end := name.rpartition(".")[2]] == 1 else name for name in names}


def _standard_error(metric: str, value: float, validation: Mapping[str, Any]) -> float | None:
    images = validation.get("validation_images")
    if metric != "accuracy" or not isinstance(images, int) or images < 1 or not 0 <= value <= 1:
        return None
    return math.sqrt(value * (1 - value) / images)


def _measured(candidate: Candidate, best: Candidate) -> str:
    if candidate.error is None:
        return f"{candidate.validation:.6f}"
    distance = abs(candidate.validation - best.validation)
    close = candidate is not best and best.error is not None and distance <= best.error
    return f"{candidate.validation:.6f} ±{candidate.error:.4f}{'~' if close else ' '}"


def _verdict(candidate: Candidate, order: list[Candidate], metric: str, rule: Rule) -> str:
    best = order[0]
    if candidate is best:
        return "best on validation"
    for other in order[: order.index(candidate)]:
        if other.lockfile.outs == candidate.lockfile.outs:
            return f"same as {other.revision.name}"
    test = paired_test(metric, best.results, candidate.results) if rule.alpha else None
    worse_by = rule.worse_by(best.test, candidate.test)
    really = "worse" if worse_by > 0 else "better"
    if test is None or rule.alpha is None:
        within = abs(worse_by) <= (rule.tolerance or 0)
        return "within tolerance" if within else really
    word = really if test.p_value <= rule.alpha else "may be noise"
    return f"{word}, p = {p_text(test.p_value)}"


def _differences(candidate: Candidate, first: Candidate, names: Mapping[str, str]) -> str:
    own, others = candidate.lockfile.params, first.lockfile.params
    return " ".join(
        f"{short}={json.dumps(own.get(name))}"
        for name, short in names.items()
        if own.get(name) != others.get(name)
    )


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
    rows = ranked(found, name, rules[name])
    typer.echo(f"{name}, {rules[name].better} is better; ranked on the validation images\n")
    typer.echo(
        "\n".join(table(rows, found[0].revision.name)),
        color=False if os.environ.get("NO_COLOR") else None,
    )
    if any(candidate.error for candidate in found):
        print("\n± standard error; ~ the validation images cannot tell it from the best")
    for reason in left_out:
        print(f"left out: {reason}", file=sys.stderr)
    if not revisions:
        for task in tasks(QUEUED):
            print(f"queued: {task}; `dvc queue start` runs it", file=sys.stderr)
        for task in tasks(FAILED):
            print(f"failed: {task}; `dvc queue logs {task}` says why", file=sys.stderr)


if __name__ == "__main__":
    run(main, Rule)
