import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stages.formats.split_file import Split
from stages.training.processes import (
    ALONE,
    PeerEnded,
    Processes,
    use_threads,
)
from tests.training.runs import DEFAULTS, finish, save_splits, start

Make = Callable[..., Split]
Train = Callable[..., tuple[int, str, str]]


@given(examples=st.integers(0, 30), count=st.integers(1, 9))
def test_the_parts_of_all_processes_make_up_the_batch(examples: int, count: int) -> None:
    parts = [Processes(rank, count).part(torch.arange(examples)) for rank in range(count)]
    assert sorted(torch.cat(parts).tolist()) == list(range(examples))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_process_leaves_sums_unchanged() -> None:
    tensor = torch.ones(2)
    ALONE.add_up(tensor)
    assert tensor.tolist() == [1, 1]
    assert ALONE.from_first("value") == "value"
    assert ALONE.first


def test_one_thread_is_used_if_there_is_little_work_to_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = torch.get_num_threads()
    small, large = 100 * 784 * 10, 100 * 3 * 224 * 224 * 100
    try:
        for environment, work, expected in ((None, large, 2), ("2", small, 2), (None, small, 1)):
            torch.set_num_threads(2)
            monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
            if environment:
                monkeypatch.setenv("OMP_NUM_THREADS", environment)
            use_threads(work)
            assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def train(tmp_path: Path, make_images: Make) -> Train:
    """Run stages.train on a small split, in as many processes as PROCESSES says.

    It gives the exit code and what was printed on both streams.
    """
    make_images(n=50).save(tmp_path / "split")

    def run(model: str, processes: str, shell: str = "", **changes: Any) -> tuple[int, str, str]:
        params = {
            "train": DEFAULTS | {"iterations": 40, "eval_every": 20, "batch_size": 7} | changes
        }
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
        paths = {"params": "params.yaml", "train": "split", "validation": "split"}
        paths |= {"model": model, "history": f"{model}.csv", "metrics": f"{model}.json"}
        arguments = [a for k, path in paths.items() for a in (f"--{k}", str(tmp_path / path))]
        command = [sys.executable, "-m", "stages.train", *arguments]
        if shell:
            command = ["sh", "-c", f'exec "$@" {shell}', "sh", *command]
        process = start(command, PROCESSES=processes)
        output, errors = finish(process)
        return process.returncode, output, errors

    return run


@pytest.mark.slow
def test_train_processes_changes_no_output_byte_and_no_printed_line(
    tmp_path: Path, train: Train
) -> None:
    alone, shared = train("one", "1"), train("two", "2")
    assert alone[0] == shared[0] == 0, shared[2]
    assert alone[1] == shared[1]
    assert shared[2] == ""
    for name in ("", ".csv"):
        assert (tmp_path / f"one{name}").read_bytes() == (tmp_path / f"two{name}").read_bytes()


@pytest.mark.parametrize(
    ("processes", "changes", "problem"),
    [
        ("no", {}, "PROCESSES: found 'no'"),
        ("2", {"learning_rate": 1e308}, "iteration 2: the loss is"),
    ],
)
def test_bad_input_is_reported_once_and_not_by_each_process(
    train: Train, processes: str, changes: dict[str, Any], problem: str
) -> None:
    code, _, errors = train("model", processes, ">&-", **changes)
    (line,) = errors.splitlines()
    assert code == 2
    assert line.startswith("error: ")
    assert problem in line


def test_several_processes_need_no_standard_streams(tmp_path: Path, train: Train) -> None:
    assert train("model", "2", ">&- 2>&-") == (0, "", "")
    assert (tmp_path / "model").is_file()


def test_an_ended_peer_is_no_bug_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> NoReturn:
        raise RuntimeError("Connection closed by peer")

    for name in ("all_reduce", "broadcast_object_list"):
        monkeypatch.setattr(torch.distributed, name, broken)
    with pytest.raises(PeerEnded, match="another process of this run has ended: Connection"):
        Processes(0, 2).add_up(torch.ones(2))
    with pytest.raises(PeerEnded, match="another process"):
        Processes(0, 2).from_first("value")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "killed", "code", "errors"),
    [
        (signal.SIGKILL, "a process", 2, "error: one of 2 processes was killed by SIGKILL: out of"),
        (signal.SIGTERM, "torchrun", 143, ""),
        (signal.SIGINT, "torchrun", 130, ""),
    ],
)
def test_a_signal_to_several_processes_ends_them_all_in_one_line_at_most(
    tmp_path: Path,
    make_images: Make,
    number: signal.Signals,
    killed: str,
    code: int,
    errors: str,
) -> None:
    params = {"train": DEFAULTS | {"iterations": 10**6, "eval_every": 1}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    paths = save_splits(tmp_path, make_images(), make_images())
    names = ("train", "validation", "model", "history", "metrics")
    options = [f"--{name}={path}" for name, path in zip(names, paths, strict=True)]
    command = [sys.executable, "-m", "stages.train", f"--params={tmp_path / 'params.yaml'}"]
    process = start([*command, *options], PROCESSES="2")
    assert process.stdout
    assert process.stdout.readline().startswith("iteration")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    os.kill(int(children[1]) if killed == "a process" else process.pid, number)
    _, found = finish(process)
    assert process.returncode == code
    assert found.startswith(errors)
    assert found.count("\n") == bool(errors)
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert not paths[2].exists()
