"""Training gives the same bytes under every environment: threads, kernels, processes, kills."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from stages.formats.split_file import LabelledImages
from stages.verify import KERNELS
from tests.conftest import ROOT

Make = Callable[..., LabelledImages]

# Keeps the state often enough to be killed with one, whatever the length of the run.
KEEP_OFTEN = """
import runpy, sys
import stages.training.checkpoint
stages.training.checkpoint.SECONDS = 0.2
runpy.run_module("stages.train", run_name="__main__", alter_sys=True)
"""

# Prints the hash of the model and of the history for every optimizer and schedule; with `float32`,
# the same loop in float32.
FIT_ALL = """
import hashlib, json, sys
from pathlib import Path
import torch
from stages import train
from stages.formats.split_file import LabelledImages
from stages.formats.model_file import LogisticRegression, pixels
from stages.training.processes import joined_processes

path, precision = sys.argv[1:]
if precision == "float32":
    class Single(LogisticRegression):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.float()
        def forward(self, images):
            return train.log_probabilities(self.weight, self.bias, pixels(images).float())
    train.LogisticRegression = Single
    train.pixels = lambda images: pixels(images).float()

split = LabelledImages.load(Path(path))
digests = {}
with joined_processes(train.CPU) as processes:
    for optimizer, nesterov in (("sgd", False), ("sgd", True), ("adam", False), ("adamw", False)):
        for schedule in ("constant", "linear", "cosine"):
            params = train.TrainParams(
                optimizer=optimizer, nesterov=nesterov, schedule=schedule, momentum=0.9,
                learning_rate=0.1 if optimizer == "sgd" else 0.01, weight_decay=0.001,
                batch_size=32, iterations=60, eval_every=30, seed=0)
            history = []
            model = train.fit(params, train.Splits(split, split), history.append,
                              processes=processes)
            rows = [f"{row.training_loss:.6f} {row.validation_accuracy:.6f}" for row in history]
            digests[f"{optimizer} {nesterov} {schedule}"] = [
                hashlib.sha256(model.serialized({})).hexdigest(), *rows]
    if processes.first:
        print("digests", json.dumps(digests))
"""


def digests(
    split: Path, kernels: str, threads: int, processes: int = 1, precision: str = "float64"
) -> dict[str, list[str]]:
    python = [sys.executable, "-c", FIT_ALL, str(split), precision]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python"]
    several = [*torchrun, "--nproc-per-node", str(processes)] if processes > 1 else []
    result = subprocess.run(
        [*several, *python],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)} | KERNELS[kernels],
        capture_output=True,
        text=True,
        check=False,
    )
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("digests")] or [
        pytest.fail(result.stderr)
    ]
    found: dict[str, list[str]] = json.loads(line.removeprefix("digests"))
    return found


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("split") / "split.safetensors"
    made = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, torch; from pathlib import Path;"
            "from stages.formats.split_file import LabelledImages;"
            "g = torch.Generator().manual_seed(0);"
            "images = torch.randint(0, 256, (500, 1, 14, 14), dtype=torch.uint8, generator=g);"
            "labels = (images[:, 0, 3, 3].long() + images[:, 0, 9, 4]) * 5 // 511;"
            "LabelledImages(images, labels, tuple('abcde')).save(Path(sys.argv[1]))",
            str(path),
        ],
        cwd=ROOT,
        check=True,
    )
    assert made.returncode == 0
    return path


@pytest.fixture(scope="module")
def reference(split: Path) -> dict[str, list[str]]:
    found = digests(split, "native", threads=1)
    assert len(found) == 12
    assert len({row[0] for row in found.values()}) == 12
    return found


@pytest.mark.parametrize(
    ("kernels", "threads", "processes"),
    [
        ("native", 2, 1),
        ("avx2", 1, 1),
        ("avx2", 2, 1),
        ("sse4.2", 1, 1),
        ("sse4.2", 2, 1),
        ("native", 1, 2),
        ("native", 1, 3),
        ("sse4.2", 1, 3),
    ],
)
def test_every_optimizer_and_schedule_gives_the_same_bytes(
    split: Path, reference: dict[str, list[str]], kernels: str, threads: int, processes: int
) -> None:
    assert digests(split, kernels, threads, processes) == reference


def test_float32_would_not(split: Path) -> None:
    one = digests(split, "native", threads=1, precision="float32")
    other = digests(split, "sse4.2", threads=2, precision="float32")
    assert all(one[name][0] != other[name][0] for name in one)


@pytest.fixture(scope="module")
def arguments(split: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], list[str]]:
    """The arguments of `stages.train` for a run of about a second, its outputs in a folder."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["train"] |= {"iterations": 4000, "eval_every": 1000, "batch_size": 32}
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    path.write_text(yaml.safe_dump(params))

    def to(folder: Path) -> list[str]:
        inputs = ["--params", str(path), "--train", str(split), "--validation", str(split)]
        return [*inputs, "--model", str(folder / "model"), "--history", str(folder / "history")]

    return to


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", KEEP_OFTEN, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outputs(folder: Path) -> dict[str, str]:
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("model", "history")
        if (folder / name).exists()
    }


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, arguments: Callable[[Path], list[str]]
) -> tuple[dict[str, str], float]:
    """What a run makes that nobody stops, and the seconds that it takes."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    began = time.monotonic()
    process = start(arguments(folder))
    process.communicate()
    assert process.returncode == 0
    assert sorted(path.name for path in folder.iterdir()) == ["history", "model"]
    return outputs(folder), time.monotonic() - began


@pytest.mark.parametrize("seed", range(5))
def test_kills_at_any_moment_change_no_byte(
    tmp_path: Path,
    arguments: Callable[[Path], list[str]],
    uninterrupted: tuple[dict[str, str], float],
    seed: int,
) -> None:
    expected, seconds = uninterrupted
    moments = random.Random(seed)  # noqa: S311  # no secret
    for _ in range(6):
        process = start(arguments(tmp_path))
        time.sleep(moments.uniform(0, 1.1 * seconds))
        process.kill()
        process.communicate()
        made = outputs(tmp_path)
        assert made.items() <= expected.items()
    process = start(arguments(tmp_path))
    assert process.communicate()[1] == ""
    assert process.returncode == 0
    assert outputs(tmp_path) == expected
    left = [path.name for path in tmp_path.iterdir() if not path.name.endswith(".part")]
    assert sorted(left) == ["history", "model"]


def wait_for_state(folder: Path) -> None:
    while not list(folder.glob(".model.*.resume")):
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_so_and_goes_on_where_it_was(
    tmp_path: Path,
    arguments: Callable[[Path], list[str]],
    uninterrupted: tuple[dict[str, str], float],
    number: signal.Signals,
    code: int,
) -> None:
    process = start(arguments(tmp_path))
    wait_for_state(tmp_path)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == code
    assert outputs(tmp_path) == {}
    process = start(arguments(tmp_path))
    assert "going on after iteration" in process.communicate()[0]
    assert outputs(tmp_path) == uninterrupted[0]


def test_a_run_with_other_params_does_not_go_on_from_there(
    tmp_path: Path, arguments: Callable[[Path], list[str]]
) -> None:
    process = start(arguments(tmp_path))
    wait_for_state(tmp_path)
    process.kill()
    process.communicate()
    changed = arguments(tmp_path)
    params = yaml.safe_load(Path(changed[1]).read_text())
    params["train"]["seed"] = 1
    changed[1] = str(tmp_path / "other params")
    Path(changed[1]).write_text(yaml.safe_dump(params))
    process = start(changed)
    assert "going on" not in process.communicate()[0]
    assert process.returncode == 0
    assert not list(tmp_path.glob("*.resume"))


SMALL_FILES = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"


def test_a_full_disk_is_one_line_and_loses_nothing(
    tmp_path: Path, arguments: Callable[[Path], list[str]]
) -> None:
    (tmp_path / "model").write_text("an older model")
    process = subprocess.Popen(
        [sys.executable, "-c", SMALL_FILES + KEEP_OFTEN, *arguments(tmp_path)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    *warnings, error = process.communicate()[1].splitlines()
    assert process.returncode == 2
    assert error.startswith("error: ")
    assert all(line.startswith("the state could not be kept") for line in warnings)
    assert (tmp_path / "model").read_text() == "an older model"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
