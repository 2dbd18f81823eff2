"""The state of an unfinished run, so that it can resume where it was stopped.

It is kept next to the run's output, in a file that git and DVC ignore. The file is written whole or
not at all, named by a hash of everything that affects the result, and removed when the run ends. It
begins with the SHA-256 of the rest. A run of a few seconds writes none, because starting over is
quicker.
"""

import glob
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from stages.base.command import message
from stages.base.params import Params
from stages.base.whole_files import write_bytes

SECONDS = 10.0  # before the first checkpoint, and at least between two
CODE = Path(__file__).parents[1]
DIGEST = hashlib.sha256().digest_size  # bytes
SHARE = 0.01  # of the run's time, at most, is spent on checkpoints


@dataclass(frozen=True)
class State:
    """How far a run has got: steps done, the tensors the next step needs, the history so far."""

    iteration: int
    tensors: Sequence[Tensor]
    report: Any


def run_key(params: Params, inputs: Iterable[Path]) -> str:
    """A hash of what affects a run's result: its params, its inputs, our code, torch's version."""
    digest = hashlib.sha256(f"{params.model_dump_json()} torch {version('torch')}".encode())
    for path in [*inputs, *sorted(CODE.rglob("*.py"))]:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


class Checkpoint:
    """The file next to `output` for the run that `key()` identifies; called only if needed."""

    def __init__(self, output: Path, key: Callable[[], str]) -> None:
        self._output = output
        self._key = key
        self._path: Path | None = None
        self._due = time.monotonic() + SECONDS

    def _files(self) -> list[Path]:
        name = glob.escape(self._output.name)
        return list(self._output.parent.glob(f".{name}.*.resume"))

    @property
    def path(self) -> Path:
        """The file's name, with the key's first 16 digits in it."""
        if self._path is None:
            self._path = self._output.with_name(f".{self._output.name}.{self._key()[:16]}.resume")
        return self._path

    def load(self) -> State | None:
        """Read the state that an earlier run with the same key left; None if there is none.

        A damaged file is ignored, with a line on standard error.
        """
        if not self._files() or not self.path.is_file():
            return None
        content = self.path.read_bytes()
        if hashlib.sha256(content[DIGEST:]).digest() != content[:DIGEST]:
            print(
                f"{self.path}: found a damaged checkpoint; expected one that matches its checksum;"
                " the run starts over",
                file=sys.stderr,
            )
            return None
        tensors = load(content[DIGEST:])
        about = json.loads(bytes(tensors.pop("about").tolist()))
        saved = [tensors[f"{i}"] for i in range(len(tensors))]
        return State(about["iteration"], saved, about["report"])

    @property
    def due(self) -> bool:
        """Whether it is time to write a checkpoint."""
        return time.monotonic() >= self._due

    def keep(self, state: State) -> None:
        """Write the state; if the disk is full, the run goes on without it."""
        start = time.monotonic()
        tensors = {f"{i}": tensor.cpu() for i, tensor in enumerate(state.tensors)}
        about = json.dumps({"iteration": state.iteration, "report": state.report}).encode()
        tensors["about"] = torch.tensor(list(about), dtype=torch.uint8)
        content: bytes = save(tensors)
        try:
            write_bytes(self.path, hashlib.sha256(content).digest() + content)
        except (OSError, ValueError) as error:
            print(
                f"the checkpoint cannot be written; the run goes on: {message(error)}",
                file=sys.stderr,
            )
        end = time.monotonic()
        self._due = end + max(SECONDS, (end - start) / SHARE)

    def remove(self) -> None:
        """Delete the checkpoints of this run, and of runs that were abandoned, if possible."""
        for file in self._files():
            with suppress(OSError):  # the results are there; the next run tries again
                file.unlink()
