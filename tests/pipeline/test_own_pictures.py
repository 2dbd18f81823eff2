"""Pictures of one's own, through the whole pipeline, as the README describes it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from stages.sources.known_datasets import fetch
from tests.conftest import ROOT
from tests.pipeline.test_mnist import USERS_MIRROR
from tests.pipelines import (
    FIVE_LINES,
    copy_of_the_pipeline,
    draw_animals,
    run,
    set_params,
    stages_run,
)

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where dataset-fashion-mnist puts it


def metrics(folder: Path) -> dict[str, float]:
    return dict(json.loads((folder / "data/metrics.json").read_text(encoding="utf-8")))


def test_the_tiny_pipeline_is_built_by_the_readmes_five_lines() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"\n```\n{FIVE_LINES}```\n" in readme


def test_the_readmes_five_lines_give_a_model_that_passes_the_gate(pipeline: Path) -> None:
    measured = metrics(pipeline)
    assert measured["images"] == 12  # a fifth of each class
    assert measured["baseline_accuracy"] == pytest.approx(1 / 3, abs=1e-6)
    assert measured["accuracy"] > 0.6
    assert set(measured["recall"]) == {"猫 咪", "a dog", "Äpfel"}  # type: ignore[call-overload]  # a mapping within
    assert run(pipeline, "git", "status", "--short") == ""
    assert run(pipeline, "python", "-m", "stages.gate", "--base", "HEAD").startswith("PASSED")


def test_predict_recognises_new_pictures(pipeline: Path) -> None:
    draw_animals(pipeline / "new", pictures_per_class=10)
    lines = run(pipeline, "python", "-m", "stages.predict", "new").splitlines()
    assert len(lines) == 30
    right = sum(line.split("/")[1] in line.split(": ")[1] for line in lines)
    assert right > 25


def pictures_tested(folder: Path) -> set[str]:
    with (folder / "data/predictions.csv").open(encoding="utf-8", newline="") as file:
        return {row["picture"] for row in csv.DictReader(file)}


def test_a_new_picture_reruns_all_stages_and_changes_at_most_one_test_image(pipeline: Path) -> None:
    before = pictures_tested(pipeline)
    new = pipeline / "pictures/animals/a dog/a new one.png"
    Image.new("RGB", (30, 40), (20, 220, 30)).save(new)
    assert stages_run(run(pipeline, "dvc", "repro")) == [
        *("download", "tensorize", "train", "evaluate")
    ]
    assert len(pictures_tested(pipeline) - before) <= 1
    new.unlink()
    assert stages_run(run(pipeline, "dvc", "repro")) == []  # all restored from the run cache
    assert run(pipeline, "git", "status", "--short") == ""


def test_the_run_cache_tells_image_sizes_apart(pipeline: Path) -> None:
    # DVC leaves a param called `size` out of its key; test_dvc_yaml.py has the reason.
    split = pipeline / "data/tensors/test.safetensors"
    at_64 = split.read_bytes()
    set_params(pipeline, {"tensorize.size": 16})
    assert stages_run(run(pipeline, "dvc", "repro", "tensorize")) == ["tensorize"]
    assert split.read_bytes() != at_64
    set_params(pipeline, {"tensorize.size": 64})
    assert stages_run(run(pipeline, "dvc", "repro", "tensorize")) == []
    assert split.read_bytes() == at_64


def test_a_broken_picture_stops_the_pipeline_unless_skip_broken_is_set(pipeline: Path) -> None:
    (pipeline / "pictures/animals/a dog/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(
        AssertionError, match=r"unreadable pictures: found 1, such as train/a dog/broken\.png \("
    ):
        run(pipeline, "dvc", "repro")
    set_params(pipeline, {"tensorize.skip_broken": True})
    run(pipeline, "dvc", "repro", "tensorize")
    with (pipeline / "data/skipped.csv").open(encoding="utf-8") as file:
        assert [row["picture"] for row in csv.DictReader(file)] == ["train/a dog/broken.png"]


def accuracy_on(folder: Path, dataset: str, validation: float) -> float:
    """The test accuracy after `dvc repro` on another data set."""
    set_params(folder, {"download.dataset": dataset, "tensorize.validation": validation})
    run(folder, "dvc", "repro")
    return metrics(folder)["accuracy"]


def test_digits_in_a_folder_of_pngs_reach_94_percent(tmp_path: Path) -> None:
    folder = copy_of_the_pipeline(tmp_path / "pipeline")
    digits = load_digits()
    for i, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / f"pictures/digits/{label}/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).round().astype(np.uint8)).save(path)
    assert accuracy_on(folder, "pictures/digits", validation=0.1) >= 0.94


@pytest.mark.mnist
def test_fashion_mnist_is_one_name_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = tmp_path / "mirror"
    try:
        fetch("FashionMNIST", mirror, str(DEBIAN) if DEBIAN.is_dir() else USERS_MIRROR)
    except (OSError, ValueError) as error:
        pytest.skip(f"Fashion-MNIST cannot be downloaded here: {error}")
    monkeypatch.setenv("DATASET_MIRROR", str(mirror))
    folder = copy_of_the_pipeline(tmp_path / "pipeline")
    assert accuracy_on(folder, "FashionMNIST", validation=5000) >= 0.84
