import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.base.params import Integer, Params
from stages.training import checkpoint
from stages.training.checkpoint import Checkpoint, State, run_key


class Example(Params):
    size: Integer


def make_state(iteration: int = 7) -> State:
    tensors = [torch.randn(2, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)]
    return State(iteration, tensors, [{"loss": 0.1 + 0.2, "accuracy": None}])


def never() -> State:
    raise AssertionError("no state is due")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)


@pytest.mark.usefixtures("at_once")
def test_a_state_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    state = make_state()
    Checkpoint(tmp_path / "model", lambda: "a" * 64).offer(lambda: state)
    found = Checkpoint(tmp_path / "model", lambda: "a" * 64).load()
    assert found is not None
    assert (found.iteration, found.report) == (7, state.report)
    assert all(torch.equal(a, b) for a, b in zip(found.tensors, state.tensors, strict=True))


@pytest.mark.usefixtures("at_once")
def test_the_state_of_another_run_is_not_taken_and_is_forgotten_at_the_end(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "model", lambda: "a" * 64).offer(make_state)
    other = Checkpoint(tmp_path / "model", lambda: "b" * 64)
    assert other.load() is None
    other.remove()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("at_once")
def test_a_broken_file_is_no_state(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path / "model", lambda: "a" * 64)
    kept.offer(make_state)
    whole = kept.path.read_bytes()
    for broken in (
        b"",
        whole[:-1],
        whole[:30],
        b"\0" * 50,
        whole.replace(b"iteration", b"itaretion"),
    ):
        kept.path.write_bytes(broken)
        assert Checkpoint(tmp_path / "model", lambda: "a" * 64).load() is None


def test_a_run_of_a_few_seconds_keeps_none_and_hashes_nothing(tmp_path: Path) -> None:
    def no_key() -> str:
        raise AssertionError("the key takes time and is not needed")

    short = Checkpoint(tmp_path / "model", no_key)
    assert short.load() is None
    short.offer(never)
    short.remove()


def test_states_take_no_more_than_their_share_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("stages.training.checkpoint.time.monotonic", lambda: now)

    def slow_write(*_: Any) -> None:
        nonlocal now
        now += 3.0

    monkeypatch.setattr(checkpoint, "write_bytes", slow_write)
    kept = Checkpoint(tmp_path / "model", lambda: "a" * 64)
    spent = 0.0
    while now < 10_000:
        before = now
        kept.offer(make_state)
        spent += now - before
        now += 1.0
    assert 0 < spent / now < 0.02


@pytest.mark.usefixtures("at_once")
def test_a_state_that_cannot_be_kept_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_bytes", full)
    Checkpoint(tmp_path / "model", lambda: "a" * 64).offer(make_state)
    assert "No space left on device" in capsys.readouterr().err


def test_the_key_names_what_decides_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, code = tmp_path / "data", tmp_path / "stages" / "checkpoint.py"
    code.parent.mkdir()
    data.write_text("images")
    code.write_text("code")
    monkeypatch.setattr(checkpoint, "__file__", str(code))
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
