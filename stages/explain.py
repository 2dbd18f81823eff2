"""Why what stands in the working tree differs from what is committed.

For each output that differs: is it rounding at a boundary, which is nobody's fault and happens to
about one pair of machines in thousands, or a real difference, and then in what: params, code, data
or versions?
"""

import csv
import hashlib
import io
import re
import shlex
import subprocess
from importlib.metadata import PackageNotFoundError, version
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
import typer
import yaml
from torch import Tensor

from stages.base.command import run
from stages.formats.model_file import Model
from stages.training.data import Examples, read_splits
from stages.training.loop import fit
from stages.training.processes import use_threads
from stages.training.settings import TrainParams

NEAREST = 24  # weights whose rounding is tried the other way, alone, in pairs and in threes


def inputs_that_differ(committed: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What decides the result and differs between two versions of dvc.lock, a line each."""
    lines = []
    made = {
        out["path"]
        for lock in (committed, now)
        for stage in lock["stages"].values()
        for out in stage.get("outs", [])
    }
    for name in sorted(committed["stages"].keys() | now["stages"].keys()):
        before, after = (lock["stages"].get(name, {}) for lock in (committed, now))
        if before.get("cmd") != after.get("cmd"):
            lines.append(f"the command of {name}")
        params = [_params(lock) for lock in (before, after)]
        for key in sorted(params[0].keys() | params[1].keys()):
            old, new = (values.get(key) for values in params)
            if old != new:
                lines.append(f"params: {key}: {old!r} was committed, now {new!r}")
        deps = [{d["path"]: d["md5"] for d in lock.get("deps", [])} for lock in (before, after)]
        for path in sorted(deps[0].keys() | deps[1].keys()):
            if deps[0].get(path) != deps[1].get(path) and path not in made:
                lines.append(f"{'code' if path.endswith('.py') else 'data'}: {path} ({name})")
    return lines


def _params(stage: dict[str, Any]) -> dict[str, Any]:
    """The params that a stage's lock holds, by full name; DVC keeps sections and single keys."""
    found: dict[str, Any] = {}
    for name, value in stage.get("params", {}).get("params.yaml", {}).items():
        found |= (
            {f"{name}.{k}": v for k, v in value.items()}
            if isinstance(value, dict)
            else {name: value}
        )
    return found


def versions_that_differ(lock: str) -> list[str]:
    """The packages that decide bytes and are not the ones that the text of the lock file pins."""
    lines = []
    for package in ("torch", "numpy", "safetensors", "pydantic"):
        pinned = re.findall(rf"^{package}==(\S+)", lock, re.MULTILINE)
        try:
            installed = version(package).partition("+")[0]
        except PackageNotFoundError:
            installed = "not installed"
        if installed not in pinned:
            lines.append(
                f"versions: {package} {' or '.join(pinned)} is pinned, {installed} is here"
            )
    return lines


def roundings(exact: Tensor) -> tuple[Tensor, Tensor]:
    """How near float64 values are to rounding to the other float32 neighbour, and that neighbour.

    (N,) float64 -> (N,) float64, the distance to the boundary in float32 steps, from 0 to 0.5;
    (N,) float32.
    """
    rounded = exact.float()
    up = torch.full_like(rounded, torch.inf)
    other = torch.where(exact > rounded.double(), rounded.nextafter(up), rounded.nextafter(-up))
    boundary = (rounded.double() + other.double()) / 2
    step = (other.double() - rounded.double()).abs()
    return (exact - boundary).abs() / step, other


def explained_by_rounding(
    model: LogisticRegression, params: TrainParams, md5: str
) -> list[tuple[int, float]] | None:
    """The weights whose rounding the other way gives the file with this MD5, and how near each was.

    Tries the NEAREST ones, up to three together. None if no such choice gives the file.
    """
    exact = torch.cat([model.weight.flatten(), model.bias])
    distance, other = roundings(exact)
    nearest = distance.argsort()[:NEAREST].tolist()
    k, d = model.weight.shape
    for count in range(4):
        for chosen in combinations(nearest, count):
            trial = exact.clone()
            trial[list(chosen)] = other[list(chosen)].double()
            model.weight.copy_(trial[: k * d].view(k, d))
            model.bias.copy_(trial[k * d :])
            content = model.serialized(params.model_dump())
            if hashlib.md5(content, usedforsecurity=False).hexdigest() == md5:
                return [(index, distance[index].item()) for index in chosen]
    return None


def table_difference(committed: str, now: str) -> str:
    """How two versions of a CSV differ: how many lines, and by how much at most."""
    rows = [list(csv.reader(io.StringIO(text, newline=""))) for text in (committed, now)]
    if [len(row) for row in rows[0]] != [len(row) for row in rows[1]]:
        return f"{len(rows[0])} lines were committed, now {len(rows[1])}"
    differing = [(a, b) for a, b in zip(*rows, strict=True) if a != b]
    largest = 0.0
    for before, after in differing:
        for old, new in zip(before, after, strict=True):
            if old != new:
                try:
                    largest = max(largest, abs(float(old) - float(new)))
                except ValueError:
                    return f"{len(differing)} lines, {old!r} has become {new!r}"
    return f"{len(differing)} of {len(rows[0])} lines, by {largest:g} at most"


def explain(committed: dict[str, Any], now: dict[str, Any]) -> bool:
    """Print how two versions of dvc.lock differ and why; return whether that is harmless."""
    outs = [
        {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]}
        for lock in (committed, now)
    ]
    differing = [path for path in outs[0] if outs[0][path] != outs[1].get(path)]
    causes = inputs_that_differ(committed, now)
    causes += versions_that_differ(Path("requirements.lock").read_text(encoding="utf-8"))
    flips: list[tuple[int, float]] | None = None
    for path in differing:
        if path.endswith(".csv"):
            now_text = Path(path).read_text(encoding="utf-8")
            print(f"{path}: {table_difference(_committed_text(path), now_text)}")
        elif path == _option(now, "--model") and not causes:
            flips = _explain_model(path, outs[0][path], now)
        else:
            print(f"{path}: differs")
    for cause in causes:
        print(f"what decides differs: {cause}")
    if not differing:
        print("every output is as committed")
    elif flips:
        print(
            "rounding at a boundary: nothing else decides between the two, and either may be"
            " committed; `make verify` tells how often to expect it"
        )
    elif not causes:
        print(
            "a real difference with the same params, data, code and versions: a fault to report,"
            " with this output"
        )
    return not differing or bool(flips)


def _explain_model(path: str, md5: str, now: dict[str, Any]) -> list[tuple[int, float]] | None:
    """Fit the model again, and say by which roundings it differs from the one with this MD5."""
    params = TrainParams.load(Path(_option(now, "--params")), "train")
    splits = read_splits(Path(_option(now, "--train")), Path(_option(now, "--validation")))
    use_threads(params.batch_size, splits.training.image_shape, splits.training.classes)
    flips = explained_by_rounding(fit(params, splits), params, md5)
    if flips is None:
        print(f"{path}: differs by more than the rounding of a few weights")
    elif not flips:
        print(
            f"{path}: this machine computes the committed one, and the one here was made otherwise;"
            " `dvc repro -f train` mends it"
        )
    for index, distance in flips or []:
        print(
            f"{path}: weight {index} is one unit in the last place off; its float64 value lies"
            f" {distance:.1e} of a float32 step from the rounding boundary"
        )
    return flips


def _option(lock: dict[str, Any], name: str) -> str:
    arguments = shlex.split(lock["stages"]["train"]["cmd"])
    return arguments[arguments.index(name) + 1]


def _committed_text(path: str) -> str:
    shown = subprocess.run(
        ["git", "show", f"HEAD:{path}"], capture_output=True, text=True, check=False
    )
    if shown.returncode:
        raise ValueError(f"{path}: not in the last commit: {shown.stderr.strip()}")
    return shown.stdout


def main() -> None:
    """Say why what `dvc repro` has made here differs from what is committed.

    Run it in the repository's root, after `dvc repro`. Exit code 1 on a real difference.
    """
    if not Path("dvc.lock").is_file() or not Path(".git").exists():
        raise ValueError("no dvc.lock and .git here: run this in the repository's root")
    status = subprocess.run(["dvc", "status", "--quiet"], check=False)
    if status.returncode:
        raise ValueError("dvc.lock does not hold for the files here: run `dvc repro` first")
    committed = yaml.safe_load(_committed_text("dvc.lock"))
    now = yaml.safe_load(Path("dvc.lock").read_text(encoding="utf-8"))
    if not explain(committed, now):
        raise typer.Exit(1)


if __name__ == "__main__":
    run(main)
