import copy
import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from stages.explain import (
    _committed_text,
    explained_by_rounding,
    inputs_that_differ,
    roundings,
    table_difference,
    versions_that_differ,
)
from stages.formats.split_file import LabelledImages
from stages.train import Splits, TrainParams, fit
from tests.conftest import ROOT

PARAMS = TrainParams(**yaml.safe_load((ROOT / "params.yaml").read_text())["train"]).model_copy(
    update={"iterations": 50, "batch_size": 16}
)


def test_roundings_give_the_boundary_and_the_other_neighbour() -> None:
    below, above = np.float32(1.0), np.nextafter(np.float32(1.0), np.float32(2))
    step = float(above) - float(below)
    exact = torch.tensor([1.0 + 0.4 * step, 1.0 + 0.6 * step], dtype=torch.float64)
    distance, other = roundings(exact)
    assert distance.tolist() == pytest.approx([0.1, 0.1], abs=1e-6)
    assert other.tolist() == [float(above), float(below)]
    distance, other = roundings(-exact)
    assert distance.tolist() == pytest.approx([0.1, 0.1], abs=1e-6)
    assert other.tolist() == [-float(above), -float(below)]


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("flipped", [0, 1, 2])
def test_a_weight_at_the_boundary_is_found(
    make_images: Callable[..., LabelledImages], flipped: int
) -> None:
    model = fit(PARAMS, Splits(make_images(), make_images()))
    exact = model.weight.flatten().clone()
    distance, other = roundings(exact)
    nearest = distance.argsort()[:flipped].tolist()
    elsewhere = copy.deepcopy(model)
    elsewhere.weight.flatten()[nearest] = other[nearest].double()
    found = explained_by_rounding(model, PARAMS, md5(elsewhere.serialized(PARAMS.model_dump())))
    assert found is not None
    assert sorted(index for index, _ in found) == sorted(nearest)


def test_a_real_difference_is_not_taken_for_rounding(
    make_images: Callable[..., LabelledImages],
) -> None:
    model = fit(PARAMS, Splits(make_images(), make_images()))
    elsewhere = copy.deepcopy(model)
    elsewhere.weight[0, 0] *= 1.0001
    assert explained_by_rounding(model, PARAMS, md5(elsewhere.serialized({}))) is None


def test_each_kind_of_input_is_named() -> None:
    committed: dict[str, Any] = yaml.safe_load((ROOT / "dvc.lock").read_text())
    assert inputs_that_differ(committed, committed) == []
    now = copy.deepcopy(committed)
    train = now["stages"]["train"]
    train["params"]["params.yaml"]["train"]["seed"] = 5
    now["stages"]["tensorize"]["params"]["params.yaml"]["tensorize.size"] = 14
    for dep in train["deps"]:
        if dep["path"] == "stages/formats/model_file.py":
            dep["md5"] = "0"
    now["stages"]["download"]["deps"].append({"path": "pictures", "md5": "0"})
    for stage in ("train", "evaluate"):  # what the stages make themselves decides nothing
        for entry in train["outs"] + now["stages"][stage]["deps"]:
            if entry["path"] == "data/model.safetensors":
                entry["md5"] = "0"
    assert inputs_that_differ(committed, now) == [
        "data: pictures (download)",
        "params: tensorize.size: None was committed, now 14",
        "params: train.seed: 0 was committed, now 5",
        "code: stages/formats/model_file.py (train)",
    ]


def test_what_was_never_committed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "--quiet"], check=True)
    with pytest.raises(ValueError, match=r"dvc\.lock: not in the last commit: .*HEAD"):
        _committed_text("dvc.lock")


def test_versions_are_compared_with_the_pins() -> None:
    pinned = f"torch=={torch.__version__.partition('+')[0]} \\\nnumpy==0.0.1 ; x\n"
    lines = versions_that_differ(pinned)
    assert any(line.startswith("versions: numpy 0.0.1 is pinned") for line in lines)
    assert not any(line.startswith("versions: torch") for line in lines)


@pytest.mark.parametrize(
    ("now", "text"),
    [
        ("a,b\nx,1.5\ny,2.25\n", "1 of 3 lines, by 0.25 at most"),
        ("a,b\nx,1.5\nz,2.0\n", "1 lines, 'y' has become 'z'"),
        ("a,b\nx,1.5\n", "3 lines were committed, now 2"),
    ],
)
def test_tables_are_compared_line_by_line(now: str, text: str) -> None:
    assert table_difference("a,b\nx,1.5\ny,2.0\n", now) == text
