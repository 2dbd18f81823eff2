import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.base.params import Integer, Params
from stages.training import checkpoint
from stages.training.checkpoint import Checkpoint, State, run_key
from tests.conftest import ROOT


class Example(Params):
    size: Integer


def make_state(iteration: int = 7) -> State:
    tensors = [torch.randn(2, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)]
    return State(iteration, tensors, [{"loss": 0.1 + 0.2, "accuracy": None}])


def make_checkpoint(folder: Path, key: str = "a") -> Checkpoint:
    return Checkpoint(folder / "model", lambda: key * 64)


def test_a_loaded_checkpoint_equals_the_saved_state_to_the_last_bit(tmp_path: Path) -> None:
    state = make_state()
    make_checkpoint(tmp_path).keep(state)
    found = make_checkpoint(tmp_path).load()
    assert found is not None
    assert (found.iteration, found.report) == (7, state.report)
    assert all(map(torch.equal, found.tensors, state.tensors))
    assert len(found.tensors) == 2


def test_another_runs_checkpoint_is_not_resumed_and_is_removed_at_the_end(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "a").keep(make_state())
    other = make_checkpoint(tmp_path, "b")
    assert other.load() is None
    other.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_checkpoint_is_ignored_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = make_checkpoint(tmp_path)
    kept.keep(make_state())
    whole = kept.path.read_bytes()
    flips = {round(i * (8 * len(whole) - 1) / 250) for i in range(251)}
    damaged = [
        whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :]
        for bit in flips
    ]
    damaged += [b"", whole[:-1], whole[:30], whole[:32], whole + b"\0", b"\0" * 50]
    damaged += [
        whole.replace(b'"iteration": 7', b'"iteration": 8'),
        whole.replace(b"0.30000000000000004", b"0.30000000000000005"),
    ]
    assert whole not in damaged
    for content in damaged:
        kept.path.write_bytes(content)
        assert make_checkpoint(tmp_path).load() is None
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"{kept.path}: found a damaged checkpoint; expected")


def test_a_run_of_a_few_seconds_writes_no_checkpoint_and_hashes_nothing(tmp_path: Path) -> None:
    def no_key() -> str:
        raise AssertionError("the key takes time and is not needed")

    short = Checkpoint(tmp_path / "model", no_key)
    assert short.load() is None
    assert not short.due
    short.remove()


def test_checkpoints_take_no_more_than_their_share_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("stages.training.checkpoint.time.monotonic", lambda: now)

    def slow_write(*_: Any) -> None:
        nonlocal now
        now += 3.0

    monkeypatch.setattr(checkpoint, "write_bytes", slow_write)
    kept = make_checkpoint(tmp_path)
    spent = 0.0
    while now < 10_000:
        before = now
        if kept.due:
            kept.keep(make_state())
        spent += now - before
        now += 1.0
    assert 0 < spent / now < 0.02


def test_a_checkpoint_that_cannot_be_written_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_bytes", full)
    make_checkpoint(tmp_path).keep(make_state())
    assert "No space left on device" in capsys.readouterr().err


def test_a_folder_in_the_checkpoints_place_stops_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = make_checkpoint(tmp_path)
    kept.path.mkdir()
    assert kept.load() is None
    kept.keep(make_state())
    kept.remove()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("the checkpoint cannot be written; the run goes on: ")
    assert kept.path.is_dir()


def test_a_checkpoint_is_found_whatever_its_outputs_name(tmp_path: Path) -> None:
    for _ in range(2):
        kept = Checkpoint(tmp_path / "[a]*?", lambda: "a" * 64)
        kept.keep(make_state())
        assert Checkpoint(tmp_path / "[a]*?", lambda: "a" * 64).load() is not None
    kept.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_runs_key_changes_with_everything_that_affects_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checkpoint.CODE == ROOT / "stages"
    data, code = tmp_path / "data", tmp_path / "stages" / "training" / "loop.py"
    code.parent.mkdir(parents=True)
    data.write_text("images")
    code.write_text("code")
    monkeypatch.setattr(checkpoint, "CODE", tmp_path / "stages")
    keys = [run_key(Example(size=1), [data]), run_key(Example(size=1), [data])]
    assert keys[0] == keys[1]
    keys = [keys[0], run_key(Example(size=2), [data])]
    data.write_text("other images")
    keys.append(run_key(Example(size=1), [data]))
    code.write_text("other code")
    keys.append(run_key(Example(size=1), [data]))
    monkeypatch.setattr(checkpoint, "version", lambda package: f"another {package}")
    keys.append(run_key(Example(size=1), [data]))
    assert len(set(keys)) == len(keys) == 5
