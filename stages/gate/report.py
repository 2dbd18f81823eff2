"""A verdict and what changed -> text for a terminal, Markdown for a pull request, or JSON."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import typer

from stages.base.command import printable
from stages.gate.changes import Changes, Differences
from stages.gate.revisions import Revision
from stages.gate.verdict import FAILURES, MetricVerdict, Verdict

PAIRS = 6  # of classes listed in the text, the most frequent ones; JSON lists all
HEADER = ("metric", "base", "now", "change", "95 % interval of the change", "p", "verdict")
NUMBERS = range(1, 6)  # the columns of HEADER that are numbers


@dataclass(frozen=True)
class Report:
    """The result of a comparison and its context."""

    base: Revision
    verdict: Verdict
    changes: Changes

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        verdict, against = self.verdict, f"against {self.base.name}"
        if verdict.failed:
            return f"FAILED {against}: {'; '.join(map(_reason, verdict.failed))}."
        if verdict.disagreements is None:
            return f"PASSED {against}: {'; '.join(verdict.notes)}."
        if all(judged.outcome == "same" for judged in verdict.metrics):
            return f"PASSED {against}: every metric is the same."
        accepted = [j.metric for j in verdict.metrics if j.outcome == "worse, accepted"]
        but = f", except where that was accepted ({', '.join(accepted)})" if accepted else ""
        return (
            f"PASSED {against}: no metric is worse by more than its tolerance and noise"
            f" explain{but}."
        )

    @property
    def remarks(self) -> list[str]:
        """What else a reader must know, one line each."""
        rules = [f"the rules have changed: {line}" for line in _lines(self.changes.rules)]
        return [*self.verdict.notes, *self.verdict.warnings, *rules]

    @property
    def images(self) -> list[str]:
        """How many images were lost and gained, and between which classes."""
        found = self.verdict.disagreements
        if found is None:
            return []
        lost, gained = found.lost.total(), found.gained.total()
        return [
            f"{lost} lost and {gained} gained of {found.images} test images",
            *([f"lost: {_pairs(found.lost, 'now mistaken for')}"] if lost else []),
            *([f"gained: {_pairs(found.gained, 'was mistaken for')}"] if gained else []),
        ]

    @property
    def sections(self) -> list[tuple[str, list[str]]]:
        """Titles and their lines, without empty sections."""
        changed = changed_lines(self.changes) or ["nothing: neither params nor code nor data"]
        sections = [("Note", self.remarks), ("Images", self.images), ("Changed", changed)]
        return [(title, lines) for title, lines in sections if lines]


def changed_lines(changes: Changes) -> list[str]:
    """Params, code and data that changed, one line each."""
    return [
        *(f"param {line}" for line in _lines(changes.params)),
        *(f"code {path}" for path in changes.code),
        *(f"data {line}" for line in _lines(changes.data, length=7)),
    ]


def terminal(report: Report) -> str:
    """Text with ANSI colours, which `typer.echo` removes where there is no terminal."""
    colour = "red" if report.verdict.failed else "green"
    lines = [typer.style(printable(report.sentence), fg=colour, bold=True), ""]
    lines += columns(HEADER, map(_row, report.verdict.metrics), NUMBERS)
    for title, entries in report.sections:
        lines += ["", typer.style(title, bold=True)]
        lines += [f"  {printable(entry)}" for entry in entries]
    return "\n".join(lines)


def markdown(report: Report) -> str:
    """GitHub's Markdown, for a pull request or the summary page of a CI run."""
    sign = "❌" if report.verdict.failed else "✅"
    lines = [f"## {sign} Regression gate", "", _escaped(report.sentence), ""]
    rules = ["---:" if index in NUMBERS else "---" for index in range(len(HEADER))]
    for row in (HEADER, rules, *map(_row, report.verdict.metrics)):
        lines.append(f"| {' | '.join(map(_escaped, row))} |")
    for title, entries in report.sections:
        lines += ["", f"**{title}**", "", *(f"- {_escaped(entry)}" for entry in entries)]
    return "\n".join(lines) + "\n"


def json_text(report: Report) -> str:
    """The report for programs; docs/gate.md describes it."""
    found, changes = report.verdict.disagreements, report.changes
    document = {
        "verdict": "fail" if report.verdict.failed else "pass",
        "sentence": report.sentence,
        "base": report.base.commit,
        "notes": report.remarks,
        "metrics": {judged.metric: _judged(judged) for judged in report.verdict.metrics},
        "images": found
        and {
            "total": found.images,
            "lost": _counted(found.lost, "now"),
            "gained": _counted(found.gained, "base"),
        },
        "changed": {
            "params": _by_name(changes.params),
            "rules": _by_name(changes.rules),
            "code": changes.code,
            "data": _by_name(changes.data),
        },
    }
    return _dumped(document)


def error_markdown(reason: str) -> str:
    """The Markdown report if nothing could be compared."""
    return f"## ⚠️ Regression gate\n\nNOT COMPARED: {_escaped(reason)}\n"


def error_json(reason: str) -> str:
    """The JSON report if nothing could be compared."""
    return _dumped({"verdict": "error", "sentence": reason})


def columns(
    header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int]
) -> list[str]:
    """A table as aligned lines, the columns in `numbers` to the right; failures in red."""
    table = [[printable(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    right = set(numbers)
    lines = []
    for row in table:
        cells = [
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        last = typer.style(row[-1], fg="red") if row[-1].startswith(FAILURES) else row[-1]
        lines.append("  ".join([*cells[:-1], last]).rstrip())
    return lines


def p_text(p_value: float) -> str:
    """A p-value with two digits; one that is too small for a float is not shown as 0."""
    return f"{p_value:.2g}" if p_value else "<1e-300"


def _row(judged: MetricVerdict) -> tuple[str, ...]:
    test = judged.test
    return (
        judged.metric,
        "-" if judged.base is None else f"{judged.base:.6f}",
        f"{judged.now:.6f}",
        "-" if judged.change is None else f"{judged.change:+.6f}",
        f"{test.interval[0]:+.6f} to {test.interval[1]:+.6f}" if test and test.interval else "-",
        p_text(test.p_value) if test else "-",
        _verdict(judged),
    )


def _verdict(judged: MetricVerdict) -> str:
    rule = judged.rule
    if judged.outcome == "BEYOND ITS LIMIT":
        return f"{judged.outcome} {rule.limit:g}"
    if judged.outcome == "worse, within tolerance":
        return f"{judged.outcome} {judged.tolerance:.3g}"
    return judged.outcome


def _reason(judged: MetricVerdict) -> str:
    if judged.outcome == "BEYOND ITS LIMIT":
        side = "below its floor" if judged.rule.better == "higher" else "above its ceiling"
        return f"{judged.metric} {judged.now:.6f} is {side} {judged.rule.limit:g}"
    test = "" if judged.test is None else f", p = {p_text(judged.test.p_value)}"
    return f"{judged.metric} is worse, {judged.base:.6f} -> {judged.now:.6f}{test}"


def _lines(differences: Differences, length: int | None = None) -> list[str]:
    return [
        f"{name}: {_value(base)[:length]} -> {_value(now)[:length]}"
        for name, (base, now) in differences.items()
    ]


def _value(value: Any) -> str:
    """A param or a hash for people; YAML also has dates, which JSON has not."""
    if isinstance(value, str):
        return value
    return "none" if value is None else json.dumps(value, default=str)


def _pairs(counts: Counter[tuple[str, str]], words: str) -> str:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{actual} {words} {other} ({images})" for (actual, other), images in ranked[:PAIRS]]
    rest = sum(images for _, images in ranked[PAIRS:])
    return ", ".join(named) + (f", others ({rest})" if rest else "")


def _judged(judged: MetricVerdict) -> dict[str, Any]:
    test, rule = judged.test, judged.rule
    return {
        "base": judged.base,
        "now": judged.now,
        "change": judged.change,
        "interval": list(test.interval) if test and test.interval else None,
        "p": test.p_value if test else None,
        "verdict": judged.outcome.lower(),
        "failed": judged.failed,
        "tolerance": judged.tolerance,
        "rule": rule.model_dump(exclude_none=True)
        | {"alpha": rule.alpha, "tolerance": "auto" if rule.tolerance is None else rule.tolerance},
    }


def _counted(counts: Counter[tuple[str, str]], side: str) -> list[dict[str, Any]]:
    return [
        {"actual": actual, side: predicted, "images": number}
        for (actual, predicted), number in sorted(counts.items())
    ]


def _by_name(differences: Differences) -> dict[str, dict[str, Any]]:
    return {name: {"base": base, "now": now} for name, (base, now) in differences.items()}


def _dumped(document: dict[str, Any]) -> str:
    return json.dumps(document, default=str, indent=2, sort_keys=True) + "\n"


def _escaped(text: str) -> str:
    """Text that GitHub shows as it is: no markup, no formula, no link, and nobody is mentioned."""
    text = re.sub(r"[\\`*_\[\]|~$]", r"\\\g<0>", printable(text))
    text = re.sub(r"[@#]|:(?=/)|www(?=\.)", "\\g<0>\N{WORD JOINER}", text)
    return escape(text, quote=False)
