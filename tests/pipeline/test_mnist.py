"""The committed results on the real MNIST, and the tutorial's."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.sources.known_datasets import DATASETS, fetch
from tests.conftest import ROOT
from tests.pipelines import built_once, commit, copy_of_the_pipeline, run

pytestmark = pytest.mark.mnist
RESULTS = (
    *("data/history.csv", "data/metrics.json", "data/predictions.csv", "data/validation.json"),
)
PIXELS = {"tensorize.features": "pixels", "tensorize.deskew": "false"}
TUTORIAL = PIXELS | {
    "tensorize.validation": "0",
    "train.optimizer": "sgd",
    "train.learning_rate": "0.001",
    "train.momentum": "0",
    "train.schedule": "constant",
    "train.weight_decay": "0",
}
USERS_MIRROR = os.environ.get("DATASET_MIRROR")  # before a fixture sets another


@pytest.fixture(scope="session")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with MNIST's four files: this working tree's, or fetched as `download` does."""
    if all(content.is_at(ROOT / "data/raw" / f) for f, content in DATASETS["MNIST"].files.items()):
        return ROOT / "data/raw"
    try:
        return built_once(
            tmp_path_factory, "mnist", lambda folder: fetch("MNIST", folder, USERS_MIRROR)
        )
    except OSError as error:
        pytest.skip(f"MNIST cannot be downloaded here: {error}")


@pytest.fixture(scope="session")
def committed(
    about_mnist: None,  # noqa: ARG001  # first of all: a fork need not download MNIST
    mnist: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The repository's pipeline with its own params, run from nothing."""

    def build(folder: Path) -> None:
        copy_of_the_pipeline(folder, own_params_and_pictures=False)
        run(folder, "dvc", "repro", DATASET_MIRROR=str(mnist))
        commit(folder)

    return built_once(tmp_path_factory, "mnist pipeline", build)


@pytest.mark.parametrize("name", RESULTS)
def test_the_committed_results_are_reproduced(committed: Path, name: str) -> None:
    assert (committed / name).read_bytes() == (ROOT / name).read_bytes()


def test_the_readmes_picture_is_the_one_that_evaluate_draws(committed: Path) -> None:
    drawn = committed / "data/plots/weights.svg"
    assert (ROOT / "docs/images/weights.svg").read_bytes() == drawn.read_bytes()


def in_order(lock: Path) -> Any:
    """A lock's stages, deps and outs by name: DVC keeps the order that the file had before."""
    stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"]
    for stage in stages.values():
        for key in ("deps", "outs"):
            stage[key].sort(key=lambda entry: entry["path"])
    return stages


def test_the_committed_lock_is_reproduced(committed: Path) -> None:
    assert in_order(committed / "dvc.lock") == in_order(ROOT / "dvc.lock")


def accuracy(folder: Path) -> float:
    return float(json.loads((folder / "data/metrics.json").read_text())["accuracy"])


def test_the_default_params_reach_99_4_percent(committed: Path) -> None:
    assert accuracy(committed) >= 0.994


@pytest.mark.parametrize(
    ("settings", "least", "most"),
    [(PIXELS, 0.922, 0.935), (TUTORIAL, 0.82, 0.835)],
    ids=["pixels", "the tutorial"],
)
def test_pixels_and_the_tutorial_are_one_command_away(
    committed: Path, tmp_path: Path, settings: dict[str, str], least: float, most: float
) -> None:
    folder = tmp_path / "pipeline"
    shutil.copytree(committed, folder, copy_function=link_what_dvc_keeps)
    changes = [part for key, value in settings.items() for part in ("-S", f"{key}={value}")]
    run(folder, "dvc", "exp", "run", *changes)
    assert least <= accuracy(folder) <= most


def link_what_dvc_keeps(source: str, target: str) -> None:
    """Copy a file, or link it if it is in DVC's cache, where no file ever changes."""
    (os.link if "/.dvc/cache/" in source else shutil.copy2)(source, target)
