"""Why the outputs in the working tree differ from the committed ones.

A model may differ because a float64 weight lies at a rounding boundary: that is nobody's fault, and
happens to about one pair of machines in thousands. Everything else is a real difference, and the
question is where it comes from: params, code, data or package versions.
"""

import csv
import hashlib
import io
import re
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from itertools import combinations
from pathlib import Path

import numpy as np
import typer

from stages.base.command import run
from stages.formats.model_file import rounded, steps
from stages.gate.changes import PACKAGES, what_changed
from stages.gate.lockfile import Lockfile
from stages.gate.report import changed_lines
from stages.gate.revisions import WORKING_TREE, Revision, last_line, named
from stages.training.exact_weights import ExactModel, Weights, exact_model

DECISIVE = ("numpy", "pillow", "pydantic", "safetensors", "torch")  # packages that decide bytes
NEAREST = 24  # weights to round the other way: each alone, in pairs and in threes


def versions_that_differ(lock: str) -> list[str]:
    """The decisive packages whose installed version is none that the text of the lock file pins."""
    lines = []
    for package in DECISIVE:
        pinned = re.findall(rf"^{package}==(\S+)", lock, re.MULTILINE)
        try:
            installed = version(package).partition("+")[0]
        except PackageNotFoundError:
            installed = "none"
        if installed not in pinned:
            expected = " or ".join(pinned) or "none"
            lines.append(f"version of {package}: {expected} pinned, {installed} installed")
    return lines


def causes(head: Revision, made: set[str]) -> list[str]:
    """What differs from `head` in params, code, data and versions, except the outputs `made`."""
    changes = what_changed(head)
    data = {name: values for name, values in changes.data.items() if name not in made}
    inputs = replace(changes, rules={}, data=data)
    pins = WORKING_TREE.read(PACKAGES) or b""
    return [*changed_lines(inputs), *versions_that_differ(pins.decode())]


def roundings(exact: Weights) -> tuple[Weights, Weights]:
    """How close float64 values are to being published as the other neighbour, and that neighbour.

    (N,) -> (N,), the distance to the boundary in steps between published values, from 0 to 0.5;
    (N,).
    """
    nearest, step = rounded(exact), steps(exact)
    other = rounded(nearest + np.where(exact > nearest, step, -step))
    return np.abs(exact - (nearest + other) / 2) / np.abs(other - nearest), other


def explained_by_rounding(model: ExactModel, md5: str | None) -> list[tuple[int, float]] | None:
    """The weights that, rounded the other way, give the file with this MD5; how close each was.

    Tries the NEAREST ones, up to three together. None if no choice of them gives the file.
    """
    distance, other = roundings(model.weights)
    nearest = distance.argsort()[:NEAREST].tolist()
    for count in range(4):
        for chosen in map(list, combinations(nearest, count)):
            trial = model.weights.copy()
            trial[chosen] = other[chosen]
            content = model.content(trial)
            if hashlib.md5(content, usedforsecurity=False).hexdigest() == md5:
                return [(index, float(distance[index])) for index in chosen]
    return None


def table_difference(committed: str, here: str) -> str:
    """How two versions of a CSV file differ: in how many lines, and by how much at most."""
    before, after = (list(csv.reader(io.StringIO(text, newline=""))) for text in (committed, here))
    if [len(row) for row in before] != [len(row) for row in after]:
        return f"{len(before)} lines committed, {len(after)} here"
    differing = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    largest = 0.0
    for rows in differing:
        for old, new in zip(*rows, strict=True):
            if old != new:
                try:
                    largest = max(largest, abs(float(old) - float(new)))
                except ValueError:
                    return f"{len(differing)} of {len(before)} lines: {old!r} is now {new!r}"
    return f"{len(differing)} of {len(before)} lines, by at most {largest:g}"


def difference(head: Revision, path: str) -> str:
    """How the file at `path` differs from the one in `head`, as far as git can tell."""
    if not path.endswith(".csv"):
        return "differs"
    committed, here = head.read(path), WORKING_TREE.read(path)
    if committed is None or here is None:
        return "differs; git does not hold the committed file to compare with"
    try:
        return table_difference(committed.decode(), here.decode())
    except (UnicodeDecodeError, csv.Error) as error:
        return f"differs; found no table to compare: {error}"


def explain(head: Revision) -> bool:
    """Print which outputs differ from those of `head`, and why; return whether that is harmless."""
    committed, here = Lockfile.load(head), Lockfile.load(WORKING_TREE)
    made = committed.outs.keys() | here.outs.keys()
    differing = {path for path in made if committed.outs.get(path) != here.outs.get(path)}
    if not differing:
        print("every output is the committed one")
        return True
    for path in sorted(differing):
        print(f"{path}: {difference(head, path)}")
    if reasons := causes(head, set(made)):
        print(*(f"cause: {reason}" for reason in reasons), sep="\n")
        return False
    model = here.options("train").get("--model")
    if model in differing and _differs_by_rounding(here, committed.outs.get(model)):
        made_from_it = {
            out.path
            for stage in here.lock.stages.values()
            if model in [dep.path for dep in stage.deps]
            for out in stage.outs
        }
        if differing <= {model, *made_from_it}:
            print(
                "harmless: the model differs by rounding alone, and either one may be committed;"
                " `make verify` measures how often to expect this"
            )
            return True
    print(
        "a real difference, although params, code, data and versions are the same: please report"
        " it with this output"
    )
    return False


def _differs_by_rounding(here: Lockfile, md5: str | None) -> bool:
    """Fit the model again, and print by which roundings it differs from the one with this MD5."""
    options = here.options("train")
    model, params, train, validation = (
        Path(options[name]) for name in ("--model", "--params", "--train", "--validation")
    )
    flips = explained_by_rounding(exact_model(params, train, validation), md5)
    if flips is None:
        print(f"{model}: differs by more than the rounding of a few weights")
    elif not flips:
        print(
            f"{model}: this machine computes the committed one, not the one here;"
            " `dvc repro --force train` regenerates it"
        )
    for index, distance in flips or []:
        print(
            f"{model}: weight {index} is one rounding step off; its float64 value is"
            f" {distance:.1e} of a rounding step away from the boundary"
        )
    return bool(flips)


def main() -> None:
    """Explain why what `dvc repro` made here differs from what is committed.

    Run it in the root of the repository, after `dvc repro`. Exit codes: 0 no difference, or only
    one of rounding; 1 a real difference; 2 not compared.
    """
    head = named("HEAD")
    if WORKING_TREE.read("dvc.lock") is None:
        raise ValueError("no dvc.lock here; run this in the root of the repository")
    command = [sys.executable, "-m", "dvc", "status", "--quiet"]
    status = subprocess.run(command, capture_output=True, check=False)
    if status.returncode:
        reason = f" ({last_line(status)})" if status.stderr.strip() else ""
        raise ValueError(f"dvc.lock does not match the files here{reason}; run `dvc repro` first")
    if not explain(head):
        raise typer.Exit(1)


if __name__ == "__main__":
    run(main)
