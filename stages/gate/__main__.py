"""Metrics and predictions of two revisions -> whether a metric has regressed.

In: the working tree and a base revision, both read from git; dvc.yaml and dvc.lock say where the
files are. No data, no model and no remote is needed. docs/gate.md explains the rules.
"""

import os
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from stages.base.command import run
from stages.base.params import number
from stages.gate.changes import modified_data, what_changed
from stages.gate.lockfile import PARAMS, load_params
from stages.gate.report import Report, error_json, error_markdown, json_text, markdown, terminal
from stages.gate.results import Results
from stages.gate.revisions import WORKING_TREE, find_base
from stages.gate.rules import SECTION, Rule, Rules
from stages.gate.verdict import judge


def gate(base_revision: str | None, accept_new_test_set: bool) -> Report:
    """Compare the working tree with the base. Raises OSError or ValueError if that fails."""
    rules = Rules.load(Path(PARAMS), SECTION).by_metric
    base = find_base(base_revision, os.environ)
    now = Results.load(WORKING_TREE, rules)
    if now is None:
        raise ValueError("dvc.lock: found no metrics; run `dvc repro`, which measures them")
    if modified := modified_data():
        raise ValueError(
            f"dvc.lock does not record the {modified[0]} that is here; `dvc checkout` restores the"
            " recorded one, `dvc repro` records what the code makes"
        )
    before = Results.load(base, rules)
    params = load_params(base)
    accepted = {metric: number(params.get(f"{SECTION}.{metric}.accepted")) for metric in rules}
    verdict = judge(rules, now, before, accepted, accept_new_test_set)
    return Report(base, verdict, what_changed(base))


def main(
    base: Annotated[
        str | None,
        Option(
            help="in: the revision to compare with; by default the merge base of HEAD and the"
            " main branch of the remote, or the target of the pull request"
        ),
    ] = None,
    markdown_path: Annotated[
        Path | None, Option("--markdown", help="out: the report for a pull request")
    ] = None,
    json_path: Annotated[Path | None, Option("--json", help="out: the report for programs")] = None,
    accept_new_test_set: Annotated[
        bool,
        Option("--accept-new-test-set", help="apply only the limits if the test images differ"),
    ] = False,
) -> None:
    """Check whether a metric is worse by more than noise explains.

    Exit codes: 0 no metric failed; 1 a metric failed; 2 not compared, with the reason.
    """
    try:
        report = gate(base, accept_new_test_set)
    except (OSError, ValueError) as error:
        _write(markdown_path, error_markdown(str(error)))
        _write(json_path, error_json(str(error)))
        raise
    _write(markdown_path, markdown(report))
    _write(json_path, json_text(report))
    typer.echo(terminal(report), color=False if os.environ.get("NO_COLOR") else None)
    if report.verdict.failed:
        raise typer.Exit(1)


def _write(path: Path | None, text: str) -> None:
    # In place: the path may be a pipe or /dev/stdout, which renaming a file to it would replace.
    if path is not None:
        path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    run(main, Rule)
