import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from stages.formats.input_spec import InputSpec
from stages.formats.origin import UNKNOWN, Origin
from stages.formats.split_file import Split, create_split, write_rows
from tests.conftest import ROOT
from tests.formats.hostile import NESTED, damaged, short, write
from tests.splits import pixel_split

Make = Callable[..., Split]

# Characters that splitlines() treats as line feeds, and some of several bytes in UTF-8.
NAMES = ("train/a/x.png", "train/a/\u2028\u2029\x85\r\x0b.png", "", "train/猫 cat/ü.png", "😀")


def lines(*names: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer("".join(f"{name}\n" for name in names).encode(), np.uint8)


@given(
    n=st.integers(0, 5),
    shape=st.tuples(st.sampled_from([1, 3]), st.integers(1, 3), st.integers(1, 3)),
    seed=st.integers(0, 9),
)
def test_a_split_reads_back_as_saved_in_the_bytes_that_safetensors_writes(
    tmp_path_factory: pytest.TempPathFactory, n: int, shape: tuple[int, int, int], seed: int
) -> None:
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (n, *shape), np.uint8)
    labels = generator.integers(0, 3, n)
    names = lines(*NAMES[:n])
    saved = pixel_split(images, labels, ("naïve", "二", 'a "b", c'), "pad", names)
    path = tmp_path_factory.mktemp("images") / "split.safetensors"
    saved.save(path)
    about = {"classes": saved.classes, "input": saved.spec.to_json(), "origin": UNKNOWN.to_json()}
    assert path.read_bytes() == safetensors.numpy.save(
        {"features": saved.features, "labels": labels, "names": names},
        {"split": json.dumps(about, ensure_ascii=False)},
    )
    loaded = Split.load(path)
    assert np.array_equal(loaded.images, images)
    assert np.array_equal(loaded.labels, labels)
    assert (loaded.classes, loaded.spec) == (saved.classes, InputSpec(*shape, "pad"))
    assert loaded.pictures == saved.pictures == list(NAMES[:n])


def test_pictures_without_names_are_named_by_number(tmp_path: Path, make_images: Make) -> None:
    split = make_images(n=3)
    assert split.pictures == ["0", "1", "2"]
    split.save(tmp_path / "split")
    loaded = Split.load(tmp_path / "split")
    assert not len(loaded.names)
    assert loaded.pictures == split.pictures


def test_a_splits_bytes_depend_on_its_content_alone(tmp_path: Path, make_images: Make) -> None:
    one, two = tmp_path / "here" / "one.safetensors", tmp_path / "two.safetensors"
    make_images().save(one)
    code = (
        "import sys; from pathlib import Path;"
        "from stages.formats.split_file import Split as L;"
        "L.load(Path(sys.argv[1])).save(Path(sys.argv[2]))"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(one), str(two)], cwd=ROOT, check=True, timeout=60
    )
    assert one.read_bytes() == two.read_bytes()


@given(sizes=st.lists(st.integers(0, 3), max_size=4), with_images=st.booleans())
def test_a_split_written_in_parts_has_the_bytes_that_safetensors_writes(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], with_images: bool
) -> None:
    path, n = tmp_path_factory.getbasetemp() / "split.safetensors", sum(sizes)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (n, 3, 2, 2), np.uint8)
    features, labels = generator.integers(0, 256, (n, 7), np.uint8), np.arange(n)
    spec = InputSpec(3, 2, 2, features="gradients")
    ends = np.cumsum([0, *sizes]).tolist()
    names = [f"{i}.png" for i in range(n)]
    create_split(path, labels, names, "abcdefghijklm", spec, 7, with_images)
    for first, end in reversed([*pairwise(ends)]):  # as several processes may
        write_rows(path, first, [(features[first:end], images[first:end])])
    tensors: dict[str, Any] = {"features": features, "labels": labels, "names": lines(*names)}
    if with_images:
        tensors["images"] = images
    about = json.dumps(
        {"classes": "abcdefghijklm", "input": spec.to_json(), "origin": UNKNOWN.to_json()}
    )
    assert path.read_bytes() == safetensors.numpy.save(tensors, {"split": about})


def test_a_split_of_gradients_has_images_only_if_they_were_stored(tmp_path: Path) -> None:
    spec = InputSpec(1, 2, 2, features="gradients")
    features = np.zeros((2, 9), np.uint8)
    with pytest.raises(ValueError, match="found features but no images; expected both"):
        _ = Split(features, LABELS, ("a", "b"), spec).images
    Split(features, LABELS, ("a", "b"), spec, stored_images=IMAGES + 3).save(tmp_path / "s")
    loaded = Split.load(tmp_path / "s")
    assert (loaded.images == 3).all()
    assert loaded.features.shape == (2, 9)


def test_a_split_says_where_its_images_come_from(tmp_path: Path) -> None:
    origin = Origin("animals", "CC0", None, {"train": 7, "test": 2}, {"size": [2, 2]})
    split = Split(FEATURES, LABELS, ("a", "b"), InputSpec(1, 2, 2), origin=origin)
    split.save(tmp_path / "s")
    assert Split.load(tmp_path / "s").origin == origin


@pytest.mark.parametrize(
    "about",
    [
        *(None, {}, UNKNOWN.to_json() | {"more": 1}, UNKNOWN.to_json() | {"name": 3}),
        *(UNKNOWN.to_json() | {"licence": []}, UNKNOWN.to_json() | {"counts": []}),
        UNKNOWN.to_json() | {"counts": {"train": -1}},
    ],
)
def test_an_impossible_origin_is_refused(about: object) -> None:
    with pytest.raises(ValueError, match="found .*; expected"):
        Origin.from_json(about)


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="Windows files have no holes")
def test_a_split_may_be_larger_than_memory(tmp_path: Path) -> None:
    shape, path = (3, 2000, 2000), tmp_path / "split.safetensors"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    n = 2 * memory // 12_000_000
    spec, labels = InputSpec(*shape), np.zeros(n, np.int64)
    create_split(path, labels, [], ("a", "b"), spec, 12_000_000, with_images=False)
    split = Split.load(path)
    assert split.images.shape == (n, *shape)
    assert not split.images[-1].any()


def test_a_loaded_split_cannot_be_written_to(tmp_path: Path, make_images: Make) -> None:
    make_images().save(tmp_path / "split")
    loaded = Split.load(tmp_path / "split")
    for array in (loaded.images, loaded.labels, loaded.features):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_batches_hold_every_image_in_order(make_images: Make) -> None:
    split = make_images(n=7, shape=(3, 2, 5))
    batches = list(split.batches(3))
    assert [len(labels) for _, labels in batches] == [3, 3, 1]
    pixels, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert np.array_equal(pixels, split.images.reshape(7, 30))
    assert np.array_equal(labels, split.labels)


def test_a_missing_split_is_reported_with_the_remedy(tmp_path: Path) -> None:
    for path in (tmp_path / "split", tmp_path):
        with pytest.raises(FileNotFoundError, match="no such file; `dvc repro tensorize` makes it"):
            Split.load(path)


IMAGES = np.zeros((2, 1, 2, 2), np.uint8)
LABELS = np.array([0, 1])
FEATURES = np.zeros((2, 4), np.uint8)
TENSORS: dict[str, Any] = {"features": FEATURES, "labels": LABELS, "names": lines("x", "y")}
SPEC = InputSpec(1, 2, 2).to_json()
ABOUT = {"classes": ["a", "b"], "input": SPEC, "origin": UNKNOWN.to_json()}


@pytest.mark.parametrize(
    ("tensors", "about", "problem"),
    [
        ({"images": IMAGES.astype(np.float32)}, {}, "found tensors .*'images': 'F32'.*expected"),
        ({"labels": LABELS.astype(np.int32)}, {}, "found tensors .*'labels': 'I32'.*expected"),
        ({"labels": LABELS.astype(np.uint64)}, {}, "found tensors .*'labels': 'U64'.*expected"),
        ({"names": LABELS}, {}, "found tensors .*'names': 'I64'.*expected"),
        ({"another": LABELS}, {}, "found tensors .*'another'.*expected"),
        ({"images": IMAGES[0]}, {}, r"images: found \(1, 2, 2\) uint8; expected \(2, 1, 2, 2\)"),
        ({"images": IMAGES[..., :1]}, {}, r"images: found .*; expected \(2, 1, 2, 2\) uint8"),
        ({"features": FEATURES[0]}, {}, r"features: found \(4,\) uint8; expected \(2, 4\)"),
        ({"features": FEATURES[:1]}, {}, r"features: found \(1, 4\) uint8; expected \(2, 4\)"),
        ({"features": FEATURES[:, :3]}, {}, r"features: found \(2, 3\) uint8; expected \(2, 4\)"),
        ({"features": FEATURES.astype(np.int64)}, {}, "found tensors .*'features': 'I64'.*"),
        ({"labels": LABELS[:1]}, {}, r"features: found \(2, 4\) uint8; expected \(1, 4\)"),
        ({"labels": LABELS[:, None]}, {}, r"labels: found \(2, 1\) int64; expected \(2,\) int64"),
        ({"labels": LABELS - 1}, {}, "labels: found -1 to 0; expected 0 to 1, for 2 classes"),
        ({"labels": LABELS + 1}, {}, "labels: found 1 to 2; expected 0 to 1, for 2 classes"),
        ({"labels": LABELS + np.iinfo(np.int64).min}, {}, "labels: found -9223372036854775808 to"),
        ({"names": lines("x")}, {}, "names: found 1; expected 2"),
        ({"names": lines("x", "y", "z")}, {}, "names: found 3; expected 2"),
        ({"names": lines("x", "yz")[:-1]}, {}, "names: found no line feed at the end; expected"),
        ({"names": lines("x", "y").reshape(2, 2)}, {}, r"names: found \(2, 2\) uint8; expected"),
        ({"names": np.array([255, 10, 255, 10], np.uint8)}, {}, "names: found .*; expected UTF-8"),
        ({}, {"classes": ["a", "a"]}, "classes: found .*; expected distinct names"),
        ({}, {"classes": []}, "classes: found .*; expected distinct names"),
        ({}, {"classes": "ab"}, "classes: found 'ab'; expected a list of names"),
        ({}, {"classes": [0, 1]}, "classes: found .*; expected a list of names"),
        ({}, {"classes": {"a": 0, "b": 1}}, "classes: found .*; expected a list of names"),
        ({}, {"classes": ["a" * 20_000] * 2}, "classes: found .*; expected distinct names"),
        ({}, {"input": SPEC | {"fit": "squash"}}, "fit: found 'squash'; expected crop or pad"),
        ({}, {"input": SPEC | {"height": 3}}, r"features: found \(2, 4\) .*expected \(2, 6\)"),
        ({}, None, "metadata split: found None; expected .* keys classes, input, origin"),
        ({}, "7", "metadata split: found 7; expected .* keys classes, input, origin"),
        ({}, '{"input": {}}', "expected .* keys classes, input, origin"),
        ({}, "{", "Expecting"),
        ({}, NESTED, "recursion"),
    ],
    ids=short,
)
def test_an_invalid_split_file_is_refused_in_one_line(
    tmp_path: Path, tensors: dict[str, Any], about: dict[str, Any] | str | None, problem: str
) -> None:
    changed = ABOUT | about if isinstance(about, dict) else about
    write(tmp_path / "s", TENSORS | tensors, "split", changed)
    with pytest.raises(ValueError, match=f"s: not a split of this pipeline .*{problem}") as caught:
        Split.load(tmp_path / "s")
    assert str(caught.value).endswith("; `dvc repro -f -s tensorize` regenerates it")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("missing", TENSORS)
def test_a_split_without_one_of_its_tensors_is_refused(tmp_path: Path, missing: str) -> None:
    tensors = {name: tensor for name, tensor in TENSORS.items() if name != missing}
    write(tmp_path / "s", tensors, "split", ABOUT)
    with pytest.raises(ValueError, match="s: not a split of this pipeline .*found tensors"):
        Split.load(tmp_path / "s")


def test_a_damaged_split_is_refused_unless_it_is_still_valid(
    tmp_path: Path, make_images: Make
) -> None:
    make_images().save(tmp_path / "s")
    problems = []
    for content in damaged((tmp_path / "s").read_bytes()):
        (tmp_path / "s").write_bytes(content)
        try:
            split = Split.load(tmp_path / "s")
        except ValueError as error:
            problems.append(str(error))
        else:  # a letter of a class's name, say
            assert split.images.shape == (60, 1, 4, 5)
    assert len(problems) > 200
    for problem in problems:
        assert problem.startswith(f"{tmp_path / 's'}: not a split of this pipeline (")
        assert "\n" not in problem
