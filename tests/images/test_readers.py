import bz2
import json
import os
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from stages.formats.idx import idx_bytes
from stages.images.preprocessing import Preprocessing
from stages.images.readers import Dataset, RawSplit, read_dataset

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def describe(raw: Path, **about: Any) -> None:
    raw.mkdir(parents=True, exist_ok=True)
    (raw / "dataset.json").write_text(json.dumps(about), encoding="utf-8")


def write_idx(raw: Path, split: str, images: Bytes, labels: Bytes) -> None:
    (raw / f"{split}-images-idx3-ubyte").write_bytes(idx_bytes(images))
    (raw / f"{split}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))


IMAGES = np.arange(3 * 5 * 4).reshape(3, 5, 4).astype(np.uint8)


@pytest.fixture
def idx(tmp_path: Path) -> Path:
    """A folder as `download` leaves it, of three classes, with three images in either split."""
    describe(tmp_path, format="idx", classes=["zero", "one", "two"])
    write_idx(tmp_path, "train", IMAGES, np.array([2, 0, 1], np.uint8))
    write_idx(tmp_path, "t10k", IMAGES[:2] + 100, np.array([1, 1], np.uint8))
    return tmp_path


@pytest.fixture
def idx_dataset(idx: Path) -> Iterator[Dataset]:
    """What is read of it; its files stay open as long as a stage runs."""
    dataset = read_dataset(idx)
    yield dataset
    for split in (dataset.train, dataset.test):
        assert split
        assert split.stored
        split.stored.file.close()


def split_of(dataset: Dataset, name: str) -> RawSplit:
    split = dataset.train if name == "train" else dataset.test
    assert split is not None
    return split


@pytest.mark.parametrize(
    ("name", "images", "labels"),
    [("train", IMAGES, [2, 0, 1]), ("test", IMAGES[:2] + 100, [1, 1])],
)
def test_idx_files_are_read_with_their_labels(
    idx_dataset: Dataset, name: str, images: Bytes, labels: list[int]
) -> None:
    dataset = idx_dataset
    assert dataset.classes == ("zero", "one", "two")
    split = split_of(dataset, name)
    assert split.stored is not None
    assert split.stored.shape == (1, 5, 4)
    assert split.stored.labels.tolist() == labels
    np.testing.assert_array_equal(np.concatenate(list(split.stored.chunks()))[:, 0], images)
    pictures = split.pictures
    for copy in (pictures.open_item, pickle.loads(pickle.dumps(pictures.open_item))):  # noqa: S301  # our own
        opened = [copy(item) for item in pictures.items]
        assert [label for _, label in opened] == labels
        np.testing.assert_array_equal([np.asarray(image) for image, _ in opened], images)
    sent = pickle.dumps(pictures.open_item)  # now that the files are open
    assert images.tobytes() not in sent


@pytest.mark.parametrize(("name", "expected"), [("train", 3), ("test", 2)])
def test_idx_images_are_named_by_split_and_number(
    idx_dataset: Dataset, name: str, expected: int
) -> None:
    split = split_of(idx_dataset, name)
    names = [split.pictures.name_of(item) for item in split.pictures.items]
    assert names == [f"{name}/{i}" for i in range(expected)]
    assert split.name == name


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ([0, 0], "found 2 labels; expected 3, one per image"),
        ([0, 3, 1], "found label 3; expected less than 3, the number of classes"),
    ],
)
def test_idx_labels_that_do_not_fit_the_images_are_refused(
    idx: Path, labels: list[int], problem: str
) -> None:
    write_idx(idx, "train", IMAGES, np.array(labels, np.uint8))
    path = idx / "train-labels-idx1-ubyte"
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: {problem}')}"):
        read_dataset(idx)


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_a_missing_idx_file_is_named(idx: Path, name: str) -> None:
    (idx / name).unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(str(idx / name))):
        read_dataset(idx)


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{}", "null", '{"format": "csv"}', '{"format": ["idx"]}', "\udcff"),
        *('{"format": "idx"}', '{"format": "idx", "classes": 3}'),
        *('{"format": "idx", "classes": ["a", 1]}', '{"format": "torchvision", "class": "USPS"}'),
        *("[" * 100_000, '{"a":' * 100_000),
    ],
    ids=lambda content: content[:40],
)
def test_a_malformed_description_of_a_data_set_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(content, encoding="utf-8", errors="surrogateescape")
    message = f"^{re.escape(str(path))}: not the description of a data set \\(.*\\); `dvc repro -f"
    with pytest.raises(ValueError, match=message):
        read_dataset(tmp_path)


def test_a_description_that_is_not_a_regular_file_is_refused(tmp_path: Path) -> None:
    message = re.escape(f"{tmp_path / 'dataset.json'}: no such file; `dvc repro -f")
    with pytest.raises(FileNotFoundError, match=message):
        read_dataset(tmp_path)
    os.mkfifo(tmp_path / "dataset.json")
    with pytest.raises(FileNotFoundError, match=message):
        read_dataset(tmp_path)


def test_an_unknown_torchvision_class_is_an_error(tmp_path: Path) -> None:
    describe(tmp_path, **{"format": "torchvision", "class": "None", "train": {}, "test": {}})
    with pytest.raises(ValueError, match=f"^{re.escape(str(tmp_path))}: None: module"):
        read_dataset(tmp_path)


def picture(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (2, 2), value).save(path, "PNG")


def test_a_folder_of_pictures_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    describe(tmp_path, format="pictures")
    names = ["b/2.png", "b/10.png", "a b/x.png", "猫/一.png", "a b/deeper/y.png"]
    for value, name in enumerate(names):
        picture(tmp_path / "train" / name, value)
    dataset = read_dataset(tmp_path)
    assert dataset.test is None
    assert dataset.classes == ("a b", "b", "猫")
    assert dataset.train.stored is None
    pictures = dataset.train.pictures
    assert [pictures.name_of(item) for item in pictures.items] == [
        *("train/a b/deeper/y.png", "train/a b/x.png", "train/b/10.png", "train/b/2.png"),
        "train/猫/一.png",
    ]
    opened = [pictures.open_item(item) for item in pictures.items]
    assert [label for _, label in opened] == [0, 0, 1, 1, 2]
    assert [image.getpixel((0, 0)) for image, _ in opened] == [4, 2, 1, 0, 3]


def test_a_label_is_the_same_class_in_both_splits(tmp_path: Path) -> None:
    describe(tmp_path, format="pictures")
    for name in ("train/a/1.png", "train/c/1.png", "test/b/1.png", "test/c/1.png"):
        picture(tmp_path / name)
    dataset = read_dataset(tmp_path)
    assert dataset.classes == ("a", "b", "c")
    for split, labels in ((dataset.train, [0, 2]), (split_of(dataset, "test"), [1, 2])):
        assert [split.pictures.open_item(item)[1] for item in split.pictures.items] == labels


def test_a_torchvision_data_set_in_memory_is_read(tmp_path: Path) -> None:
    describe(
        tmp_path,
        **{"format": "torchvision", "class": "USPS", "train": {"train": True}},
        test={"train": False},
    )
    pixels = np.random.default_rng(0).integers(0, 256, (3, 256))
    lines = [
        f"{label} " + " ".join(f"{i + 1}:{value / 127.5 - 1:.6f}" for i, value in enumerate(row))
        for label, row in zip((3, 1, 10), pixels, strict=True)
    ]
    for name, of_split in (("usps.bz2", lines[:2]), ("usps.t.bz2", lines[2:])):
        (tmp_path / name).write_bytes(bz2.compress("\n".join(of_split).encode()))
    dataset = read_dataset(tmp_path)
    assert (dataset.classes, dataset.label_names) == (None, ())
    for split, expected in (("train", [2, 0]), ("test", [9])):
        pictures = split_of(dataset, split).pictures
        assert pictures.processes == 1
        assert pictures.name_of(pictures.items[-1]) == f"{split}/{len(expected) - 1}"
        reference = datasets.USPS(tmp_path, train=split == "train")
        for item, label in zip(pictures.items, expected, strict=True):
            image, found = pictures.open_item(item)
            assert found == label
            assert image.tobytes() == reference[item][0].tobytes()


@pytest.fixture
def of_torchvision(tmp_path: Path) -> Path:
    """A folder whose pictures torchvision's class opens one by one."""
    describe(
        tmp_path,
        **{"format": "torchvision", "class": "RenderedSST2", "train": {"split": "train"}},
        test={"split": "test"},
    )
    for split in ("train", "test"):
        for value, name in enumerate(("negative/1.png", "positive/1.png", "positive/2.png")):
            picture(tmp_path / "rendered-sst2" / split / name, value)
    return tmp_path


def test_a_torchvision_data_set_of_files_is_read(of_torchvision: Path) -> None:
    dataset = read_dataset(of_torchvision)
    assert (dataset.classes, dataset.label_names) == (None, ("negative", "positive"))
    pictures = split_of(dataset, "test").pictures
    assert pictures.processes is None
    image, label = pictures.open_item(pictures.items[2])
    assert (image.mode, label, image.getpixel((0, 0))) == ("RGB", 1, (2, 2, 2))
    sent = pickle.dumps(pictures.open_item)
    assert b"1.png" not in sent  # how to open, not what was opened
    image, label = pickle.loads(sent)(2)  # noqa: S301  # our own
    assert (Preprocessing(1, None, "crop")(image).getpixel((0, 0)), label) == (2, 1)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no picture", "not in a format that Pillow knows"),
        (b"", "not in a format that Pillow knows"),
        (None, "No such file or directory"),
    ],
)
def test_a_broken_torchvision_picture_is_unreadable_with_the_reason(
    of_torchvision: Path, content: bytes | None, reason: str
) -> None:
    pictures = read_dataset(of_torchvision).train.pictures
    path = of_torchvision / "rendered-sst2" / "train" / "positive" / "1.png"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{reason}$"):
        pictures.open_item(1)


def test_files_missing_for_torchvision_are_an_error(of_torchvision: Path) -> None:
    (of_torchvision / "rendered-sst2").rename(of_torchvision / "elsewhere")
    message = f"{of_torchvision}: RenderedSST2: Dataset not found"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}.*dvc repro -f -s download"):
        read_dataset(of_torchvision)
