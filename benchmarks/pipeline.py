"""What the pipeline's commands take, relative to what they cannot do without.

Everything runs in a scratch copy of the working tree with a DVC cache of its own: nothing in the
tree, its cache or its lock is touched.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copy2
from statistics import median
from time import perf_counter

from benchmarks.memory import peak_megabytes

PYTHON = sys.executable
REPETITIONS = 5
BARE_TORCH = [PYTHON, "-c", "import torch"]
DVC = [PYTHON, "-m", "dvc"]
TRAIN = [
    *(PYTHON, "-m", "stages.train", "--params", "params.yaml"),
    *("--train", "data/tensors/train.safetensors"),
    *("--validation", "data/tensors/validation.safetensors"),
    *("--model", "scratch/model.safetensors", "--history", "scratch/history.csv"),
]


@dataclass(frozen=True)
class Pipeline:
    """Medians.

    megabytes: peak memory of `train` above that of `import torch`.
    Seconds of: `import torch` in a fresh process; `dvc repro` after a change of
    train.learning_rate; `dvc repro` with nothing to do; the same on an empty pipeline.
    """

    megabytes: float
    bare_torch: float
    changed: float
    no_op: float
    empty_no_op: float


@dataclass(frozen=True)
class Ran:
    """A finished process: its output and what it took."""

    output: str
    seconds: float
    megabytes: float


def run(command: Sequence[str], folder: Path) -> Ran:
    """Run `command` in `folder`; raises RuntimeError with its output if it fails.

    `python` is this interpreter, and DVC keeps nothing outside `folder`.
    """
    environment = os.environ | {
        "PATH": f"{Path(PYTHON).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_SITE_CACHE_DIR": str(folder / ".dvc" / "site"),
    }
    with tempfile.TemporaryFile("w+") as output:
        started = perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        # wait4 counts this child alone, getrusage(RUSAGE_CHILDREN) the largest of all.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}\n{text}")
    return Ran(text, seconds, peak_megabytes(usage))


def repository(folder: Path) -> None:
    """Commit all that is in `folder` to a new git repository, as in a fresh clone."""
    me = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost"]
    run(["git", "init", "--quiet"], folder)
    run(["git", "add", "--all"], folder)
    run(["git", *me, "commit", "--quiet", "--no-gpg-sign", "--message", "benchmark"], folder)


@contextmanager
def copy_of_working_tree() -> Iterator[Path]:
    """A scratch repository with the working tree's files, and its data from its DVC cache."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in subprocess.check_output(listed, text=True).split("\0"):
            if Path(name).is_file():  # not deleted since
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                copy2(name, folder / name)
        repository(folder)
        # A cache has the layout of a remote: pull takes from it what dvc.lock names, and no more.
        cache = subprocess.check_output([*DVC, "cache", "dir"], text=True).strip()
        run([*DVC, "remote", "add", "--local", "tree", str(Path(cache).resolve())], folder)
        run([*DVC, "pull", "--remote", "tree"], folder)
        run([*DVC, "remote", "remove", "--local", "tree"], folder)
        yield folder


@contextmanager
def empty_pipeline() -> Iterator[Path]:
    """A scratch repository with our DVC settings and no stages: DVC's own overhead."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in (".dvc/config", ".dvc/.gitignore", ".dvcignore"):
            (folder / name).parent.mkdir(exist_ok=True)
            copy2(name, folder / name)
        (folder / "dvc.yaml").write_text("stages: {}\n")
        repository(folder)
        yield folder


def change_learning_rate(params: Path, repetition: int) -> None:
    """Write a learning rate that no run has had, so that DVC's run cache cannot help."""
    text, found = re.subn(
        r"learning_rate: \S+", f"learning_rate: 0.00{repetition + 1}1", params.read_text()
    )
    if found != 1:
        raise RuntimeError(f"{params}: expected one learning_rate, found {found}")
    params.write_text(text)


def stages_run(output: str) -> list[str]:
    """The stages that `dvc repro` says it ran."""
    return re.findall(r"Running stage '(\w+)'", output)


def repro(folder: Path, expected: Sequence[str]) -> float:
    """Seconds of `dvc repro`; raises RuntimeError if it ran other stages than `expected`."""
    ran = run([*DVC, "repro"], folder)
    if stages_run(ran.output) != expected:
        raise RuntimeError(
            f"dvc repro ran {stages_run(ran.output)}, expected {expected};"
            " run `dvc repro` before the benchmarks"
        )
    return ran.seconds


def measure() -> Pipeline:
    """All figures; the runs take turns, so that a busy minute affects each of them."""
    memory, bare_torch, changed, no_op, empty_no_op = [], [], [], [], []
    with copy_of_working_tree() as tree, empty_pipeline() as empty:
        repro(tree, [])  # fills DVC's own state of both
        repro(empty, [])
        for repetition in range(REPETITIONS):
            print(f"pipeline, {repetition + 1} of {REPETITIONS}", file=sys.stderr)
            bare = run(BARE_TORCH, tree)
            bare_torch.append(bare.seconds)
            memory.append(run(TRAIN, tree).megabytes - bare.megabytes)
            change_learning_rate(tree / "params.yaml", repetition)
            changed.append(repro(tree, ["train", "evaluate"]))
            no_op.append(repro(tree, []))
            empty_no_op.append(repro(empty, []))
    return Pipeline(*map(median, (memory, bare_torch, changed, no_op, empty_no_op)))
