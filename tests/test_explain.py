import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from stages.explain import (
    difference,
    explained_by_rounding,
    roundings,
    table_difference,
    versions_that_differ,
)
from stages.formats.model_file import GRID, rounded
from stages.gate.revisions import WORKING_TREE
from stages.training.exact_weights import ExactModel, Weights


def content(weights: Weights) -> bytes:
    """A model's file: nothing but its published weights."""
    return rounded(weights).tobytes()


def md5(weights: Weights) -> str:
    return hashlib.md5(content(weights), usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("sign", [1, -1])
def test_roundings_give_the_distance_to_the_boundary_and_the_other_neighbour(sign: int) -> None:
    for below, step in ((1.0, GRID), (0.0, GRID), (128.0, float(np.spacing(np.float32(128))))):
        distance, other = roundings(sign * np.array([below + 0.4 * step, below + 0.6 * step]))
        assert distance == pytest.approx([0.1, 0.1], abs=1e-6)
        assert other.tolist() == [sign * (below + step), sign * below]


@pytest.mark.parametrize("flipped", [0, 1, 2, 3])
def test_weights_at_a_rounding_boundary_are_found(flipped: int) -> None:
    exact = np.random.default_rng(0).normal(size=500)
    distance, other = roundings(exact)
    nearest = distance.argsort()[2 : 2 + flipped].tolist()
    elsewhere = exact.copy()
    elsewhere[nearest] = other[nearest]
    found = explained_by_rounding(ExactModel(exact, content), md5(elsewhere))
    assert found == [(index, distance[index]) for index in nearest]


def test_a_real_difference_of_a_weight_is_not_taken_for_rounding() -> None:
    exact = np.random.default_rng(0).normal(size=500)
    elsewhere = exact.copy()
    elsewhere[0] *= 1.0001
    assert explained_by_rounding(ExactModel(exact, content), md5(elsewhere)) is None


def test_installed_versions_are_compared_with_the_pinned_ones() -> None:
    pinned = f"torch=={torch.__version__.partition('+')[0]} \\\nnumpy==0.0.1 ; x\n"
    lines = versions_that_differ(pinned)
    assert f"version of numpy: 0.0.1 pinned, {np.__version__} installed" in lines
    assert not any("torch" in line for line in lines)


@pytest.mark.parametrize(
    ("here", "text"),
    [
        ("a,b\nx,1.5\ny,2.25\n", "1 of 3 lines, by at most 0.25"),
        ("a,b\nx,1.5\nz,2.0\n", "1 of 3 lines: 'y' is now 'z'"),
        ("a,b\nx,1.5\n", "3 lines committed, 2 here"),
    ],
)
def test_two_versions_of_a_csv_file_are_compared_line_by_line(here: str, text: str) -> None:
    assert table_difference("a,b\nx,1.5\ny,2.0\n", here) == text


@pytest.mark.parametrize("content", [b"\xff", b"0" * 10**6], ids=["no UTF-8", "an endless field"])
def test_a_table_that_is_none_only_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("history.csv").write_bytes(content)
    assert difference(WORKING_TREE, "history.csv").startswith("differs; found no table to compare")
