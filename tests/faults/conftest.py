"""Two runs of a small pipeline, and a process that runs its commands with faults."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.conftest import ROOT
from tests.pipelines import PARAMS, built_once
from tests.repositories import METRICS, PREDICTIONS, Repository

STAGES = ("download", "tensorize", "train", "evaluate")
CHANGES: dict[str, dict[str, Any]] = {
    "tensorize": {"channels": 3, "size": 8, "features": "pixels", "validation": 0.2}
    | {"skip_broken": True, "test": 0.3},
    "train": {"learning_rate": 0.05, "iterations": 6, "eval_every": 3, "batch_size": 10},
}
NO_DVC = "print('{}')  # found before DVC, which takes long to start and finds nothing here"


@dataclass(frozen=True)
class Outcome:
    """How a command ended: `code` as subprocess gives it, or "hangs"."""

    code: int | str
    output: str
    errors: str
    operations: str = field(repr=False)


@dataclass(frozen=True)
class Command:
    """A module, its arguments, its inputs, and its outputs, of which it replaces a step at once.

    again: whether it runs where its outputs are already.
    """

    module: str
    arguments: list[str]
    inputs: list[str] = field(default_factory=list)
    steps: list[list[str]] = field(default_factory=list)
    checkpoints: bool = False
    again: bool = True

    @property
    def outputs(self) -> list[str]:
        return [path for step in self.steps for path in step]


def stage(name: str, checkpoints: bool = False) -> Command:
    """A stage of dvc.yaml."""
    about = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][name]
    _, _, module, *arguments = shlex.split(about["cmd"])
    outs = [*about["outs"], *about.get("metrics", ()), *about.get("plots", ())]
    return Command(
        module,
        arguments,
        [dep for dep in about["deps"] if dep.startswith("data/")],
        [[out if isinstance(out, str) else next(iter(out)) for out in outs]],
        checkpoints,
    )


COMMANDS = {name: stage(name) for name in STAGES} | {
    "train with checkpoints": stage("train", checkpoints=True),
    "shards": Command(
        "stages.shards", ["elsewhere/drawn", "data/shards"], steps=[["data/shards"]], again=False
    ),
    "pictures": Command(
        "stages.pictures",
        ["elsewhere/drawn"],
        [METRICS, PREDICTIONS],
        [["pictures/drawn"], ["params.yaml"]],
    ),
}
PREDICT = ["pictures/drawn", "--model", "data/model.safetensors"]
PRINTING = {
    "predict": Command("stages.predict", PREDICT),
    "predict --json": Command("stages.predict", [*PREDICT, "--json"]),
    "predict --csv": Command("stages.predict", [*PREDICT, "--csv"]),
    "gate": Command("stages.gate", ["--base=HEAD", "--markdown=gate.md", "--json=gate.json"]),
    "explain": Command("stages.explain", []),
}  # and write no files, or in place


class Forked:
    """The process that runs commands in forked children, with a library that makes faults."""

    def __init__(self, shim: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forked", str(shim)],
            cwd=ROOT,
            env=os.environ | {"LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, command: Command, folder: Path, at: int = 0, fault: int = 0) -> Outcome:
        """Run a command in a folder with a fault at its `at`th operation there, if not 0.

        fault: an error number; or, below 0, a signal's. A command without outputs has operations on
        its standard streams.
        """
        job = {
            "module": command.module,
            "arguments": command.arguments,
            "folder": str(folder),
            "at": at,
            "fault": fault,
            "streams": not command.outputs,
            "checkpoints": command.checkpoints,
        }
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return Outcome(**json.loads(self.process.stdout.readline()))


@pytest.fixture(scope="session")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forked]:
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if not compiler or sys.platform != "linux":
        pytest.skip("faults are made by a C library: Linux and a C compiler are needed")
    shim = tmp_path_factory.mktemp("shim") / "shim.so"
    source = Path(__file__).with_name("shim.c")
    options = ("-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC")
    subprocess.run([compiler, *options, "-o", shim, source, "-ldl"], check=True)
    forked = Forked(shim)
    yield forked
    with forked.process:
        assert forked.process.stdin
        forked.process.stdin.close()


def draw_pictures(folder: Path, seed: int) -> None:
    """Eight pictures of each of three classes, and one that is broken."""
    random = np.random.default_rng(seed)
    for label, name in enumerate(("one", "two", "three")):
        (folder / name).mkdir(parents=True)
        for i in range(8):
            pixels = random.integers(0, 200, (8, 8, 3), dtype=np.uint8)
            pixels[..., label] += 15
            Image.fromarray(pixels).save(folder / name / f"{i:02}.png")
    (folder / "one" / f"broken {seed}.png").write_bytes(b"no picture")


@pytest.fixture(scope="session")
def two_runs(tmp_path_factory: pytest.TempPathFactory, forked: Forked) -> tuple[Path, Path]:
    """Two folders in which all stages have run, and left other bytes in every output."""

    def build(folder: Path) -> None:
        for seed, name in enumerate(("old", "new")):
            draw_pictures(folder / name / "pictures/drawn", seed)
            params = yaml.safe_load(PARAMS.read_text())
            params["download"]["dataset"] = "./pictures/drawn"
            for section, changes in CHANGES.items():
                params[section] |= {**changes, "seed": seed}
            params["evaluate"]["calibration_bins"] += seed
            (folder / name / "params.yaml").write_text(yaml.safe_dump(params))
            for command in map(stage, STAGES):
                outcome = forked.run(command, folder / name)
                assert outcome.code == 0, outcome

    both = built_once(tmp_path_factory, "two runs of a small pipeline", build)
    return both / "old", both / "new"


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository whose results have changed since the last commit, for the worse."""
    repository = Repository.create(tmp_path_factory.mktemp("git") / "repository")
    repository.measure(range(20))
    repository.commit()
    repository.measure(range(40), model="2")
    repository.write("dvc.py", NO_DVC)
    return repository.folder


def contents(folder: Path, paths: list[str]) -> Mapping[str, bytes]:
    """The files at `paths` in a folder, and those in the folders there."""
    found: dict[str, bytes] = {}
    for path in paths:
        top = folder / path
        files = [top] if top.is_file() else [file for file in top.rglob("*") if file.is_file()]
        found |= {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}
    return found
