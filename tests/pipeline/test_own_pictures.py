"""Pictures of one's own, through the whole pipeline, as the documentation describes it."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from stages.sources.known_datasets import fetch
from tests.conftest import ROOT
from tests.pipeline.test_mnist import USERS_MIRROR
from tests.pipelines import (
    OWN_PICTURES,
    commit,
    copy_of_the_pipeline,
    draw_animals,
    run,
    set_params,
    stages_run,
)

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where dataset-fashion-mnist puts it


def metrics(folder: Path) -> dict[str, float]:
    return dict(json.loads((folder / "data/metrics.json").read_text(encoding="utf-8")))


def test_the_tiny_pipeline_is_built_by_the_documented_lines() -> None:
    page = (ROOT / "docs/own_pictures.md").read_text(encoding="utf-8")
    assert f"\n```\n{OWN_PICTURES}```\n" in page


def test_one_command_gives_a_committed_model_of_own_pictures(pipeline: Path) -> None:
    measured = metrics(pipeline)
    assert measured["images"] == 12  # a fifth of each class
    assert measured["baseline_accuracy"] == pytest.approx(1 / 3, abs=1e-6)
    assert measured["accuracy"] > 0.6
    assert set(measured["recall"]) == {"猫 咪", "a dog", "Äpfel"}  # type: ignore[call-overload]  # a mapping within
    assert run(pipeline, "git", "status", "--short") == ""
    tracked = run(pipeline, "git", "ls-files", "pictures").split()
    assert tracked == ["pictures/.gitignore", "pictures/README.md", "pictures/animals.dvc"]


def test_a_model_of_own_pictures_passes_the_gate(pipeline: Path) -> None:
    assert run(pipeline, "python", "-m", "stages.gate", "--base", "HEAD").startswith("PASSED")


def files_in(folder: Path) -> dict[str, tuple[int, int]]:
    """The size and the time of the last change of every file, but for DVC's own."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and not {".git", "tmp", "__pycache__"} & set(path.parts)
    }


def test_the_same_pictures_again_change_nothing_and_params_of_ones_own_stay(
    pipeline: Path, tmp_path: Path
) -> None:
    draw_animals(tmp_path / "animals")
    before = files_in(pipeline)
    output = run(pipeline, "python", "-m", "stages.pictures", str(tmp_path / "animals"))
    assert "pictures/animals: there already\nparams.yaml: as it is\n" in output
    assert "note: 12 test pictures tell little" in output
    assert re.search(r"^accuracy [\d.]+% \(95 % interval: [\d.]+% to [\d.]+%\)", output, re.M)
    assert files_in(pipeline) == before
    assert run(pipeline, "git", "status", "--short") == ""


def test_a_dry_run_says_what_it_would_do_and_changes_nothing(
    pipeline: Path, tmp_path: Path
) -> None:
    draw_animals(tmp_path / "pets")
    (tmp_path / "pets/a dog/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    shutil.copy(tmp_path / "pets/a dog/图片 09.png", tmp_path / "pets/猫 咪/copy.png")
    before = files_in(pipeline)
    output = run(pipeline, "python", "-m", "stages.pictures", "--dry-run", str(tmp_path / "pets"))
    assert f"broken: 1, left out: {tmp_path}/pets/a dog/broken.png (" in output
    two = (f"{tmp_path}/pets/{name}" for name in ("猫 咪/copy.png", "a dog/图片 09.png"))
    assert f"duplicates: 1 picture stands in two classes: {' and '.join(two)}\n" in output
    copies = "a copy, added to DVC, which keeps another; a third goes to data/raw"
    assert f"pictures/pets: {copies}\n" in output
    assert "tensorize.skip_broken true (was false)" in output
    assert "download.dataset pictures/pets (was pictures/animals)" in output
    assert output.endswith("nothing has been changed: this was a dry run\n")
    assert files_in(pipeline) == before


def test_pictures_that_dvc_does_not_have_are_never_replaced(pipeline: Path, tmp_path: Path) -> None:
    draw_animals(tmp_path / "animals")
    command = ("python", "-m", "stages.pictures", str(tmp_path / "animals"))
    own = pipeline / "pictures/animals/a dog/of my own.png"
    Image.new("RGB", (30, 40), (20, 220, 30)).save(own)
    before = files_in(pipeline)
    with pytest.raises(AssertionError, match="with changes that DVC does not have"):
        run(pipeline, *command)
    assert files_in(pipeline) == before
    run(pipeline, "dvc", "add", "pictures/animals")
    run(pipeline, "git", "commit", "--quiet", "--all", "--message", "one more")
    assert "other pictures, which are replaced; DVC keeps them" in run(pipeline, *command)
    assert not own.exists()
    run(pipeline, "git", "checkout", "pictures/animals.dvc")
    run(pipeline, "dvc", "checkout", "--force", "pictures/animals.dvc")
    assert own.exists()


def test_the_params_alone_give_a_model_of_a_folder_of_mixed_pictures(tmp_path: Path) -> None:
    folder = copy_of_the_pipeline(tmp_path / "pipeline")
    set_params(folder, {"train.iterations": 300})
    commit(folder)
    draw_animals(folder / "pictures/animals")
    run(folder, "dvc", "add", "pictures/animals")
    run(folder, "dvc", "exp", "run", "-S", "download.dataset=pictures/animals")
    assert metrics(folder)["accuracy"] > 0.9


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
    automatic = split.read_bytes()
    set_params(pipeline, {"tensorize.size": 16})
    assert stages_run(run(pipeline, "dvc", "repro", "tensorize")) == ["tensorize"]
    assert split.read_bytes() != automatic
    set_params(pipeline, {"tensorize.size": "auto"})
    assert stages_run(run(pipeline, "dvc", "repro", "tensorize")) == []
    assert split.read_bytes() == automatic


def test_a_broken_picture_stops_the_pipeline_unless_skip_broken_is_set(pipeline: Path) -> None:
    (pipeline / "pictures/animals/a dog/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(
        AssertionError,
        match=r"unreadable pictures: found 1, such as pictures/animals/a dog/broken\.png \(",
    ):
        run(pipeline, "dvc", "repro")
    set_params(pipeline, {"tensorize.skip_broken": True})
    run(pipeline, "dvc", "repro", "tensorize")
    with (pipeline / "data/skipped.csv").open(encoding="utf-8") as file:
        assert [row["picture"] for row in csv.DictReader(file)] == [
            "pictures/animals/a dog/broken.png"
        ]


def accuracy_on(folder: Path, dataset: str) -> float:
    """The test accuracy after `dvc repro` on another data set."""
    set_params(folder, {"download.dataset": dataset})
    run(folder, "dvc", "repro")
    return metrics(folder)["accuracy"]


def test_digits_in_a_folder_of_pngs_reach_94_percent(tmp_path: Path) -> None:
    folder = copy_of_the_pipeline(tmp_path / "pipeline")
    digits = load_digits()
    for i, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / f"pictures/digits/{label}/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).round().astype(np.uint8)).save(path)
    assert accuracy_on(folder, "pictures/digits") >= 0.94


@pytest.mark.mnist
def test_fashion_mnist_is_one_name_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = tmp_path / "mirror"
    try:
        fetch("FashionMNIST", mirror, str(DEBIAN) if DEBIAN.is_dir() else USERS_MIRROR)
    except (OSError, ValueError) as error:
        pytest.skip(f"Fashion-MNIST cannot be downloaded here: {error}")
    monkeypatch.setenv("DATASET_MIRROR", str(mirror))
    folder = copy_of_the_pipeline(tmp_path / "pipeline")
    set_params(folder, {"train.iterations": 500})
    assert accuracy_on(folder, "FashionMNIST") >= 0.84
