"""Short training runs, in this process and in others."""

import os
import signal
import subprocess
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from stages.formats.split_file import Split
from stages.training.data import Examples
from stages.training.loop import Step, fit
from stages.training.settings import TrainParams
from stages.training.stability import margin, other_roundings
from tests.conftest import ROOT

LIMIT = 180  # seconds, after which a process counts as hanging
DEFAULTS: dict[str, Any] = {
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 0.0,
    "schedule": "constant",
    "batch_size": 10,
    "iterations": 20,
    "eval_every": 10,
    "seed": 0,
}


def make_params(**changes: Any) -> TrainParams:
    return TrainParams(**DEFAULTS | changes)


def last_step(split: Split, **changes: Any) -> Step:
    """The last step of a run on a split."""
    steps = fit(make_params(**changes), Examples.of(split), len(split.classes))
    (last,) = deque(steps, maxlen=1)
    return last


def final_margin(split: Split, params: TrainParams) -> float:
    """The margin after the last step, from a run and a twin that follows it to the end."""
    run = fit(params, Examples.of(split), len(split.classes))
    twin = fit(params, Examples.of(split), len(split.classes), disturb=other_roundings())
    ((step, other),) = deque(zip(run, twin, strict=True), maxlen=1)
    return margin(step, other)


def save_splits(folder: Path, training: Split, validation: Split) -> list[Path]:
    """Write two splits; return their paths, and the paths that `train` will write to."""
    names = ("train", "validation", "model", "history.csv", "validation.json")
    paths = [folder / name for name in names]
    training.save(paths[0])
    validation.save(paths[1])
    return paths


def start(command: list[str], **environment: str) -> subprocess.Popen[str]:
    """Start a command in a process group of its own."""
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait for a process that `start` started; return what it printed, on both streams.

    A process that runs for longer than LIMIT is killed with its children, and fails the test.
    """
    try:
        return process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
    pytest.fail(f"{process.args!r} did not end within {LIMIT} s:\n{output}{errors}")
