import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stages.formats.split_file import LabelledImages
from stages.training.processes import ALONE, Processes, processes_asked_for
from tests.conftest import ROOT


@given(examples=st.integers(0, 30), count=st.integers(1, 9))
def test_the_parts_make_up_the_batch(examples: int, count: int) -> None:
    parts = [Processes(rank, count).part(torch.arange(examples)) for rank in range(count)]
    assert sorted(torch.cat(parts).tolist()) == list(range(examples))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_process_adds_up_nothing() -> None:
    tensor = torch.ones(2)
    ALONE.add_up(tensor)
    assert tensor.tolist() == [1, 1]
    assert ALONE.from_first("value") == "value"
    assert ALONE.first


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", " "])
def test_a_wrong_number_of_processes_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("TRAIN_PROCESSES", text)
    with pytest.raises(ValueError, match=r"TRAIN_PROCESSES: found '.*'; expected a whole number"):
        processes_asked_for()


@pytest.fixture
def train(
    tmp_path: Path, make_images: Callable[..., LabelledImages]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run stages.train on a small split, in as many processes as TRAIN_PROCESSES says."""
    make_images(n=50).save(tmp_path / "split")

    def run(model: str, processes: str, batch_size: int = 7) -> subprocess.CompletedProcess[str]:
        params = yaml.safe_load((ROOT / "params.yaml").read_text())
        params["train"] |= {"iterations": 40, "eval_every": 20, "batch_size": batch_size}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
        paths = {"params": "params.yaml", "train": "split", "validation": "split"}
        paths |= {"model": model, "history": f"{model}.csv"}
        arguments = [a for k, path in paths.items() for a in (f"--{k}", str(tmp_path / path))]
        return subprocess.run(
            [sys.executable, "-m", "stages.train", *arguments],
            cwd=ROOT,
            env=os.environ | {"TRAIN_PROCESSES": processes},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_train_processes_changes_no_byte_and_no_line(
    tmp_path: Path, train: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    alone, shared = train("one", "1"), train("three", "3")
    assert alone.returncode == shared.returncode == 0, shared.stderr
    assert alone.stdout == shared.stdout
    assert shared.stderr == ""
    assert (tmp_path / "one").read_bytes() == (tmp_path / "three").read_bytes()
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "three.csv").read_bytes()


def test_what_is_wrong_is_told_once(
    train: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    for result in (train("model", "no"), train("model", "3", batch_size=0)):
        assert result.returncode == 2
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: ")
