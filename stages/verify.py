"""Whether this machine computes the bytes of dvc.lock, under every environment it can offer.

The last commit's pipeline is run from nothing in a temporary clone, once an environment, and what
comes out is compared with what is committed. Beside the hashes stands how far the weights were from
rounding differently: the largest difference of their float64 values from the first environment's.
"""

import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import typer
import yaml
from numpy.typing import NDArray

from stages.base.command import run

Weights = NDArray[np.float64]

KERNELS = {
    "native": {},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    # MKL heeds the first only on Intel's processors, and the second on all.
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
        processes = "killed, resumed" if self.killed else f"{self.processes} processes"
        return f"{self.kernels:7}  {self.threads} threads  {processes:15}"

    def variables(self) -> dict[str, str]:
        """The environment variables that make it so."""
        return {
            "OMP_NUM_THREADS": str(self.threads),
            "MKL_NUM_THREADS": str(self.threads),
            "TRAIN_PROCESSES": str(self.processes),
            **KERNELS[self.kernels],
        }


ENVIRONMENTS = [
    *(Environment(kernels, threads) for kernels in KERNELS for threads in (1, 2)),
    *(Environment(kernels, 1, processes) for kernels in KERNELS for processes in (2, 3)),
    *(Environment(kernels, n, killed=True) for kernels in KERNELS for n in (1, 2)),
    Environment("native", 4),
    Environment("native", 2, processes=2),
]

# Runs in the clone, and so it imports the clone's code.
FIT = """
import sys
from pathlib import Path
import numpy
from stages.training.checkpoint import State
from stages.formats.model_file import use_threads
from stages.training.processes import joined_processes
from stages.train import CPU, TrainParams, fit, read_splits

params_path, train, validation, out, interrupted = sys.argv[1:]
params = TrainParams.load(Path(params_path), "train")
splits = read_splits(Path(train), Path(validation))
use_threads(params.batch_size, splits.training.image_shape, splits.training.classes)
states = []
def keep(done, tensors):
    if done == params.iterations // 2:
        states.append(State(done, [tensor.clone() for tensor in tensors], None))
with joined_processes(CPU) as processes:
    model = fit(params, splits, None, keep, processes=processes)
    if interrupted == "True":
        model = fit(params, splits, resume=states[0], processes=processes)
    if processes.first:
        weights = [model.weight.flatten().numpy(), model.bias.numpy()]
        numpy.save(out, numpy.concatenate(weights))
"""

# Keeps the state often enough to be killed with one, whatever the length of the run.
KEEP_OFTEN = """
import runpy, sys
import stages.training.checkpoint
stages.training.checkpoint.SECONDS = 0.2
runpy.run_module("stages.train", run_name="__main__", alter_sys=True)
"""


class Clone:
    """The last commit of the repository in the working folder, cloned to a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        source = Path.cwd()
        cloned = subprocess.run(["git", "clone", "--quiet", source, folder], check=False)
        if cloned.returncode:
            raise ValueError(f"{source}: cannot be cloned; git has said why")
        stages = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
        self.train_arguments: list[str] = shlex.split(stages["train"]["cmd"])[3:]
        options = dict(zip(self.train_arguments[::2], self.train_arguments[1::2], strict=True))
        self.inputs = [options[name] for name in ("--params", "--train", "--validation")]
        self.model = folder / options["--model"]
        outs = [out for stage in ("train", "evaluate") for out in _files(stages[stage])]
        # The files: the folder of plots has its hash in dvc.lock, which is compared as well.
        self.outs = [path for path in sorted(outs) if Path(path).suffix]
        # The clone takes the data set's files from here where they are, and checks them.
        raw = source / stages["download"]["outs"][0]
        self.variables = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        if raw.is_dir():
            self.variables["DATASET_MIRROR"] = str(raw)

    def run(self, command: list[str], environment: Environment) -> str:
        """Run a command in the clone; raises ValueError, with what it printed, if it fails."""
        result = subprocess.run(
            command,
            cwd=self.folder,
            env=os.environ | self.variables | environment.variables(),
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise ValueError(f"{shlex.join(command)} failed:\n{result.stdout}{result.stderr}")
        return result.stdout

    def repro(self, environment: Environment) -> None:
        """Run every stage, the training killed half way and started again if that is asked."""
        if environment.killed:
            self._kill_training(environment)
        output = self.run(["dvc", "repro", "--force"], environment)
        if environment.killed and "going on after iteration" not in output:
            raise ValueError(f"the killed training was not resumed:\n{output}")

    def _kill_training(self, environment: Environment) -> None:
        training = subprocess.Popen(
            [sys.executable, "-c", KEEP_OFTEN, *self.train_arguments],
            cwd=self.folder,
            env=os.environ | environment.variables(),
            stdout=subprocess.DEVNULL,
        )
        while not list(self.model.parent.glob("*.resume")) and training.poll() is None:
            time.sleep(0.01)
        training.kill()
        training.wait()

    def weights(self, environment: Environment) -> Weights:
        """The float64 weights and biases, (K * D + K,), that a run ends with."""
        out = self.folder.with_name("weights.npy")
        python = [sys.executable, "-c", FIT, *self.inputs, str(out), str(environment.killed)]
        several = ["torchrun", "--standalone", "--no-python", "--nproc-per-node"]
        many = environment.processes > 1
        command = [*several, str(environment.processes), *python] if many else python
        self.run(command, environment)
        weights: Weights = np.load(out)
        return weights

    def differing(self, environment: Environment) -> list[str]:
        """The committed files, dvc.lock among them, that came out differently."""
        status = self.run(["git", "status", "--porcelain"], environment)
        return [line[3:] for line in status.splitlines()]


def _files(stage: dict[str, list[str | dict[str, object]]]) -> list[str]:
    """The paths of a stage's outs, metrics and plots."""
    entries = [entry for key in ("outs", "metrics", "plots") for entry in stage.get(key, [])]
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def straddling(one: Weights, other: Weights) -> float:
    """The expected number of weights that round to different float32 values in two runs.

    Two float64 values a distance d apart lie on different sides of a rounding boundary with
    probability d / s, where s is the step between float32 values there. (N,), (N,) -> the sum.
    """
    steps = np.spacing(np.abs(one).astype(np.float32)).astype(np.float64)
    return float((np.abs(one - other) / steps).sum())


def verify() -> int:
    """Print one row an environment and the margin; return how many environments differ."""
    with tempfile.TemporaryDirectory() as scratch:
        clone = Clone(Path(scratch, "clone"))
        names = [Path(out).name for out in clone.outs]
        width = len(str(ENVIRONMENTS[0]))
        print("SHA-256 of each file (first 12 digits); largest difference of the float64 weights")
        print(f"{'environment':{width}}  {'  '.join(f'{n[:18]:18}' for n in names)}  difference")
        weights: list[Weights] = []
        wrong = 0
        for environment in ENVIRONMENTS:
            clone.repro(environment)
            differing = clone.differing(environment)
            digests = [
                hashlib.sha256((clone.folder / out).read_bytes()).hexdigest()[:12]
                for out in clone.outs
            ]
            weights.append(clone.weights(environment))
            largest = np.abs(weights[-1] - weights[0]).max()
            row = f"{environment}  {'  '.join(f'{d:18}' for d in digests)}  {largest:.1e}"
            print(row + (f"  DIFFERS: {', '.join(differing)}" if differing else ""), flush=True)
            wrong += bool(differing)
    pairs = [straddling(one, other) for one, other in combinations(weights, 2)]
    print(
        f"{len(ENVIRONMENTS) - wrong} of {len(ENVIRONMENTS)} environments gave what is committed,"
        f" dvc.lock included\n"
        f"expected number of the {len(weights[0])} weights that round differently, a pair of"
        f" environments: {np.mean(pairs):.1e} on average, {max(pairs):.1e} at most"
    )
    return wrong


def main() -> None:
    """Verify that this machine computes what the last commit promises, in twenty environments.

    Run it in the repository's root. Exit code 1 if one environment gives other bytes.
    """
    if not Path("dvc.lock").is_file() or not Path(".git").exists():
        raise ValueError("no dvc.lock and .git here: run this in the repository's root")
    changed = subprocess.run(
        ["git", "status", "--porcelain"], capture_output=True, text=True, check=False
    ).stdout.splitlines()
    if changed:
        print(f"note: the last commit is verified, without {len(changed)} uncommitted changes")
    if verify():
        raise typer.Exit(1)


if __name__ == "__main__":
    run(main)
