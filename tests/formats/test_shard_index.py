import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from stages.formats.lines import Lines
from stages.formats.shard_index import NAME, ShardIndex, ShardPicture

PLACES = np.array([[0, 512, 10, 1], [1, 1536, 7, 0]])
NAMES = Lines(np.frombuffer("dog/1.png\ncat/猫.png\n".encode(), np.uint8))
INDEX = ShardIndex(("a.tar", "b.tar"), ("cat", "dog"), PLACES, NAMES)
ITEMS = [
    ShardPicture("a.tar", 512, 10, 1, "dog/1.png"),
    ShardPicture("b.tar", 1536, 7, 0, "cat/猫.png"),
]


def test_what_is_saved_is_loaded_again(tmp_path: Path) -> None:
    INDEX.save(tmp_path)
    loaded = ShardIndex.load(tmp_path)
    assert loaded.classes == INDEX.classes
    assert list(loaded) == loaded[:] == ITEMS
    assert (loaded[1], loaded[1:]) == (ITEMS[1], ITEMS[1:])


@pytest.mark.parametrize(
    ("about", "places", "names", "problem"),
    [
        ({}, PLACES, b"a\nb\n", "metadata shards: found {}; expected an object with the keys"),
        ({"shards": 1, "classes": ["x"]}, PLACES, b"a\nb\n", "found 1; expected a list of names"),
        ({"shards": ["a"], "classes": ["x", "y"]}, PLACES, b"a\nb\n", "outside of the shards or"),
        ({"shards": ["a", "b"], "classes": ["x"]}, PLACES, b"a\nb\n", "outside of the shards or"),
        (
            {"shards": ["a", "b"], "classes": ["x", "y"]},
            -PLACES,
            b"a\nb\n",
            "outside of the shards",
        ),
        ({"shards": ["a", "b"], "classes": ["x", "y"]}, PLACES, b"a\n", "expected (1, 4) int64"),
        ({"shards": ["a", "b"], "classes": ["x", "y"]}, PLACES, b"\xff\n", "can't decode"),
        (
            {"shards": ["a", "b"], "classes": ["x", "y"]},
            PLACES * 0.5,
            b"a\nb\n",
            "found tensors {'places': 'F64'",
        ),
    ],
)
def test_an_index_that_is_not_one_is_refused_in_one_line(
    tmp_path: Path,
    about: object,
    places: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]",
    names: bytes,
    problem: str,
) -> None:
    tensors: dict[str, np.ndarray[Any, np.dtype[Any]]] = {
        "places": places,
        "names": np.frombuffer(names, np.uint8),
    }
    save_file(tensors, tmp_path / NAME, {"shards": json.dumps(about)})
    with pytest.raises(ValueError, match=re.escape(problem)) as error:
        ShardIndex.load(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / NAME}: not a shard index of this pipeline (")
    assert str(error.value).endswith("); `dvc repro -f -s download` regenerates it")


def test_an_index_without_names_is_refused(tmp_path: Path) -> None:
    about = {"shards": json.dumps({"shards": ["a"], "classes": ["x"]})}
    save_file({"places": PLACES}, tmp_path / NAME, about)
    with pytest.raises(ValueError, match="found tensors .*; expected {"):
        ShardIndex.load(tmp_path)
