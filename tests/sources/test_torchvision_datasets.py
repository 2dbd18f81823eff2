import subprocess
import sys
from typing import Any

import pytest
from torchvision import datasets

from stages.sources import torchvision_datasets as catalogue
from stages.sources.known_datasets import DATASETS
from stages.sources.torchvision_datasets import (
    LICENCES,
    TOLD_THERE,
    UNFIT,
    class_names,
    closest,
    is_name,
    published,
    table,
)
from stages.sources.torchvision_downloads import Published
from tests.conftest import ROOT


def test_the_names_are_torchvision_s() -> None:
    assert class_names() == sorted(name for name in datasets.__all__ if name[0].isupper())


def test_names_are_known_without_importing_torch() -> None:
    program = """
import sys
from stages.sources.torchvision_datasets import closest, is_name
assert is_name("MNIST") and is_name("EMNIST-letters") and not is_name("pictures")
assert closest("MNITS") == "MNIST"
assert not {"torch", "torchvision", "numpy", "PIL"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.parametrize("name", ["MNIST"])
def test_a_class_with_train_is_split_by_it(name: str) -> None:
    assert published(name) == Published(name, {"train": True}, {"train": False})


@pytest.mark.parametrize(
    "name", ["SVHN", "STL10", "GTSRB", "Flowers102", "Food101", "DTD", "Country211", "RenderedSST2"]
)
def test_a_class_with_splits_gives_train_and_test(name: str) -> None:
    assert published(name) == Published(name, {"split": "train"}, {"split": "test"})


@pytest.mark.parametrize("name", ["FGVCAircraft", "OxfordIIITPet"])
def test_the_larger_train_split_is_taken(name: str) -> None:
    assert published(name) == Published(name, {"split": "trainval"}, {"split": "test"})


@pytest.mark.parametrize("split", ["byclass", "bymerge", "balanced", "letters", "digits", "mnist"])
def test_a_further_choice_follows_a_hyphen(split: str) -> None:
    assert published(f"EMNIST-{split}") == Published(
        "EMNIST", {"split": split, "train": True}, {"split": split, "train": False}
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("EMNIST", "EMNIST: no such data set; expected EMNIST-byclass, EMNIST-bymerge, "),
        ("EMNIST-x", "EMNIST-x: no such data set; expected EMNIST-byclass"),
        ("CIFAR10-x", "CIFAR10-x: no such data set; expected CIFAR10$"),
        ("Caltech101", "it has no train and test split of its own$"),
        ("Imagenette", "it has no train and test split of its own; its splits: train, val$"),
        ("Places365", "its splits: train-standard, train-challenge, val, test$"),
        ("FER2013", "FER2013: it must be downloaded by hand$"),
        ("StanfordCars", "The original URL is broken .* cannot be downloaded anymore$"),
        ("LFWPeople", "no longer available for automatic download$"),
        ("MovingMNIST", "its labels are not classes$"),
        ("Kitti", "Kitti: its labels are boxes, not classes$"),
        ("CocoDetection", "it needs more than a name: annFile$"),
        ("UCF101", "it needs more than a name: annotation_path, frames_per_clip$"),
    ],
)
def test_one_that_cannot_be_used_has_a_reason(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as error:
        published(name)
    assert str(error.value).startswith(f"{name}: ")


def test_what_is_on_google_drive_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(UNFIT, "WIDERFace")
    with pytest.raises(ValueError, match="WIDERFace: it is on Google Drive"):
        published("WIDERFace")


def test_a_class_to_come_is_judged_by_what_it_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    class Made(datasets.CIFAR10):  # type: ignore[misc]  # torchvision ships no types
        """`Made <https://example.org/made>`_ Dataset."""

        def __init__(self, root: str, **kwargs: Any) -> None:
            super().__init__(root, **kwargs)

    monkeypatch.setattr(datasets, "Made", Made, raising=False)
    monkeypatch.setattr(catalogue, "class_names", lambda: ["Made"])
    assert published("Made") == Published("Made", {"train": True}, {"train": False})
    assert f"Made  {TOLD_THERE}  https://example.org/made" in table()


def test_asking_leaves_torchvision_as_it_was() -> None:
    before = {name: datasets.utils.__dict__[name] for name in ("download_url", "extract_archive")}
    published("CIFAR10")
    assert {name: datasets.utils.__dict__[name] for name in before} == before
    assert datasets.usps.download_url is datasets.utils.download_url


@pytest.mark.parametrize(
    ("name", "expected"),
    [("MNITS", "MNIST"), ("cifar10", "CIFAR10"), ("EMNST-letters", "EMNIST"), ("hello", None)],
)
def test_the_closest_name_is_found(name: str, expected: str | None) -> None:
    assert closest(name) == expected


def test_the_table_tells_every_class_once() -> None:
    lines = table().splitlines()
    told = [line.split()[0].split("-{")[0].rstrip(":") for line in lines if line][1:]
    assert sorted(name for name in told if is_name(name)) == class_names()
    assert lines[0].split() == ["name", "licence", "source"]
    assert any(line.startswith("EMNIST-{byclass,bymerge,") for line in lines)
    assert "  Kitti: its labels are boxes, not classes" in lines
    assert lines[-1].startswith("Or the path of a folder")


def test_what_is_typed_in_is_of_this_torchvision() -> None:
    assert {*LICENCES, *UNFIT, *DATASETS} <= {*class_names()}
    usable = table().split("cannot be used")[0]
    assert all(name in usable for name in LICENCES)
