"""Whether this machine computes the committed bytes in every environment that it can offer.

The pipeline of the last commit runs from scratch in a temporary clone, once per environment, and
its outputs are compared with the committed ones. Beside their hashes stands how far the weights are
from rounding differently: the largest difference between their float64 values and those of the
first environment.
"""

import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
import yaml
from numpy.typing import NDArray
from typer import Argument

from stages.base.command import run
from stages.formats.model_file import straddling
from stages.gate.lockfile import Lockfile
from stages.gate.revisions import Revision, git, named

Weights = NDArray[np.float64]

KERNELS = {
    "native": {},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    # MKL heeds its first variable on Intel's processors alone, the second on all.
    "sse4.2": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "MKL_CBWR": "COMPATIBLE",
    },
}


@dataclass(frozen=True)
class Environment:
    """What may differ between two machines: kernels, threads, processes, an interruption."""

    kernels: str
    threads: int
    processes: int = 1
    killed: bool = False

    def __str__(self) -> str:
        name = f"{self.kernels}-{self.threads}-thread{'s' * (self.threads > 1)}"
        processes = f"-{self.processes}-processes" if self.processes > 1 else ""
        return f"{name}{processes}{'-killed' * self.killed}"

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that bring it about."""
        return {
            "OMP_NUM_THREADS": str(self.threads),
            "MKL_NUM_THREADS": str(self.threads),
            "PROCESSES": str(self.processes) if self.processes > 1 else "",
            **KERNELS[self.kernels],
        }


ENVIRONMENTS = [
    *(Environment(kernels, threads) for kernels in KERNELS for threads in (1, 2)),
    *(Environment(kernels, 1, processes) for kernels in KERNELS for processes in (2, 3)),
    *(Environment(kernels, n, killed=True) for kernels in KERNELS for n in (1, 2)),
    Environment("native", 4),
    Environment("native", 2, processes=2),
]


class Clone:
    """The repository in the working folder at `head`, cloned to a temporary folder."""

    def __init__(self, head: Revision, folder: Path) -> None:
        lockfile = Lockfile.load(head)
        options = lockfile.options("train")
        inputs = [name for name in options if name in ("--params", "--train", "--validation")]
        self.folder = folder
        self.train_options = [part for option in options.items() for part in option]
        self.input_options = [part for name in inputs for part in (name, options[name])]
        # The folder of plots has no hash of its own, but dvc.lock, which is compared too, has one.
        stages = [lockfile.lock.stages[name] for name in ("train", "evaluate")]
        self.outs = sorted(o.path for stage in stages for o in stage.outs if Path(o.path).suffix)
        cloned = git("clone", "--quiet", str(Path.cwd()), str(folder))
        if cloned.returncode:
            raise ValueError(f"git cannot clone {Path.cwd()}: {cloned.stderr.decode().strip()}")
        for tracked in git("ls-files", "-z", "*.dvc").stdout.decode().split("\0")[:-1]:
            copy_tracked_data(Path(tracked), folder)  # pictures of one's own are not in git
        self.variables = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        # Where the files of the data set are here already, the clone copies and checks them.
        raw = Path.cwd() / lockfile.lock.stages["download"].outs[0].path
        if raw.is_dir():
            self.variables["DATASET_MIRROR"] = str(raw)

    def run(self, environment: Environment, *command: str, exits: int = 0) -> str:
        """Run a command in the clone; its output. Raises ValueError unless it exits as expected."""
        result = subprocess.run(
            command,
            cwd=self.folder,
            env=os.environ | self.variables | environment.variables,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != exits:
            print(result.stdout, result.stderr, sep="", file=sys.stderr)
            raise ValueError(
                f"{environment}: {shlex.join(command)}: found exit code {result.returncode};"
                f" expected {exits}; its output stands above"
            )
        return result.stdout

    def repro(self, environment: Environment) -> None:
        """Run every stage; if the environment says so, training is killed first and resumed."""
        if environment.killed:
            self.run(environment, "dvc", "repro", "tensorize")
            interrupted = (sys.executable, "-m", "stages.training.interruption")
            self.run(environment, *interrupted, *self.train_options, exits=-signal.SIGKILL)
        output = self.run(environment, "dvc", "repro", "--force")
        if environment.killed and "resuming after iteration" not in output:
            print(output, file=sys.stderr)
            raise ValueError(
                f"{environment}: the killed training was not resumed; its output stands above"
            )

    def weights(self, environment: Environment) -> Weights:
        """The float64 weights and biases that training ends with, (K * D + K,)."""
        file = self.folder.with_name("weights.npy")
        command = (sys.executable, "-m", "stages.training.exact_weights", *self.input_options)
        resume = ("--resume",) if environment.killed else ()
        self.run(environment, *command, "--weights", str(file), *resume)
        weights: Weights = np.load(file)
        return weights

    def differing(self, environment: Environment) -> list[str]:
        """The files, dvc.lock among them, that differ from the committed ones."""
        status = self.run(environment, "git", "status", "--porcelain")
        return [line[3:] for line in status.splitlines()]


def copy_tracked_data(dvc_file: Path, folder: Path) -> None:
    """Copy what a .dvc file of the working folder tracks to the same place in `folder`.

    Raises FileNotFoundError if it is not here.
    """
    for out in yaml.safe_load(dvc_file.read_text(encoding="utf-8"))["outs"]:
        source = dvc_file.parent / out["path"]
        if source.is_dir():
            shutil.copytree(source, folder / source)
        elif source.is_file():
            shutil.copyfile(source, folder / source)
        else:
            raise FileNotFoundError(
                f"{source} is not here, though {dvc_file} records it; `dvc pull` fetches it if a"
                " remote has it"
            )


def verify(head: Revision, environments: Mapping[str, Environment]) -> int:
    """Print one row per environment, then the margin; return how many environments differ."""
    weights: list[Weights] = []
    wrong = 0
    width = max(map(len, [*environments, "environment"]))
    with tempfile.TemporaryDirectory() as scratch:
        clone = Clone(head, Path(scratch, "clone"))
        titles = "  ".join(f"{Path(out).name[:18]:18}" for out in clone.outs)
        print("SHA-256 of each file (first 12 digits); largest difference of the float64 weights")
        print(f"{'environment':{width}}  {titles}  difference")
        for name, environment in environments.items():
            clone.repro(environment)
            differing = clone.differing(environment)
            contents = [(clone.folder / out).read_bytes() for out in clone.outs]
            digests = "  ".join(f"{hashlib.sha256(c).hexdigest()[:12]:18}" for c in contents)
            weights.append(clone.weights(environment))
            largest = np.abs(weights[-1] - weights[0]).max()
            verdict = f"  DIFFERS: {', '.join(differing)}" if differing else ""
            print(f"{name:{width}}  {digests}  {largest:.1e}{verdict}", flush=True)
            wrong += bool(differing)
    count = len(environments)
    print(f"{count - wrong} of {count} environments gave the committed files, dvc.lock included")
    if pairs := [straddling(one, other) for one, other in combinations(weights, 2)]:
        print(
            f"of {len(weights[0])} weights, two environments are expected to round"
            f" {np.mean(pairs):.1e} differently on average, {max(pairs):.1e} at most"
        )
    return wrong


def main(
    names: Annotated[
        list[str] | None,
        Argument(metavar="[ENVIRONMENT]...", help="by default all twenty, named as in the table"),
    ] = None,
) -> None:
    """Verify that this machine computes what is committed, in every environment.

    Run it in the root of the repository. Exit codes: 0 every environment gave the committed bytes;
    1 one did not; 2 not verified, with the reason.
    """
    known = {str(environment): environment for environment in ENVIRONMENTS}
    if unknown := [name for name in names or [] if name not in known]:
        raise ValueError(f"found the environment {unknown[0]}; expected one of {', '.join(known)}")
    head = named("HEAD")
    if changes := git("status", "--porcelain").stdout.splitlines():
        print(f"note: {len(changes)} uncommitted changes are left out; HEAD is what is verified")
    if verify(head, {name: known[name] for name in names or known}):
        raise typer.Exit(1)


if __name__ == "__main__":
    run(main)
