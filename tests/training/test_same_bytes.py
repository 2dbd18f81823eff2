"""Training gives the same bytes in every environment: threads, kernels, processes, kills."""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml

from stages.verify import KERNELS
from tests.pipelines import PARAMS
from tests.splits import pixel_split
from tests.training.runs import LIMIT, finish, start

pytestmark = pytest.mark.slow

Published = dict[str, list[list[str]]]
Arguments = Callable[[Path], list[str]]


@cache
def published(split: Path, kernels: str, threads: int, processes: int = 1) -> Published:
    """For each precision, the model's hash and the history of each run of `fit_all`."""
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    process = start(
        [
            *(sys.executable, *(several if processes > 1 else [])),
            *("-m", "tests.training.fit_all", str(split)),
        ],
        OMP_NUM_THREADS=str(threads),
        **KERNELS[kernels],
    )
    output, errors = finish(process)
    assert process.returncode == 0, errors
    (line,) = [line for line in output.splitlines() if line.startswith("published ")]
    found: Published = json.loads(line.removeprefix("published "))
    return found


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("split") / "split.safetensors"
    images = np.random.default_rng(0).integers(0, 256, (500, 1, 14, 14), np.uint8)
    labels = (images[:, 0, 3, 3].astype(np.int64) + images[:, 0, 9, 4]) * 5 // 511
    pixel_split(images, labels, tuple("abcde")).save(path)
    return path


@pytest.mark.parametrize(
    ("kernels", "threads", "processes"),
    [("native", 2, 1), ("avx2", 1, 1), ("sse4.2", 2, 1), ("native", 1, 3)],
)
def test_every_optimizer_and_schedule_publishes_the_same_bytes_in_every_environment(
    split: Path, kernels: str, threads: int, processes: int
) -> None:
    reference = published(split, "native", threads=1)["float64"]
    assert len({model for model, *_ in reference}) == 12
    assert published(split, kernels, threads, processes)["float64"] == reference


def test_training_in_float32_would_publish_other_bytes(split: Path) -> None:
    one, other = published(split, "native", 1), published(split, "sse4.2", 2)
    pairs = zip(one["float32"], other["float32"], strict=True)
    assert sum(native[0] != sse[0] for native, sse in pairs) >= 6  # of 12 runs


@pytest.fixture(scope="module")
def arguments(split: Path, tmp_path_factory: pytest.TempPathFactory) -> Arguments:
    """The arguments of `stages.train` for a run of about a second, with its outputs in a folder."""
    params = yaml.safe_load(PARAMS.read_text())
    params["train"] |= {"iterations": 6000, "eval_every": 1000, "batch_size": 32}
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    path.write_text(yaml.safe_dump(params))

    def to(folder: Path) -> list[str]:
        inputs = ["--params", str(path), "--train", str(split), "--validation", str(split)]
        outputs = ("model", "history", "metrics")
        return [*inputs, *(part for name in outputs for part in (f"--{name}", str(folder / name)))]

    return to


def start_training(arguments: list[str]) -> subprocess.Popen[str]:
    return start([sys.executable, "-m", "tests.training.keep_often", *arguments])


def wait_for_state(folder: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a run that has just been started has written a checkpoint."""
    began, deadline = time.time_ns(), time.monotonic() + LIMIT
    while not any(file.stat().st_mtime_ns > began for file in folder.glob(".model.*.resume")):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"the run kept no state: {process.communicate()}")
        time.sleep(0.01)


def outputs(folder: Path) -> dict[str, bytes]:
    paths = [folder / name for name in ("model", "history", "metrics")]
    return {path.name: path.read_bytes() for path in paths if path.exists()}


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, arguments: Arguments
) -> tuple[dict[str, bytes], float]:
    """The outputs of a run that is not interrupted, and the seconds that it takes."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    began = time.monotonic()
    process = start_training(arguments(folder))
    finish(process)
    assert process.returncode == 0
    assert sorted(path.name for path in folder.iterdir()) == ["history", "metrics", "model"]
    return outputs(folder), time.monotonic() - began


def test_killing_train_at_any_moment_changes_no_byte(
    tmp_path: Path, arguments: Arguments, uninterrupted: tuple[dict[str, bytes], float]
) -> None:
    expected, seconds = uninterrupted
    moments = random.Random(0)  # noqa: S311  # not for secrets
    for _ in range(5):
        process = start_training(arguments(tmp_path))
        time.sleep(moments.uniform(0, 1.1 * seconds))
        process.kill()
        finish(process)
        assert outputs(tmp_path).items() <= expected.items()
    process = start_training(arguments(tmp_path))
    assert finish(process)[1] == ""
    assert process.returncode == 0
    assert outputs(tmp_path) == expected
    left = [path.name for path in tmp_path.iterdir() if not path.name.endswith(".part")]
    assert sorted(left) == ["history", "metrics", "model"]


def test_a_stopped_run_exits_with_its_signals_code_and_can_be_resumed(
    tmp_path: Path, arguments: Arguments, uninterrupted: tuple[dict[str, bytes], float]
) -> None:
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = start_training(arguments(tmp_path))
        wait_for_state(tmp_path, process)
        process.send_signal(number)
        finish(process)
        assert process.returncode == code
        assert outputs(tmp_path) == {}
    output, errors = finish(start_training(arguments(tmp_path)))
    assert "resuming after iteration" in output
    assert errors == ""
    assert outputs(tmp_path) == uninterrupted[0]


@pytest.mark.parametrize("change", ["another seed", "a flipped bit"])
def test_a_checkpoint_of_another_run_is_not_resumed(
    tmp_path: Path,
    arguments: Arguments,
    uninterrupted: tuple[dict[str, bytes], float],
    change: str,
) -> None:
    process = start_training(arguments(tmp_path))
    wait_for_state(tmp_path, process)
    process.kill()
    finish(process)
    changed = arguments(tmp_path)
    if change == "another seed":
        params = yaml.safe_load(Path(changed[1]).read_text())
        params["train"]["seed"] = 1
        changed[1] = str(tmp_path / "other params")
        Path(changed[1]).write_text(yaml.safe_dump(params))
    else:
        (state,) = tmp_path.glob(".model.*.resume")
        content = bytearray(state.read_bytes())
        content[len(content) // 2] ^= 1
        state.write_bytes(content)
    process = start_training(changed)
    output, errors = finish(process)
    assert process.returncode == 0
    assert "resuming" not in output
    assert ("damaged checkpoint" in errors) == (change == "a flipped bit")
    assert (outputs(tmp_path) == uninterrupted[0]) == (change == "a flipped bit")
    assert not list(tmp_path.glob("*.resume"))


def test_a_full_disk_is_reported_in_one_line_and_loses_nothing(
    tmp_path: Path, arguments: Arguments
) -> None:
    (tmp_path / "model").write_text("an older model")
    small_files = ["sh", "-c", 'ulimit -f 2 && exec "$@"', "sh"]
    training = [sys.executable, "-m", "tests.training.keep_often", *arguments(tmp_path)]
    process = start([*small_files, *training])
    *warnings, error = finish(process)[1].splitlines()
    assert process.returncode == 2
    assert error.startswith("error: ")
    assert all(line.startswith("the checkpoint cannot be written") for line in warnings)
    assert (tmp_path / "model").read_text() == "an older model"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
