"""The tables of torchvision's data sets, held to torchvision's own classes."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
from torchvision import datasets

from stages.sources import known_datasets
from stages.sources.torchvision_datasets import (
    TORCHVISION_DATASETS,
    UNUSABLE,
    listing,
    similar_names,
)
from stages.sources.torchvision_downloads import downloading_with
from tests.conftest import ROOT

CLASSES = {name for name in datasets.__all__ if name[0].isupper()}
BY_CLASS = {dataset.class_name: dataset for dataset in TORCHVISION_DATASETS.values()}


class Asked(Exception):
    """A data set's class has accepted its arguments and asked for a file."""


def ask(*_: object, **__: object) -> NoReturn:
    raise Asked


def choices(folder: Path, class_name: str, **arguments: Any) -> bool:
    """Whether the class accepts these arguments and downloads by URL."""
    try:
        with downloading_with(ask):
            getattr(datasets, class_name)(folder, download=True, **arguments)
    except Asked:
        return True
    except ValueError:  # torchvision's, for an unknown split
        return False
    raise AssertionError(f"{class_name} downloads nothing")


def test_every_class_of_torchvision_is_either_usable_or_has_a_reason() -> None:
    assert BY_CLASS.keys() | UNUSABLE.keys() == CLASSES
    assert not BY_CLASS.keys() & UNUSABLE.keys()


@pytest.mark.parametrize("name", TORCHVISION_DATASETS)
def test_the_class_accepts_the_arguments_and_downloads_both_splits(
    tmp_path: Path, name: str
) -> None:
    dataset = TORCHVISION_DATASETS[name]
    for arguments in (dataset.train, dataset.test):
        assert choices(tmp_path, dataset.class_name, **arguments)
    assert "target_transform" in parameters(dataset.class_name)  # there are labels


def parameters(class_name: str) -> set[str]:
    """The parameters of the class's constructor and, where it passes **kwargs on, its bases'."""
    return {
        name
        for base in getattr(datasets, class_name).__mro__
        if "__init__" in vars(base)
        for name in inspect.signature(base).parameters
    }


@pytest.mark.parametrize("name", TORCHVISION_DATASETS)
def test_the_splits_are_train_and_test_and_the_larger_train_split_is_taken(
    tmp_path: Path, name: str
) -> None:
    dataset = TORCHVISION_DATASETS[name]
    has_trainval = "train" not in dataset.train and choices(
        tmp_path, dataset.class_name, split="trainval"
    )
    if "train" in dataset.train:
        choice = {"split": name.partition("-")[2]} if "-" in name else {}
        expected: Any = (choice | {"train": True}, choice | {"train": False})
    else:
        expected = ({"split": "trainval" if has_trainval else "train"}, {"split": "test"})
    assert (dataset.train, dataset.test) == expected


def test_all_choices_of_emnist_are_listed() -> None:
    names = {f"EMNIST-{split}" for split in datasets.EMNIST.splits}
    assert {name for name in TORCHVISION_DATASETS if name.startswith("EMNIST")} == names


@pytest.mark.parametrize("name", BY_CLASS)
def test_the_source_is_the_one_in_torchvision_s_documentation(name: str) -> None:
    assert BY_CLASS[name].source in str(inspect.getdoc(getattr(datasets, name)))


def test_the_reasons_agree_with_the_signatures() -> None:
    for name, reason in UNUSABLE.items():
        accepted = inspect.signature(getattr(datasets, name)).parameters
        required = [p.name for p in accepted.values() if p.default is p.empty and p.name != "root"]
        if reason == "download by hand only":
            assert "download" not in accepted, name
        if reason == "arguments needed beyond a name":
            assert required, name
        if reason in ("no train and test splits of its own", "no labels in the test split"):
            assert "train" not in accepted, name


def test_a_data_set_with_checksums_of_its_own_is_in_the_table() -> None:
    assert known_datasets.DATASETS.keys() <= TORCHVISION_DATASETS.keys()


@pytest.mark.parametrize(
    ("name", "similar"),
    [
        ("MNITS", ["MNIST"]),
        ("cifar10", ["CIFAR10"]),
        ("EMNST-letters", [name for name in TORCHVISION_DATASETS if name.startswith("EMNIST")]),
        ("EMNIST", [name for name in TORCHVISION_DATASETS if name.startswith("EMNIST")]),
        ("hello", []),
        ("M" * 20_000, []),
    ],
)
def test_similar_names_are_suggested(name: str, similar: list[str]) -> None:
    assert similar_names(name) == similar


def test_the_listing_names_every_class_once() -> None:
    usable, unusable = listing().split("\n\n")
    rows = [line.split()[0] for line in usable.splitlines()]
    assert rows == ["name", *TORCHVISION_DATASETS]
    words = unusable.replace(",", " ").split()
    assert {name: words.count(name) for name in UNUSABLE} == dict.fromkeys(UNUSABLE, 1)
    assert max(map(len, unusable.splitlines())) <= 100


def test_reading_the_tables_imports_nothing_slow() -> None:
    program = """
import sys
from stages.sources import torchvision_datasets
torchvision_datasets.listing()
assert not {"torch", "torchvision", "numpy", "PIL"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_the_replaced_download_is_put_back() -> None:
    before = datasets.utils.download_url
    assert before is not ask  # nor has any other test left it replaced
    with downloading_with(ask):
        assert datasets.utils.download_url is datasets.usps.download_url is ask
    assert datasets.utils.download_url is datasets.usps.download_url is before
