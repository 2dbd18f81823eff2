"""Pictures of one's own, through the whole pipeline, as the README tells it."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from stages.sources.known_datasets import fetch
from tests.conftest import ROOT
from tests.pipeline.test_repro import USERS_MIRROR
from tests.pipelines import commit, copy_of_the_pipeline, run, stages_run

README = (ROOT / "README.md").read_text(encoding="utf-8")
FIVE_LINES = README.split("## Your own pictures")[1].split("```")[1].strip().splitlines()
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where dataset-fashion-mnist puts it


def draw(folder: Path, pictures_a_class: int = 20) -> None:
    """Colour pictures of three classes in many formats, modes and sizes."""
    random = np.random.default_rng(0)
    for channel, name in enumerate(("猫 咪", "a dog", "Äpfel")):
        (folder / name).mkdir(parents=True)
        for i in range(pictures_a_class):
            height, width = random.integers(20, 90, 2)
            pixels = random.integers(0, 120, (height, width, 3), dtype=np.uint8)
            pixels[..., channel] += 120
            save_in_some_format(Image.fromarray(pixels), folder / name / f"图片 {i:02}", i)


def save_in_some_format(image: Image.Image, path: Path, which: int) -> None:
    match which % 10:
        case 0:
            image.save(f"{path}.jpg")
        case 1:
            image.save(f"{path}.webp")
        case 2:
            image.save(f"{path}.gif")
        case 3:
            image.quantize(64).save(f"{path}.png")
        case 4:
            image.convert("CMYK").save(f"{path}.JPEG")
        case 5:
            image.putalpha(200)
            image.save(f"{path}.png")
        case 6:
            image.quantize(64).save(f"{path}.png", transparency=0)
        case 7:
            image.save(f"{path}.tif")
        case 8:
            image.save(f"{path}.bmp")
        case _:
            image.save(f"{path}.png")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline after the README's five lines, typed as they stand there."""
    folder = copy_of_the_pipeline(tmp_path_factory.mktemp("own") / "with a space")
    commit(folder)
    home = tmp_path_factory.mktemp("home")
    draw(home / "animals")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        for line in FIVE_LINES:
            output = run(folder, "sh", "-c", line)
    assert output.startswith("PASSED")
    return folder


def metrics(folder: Path) -> dict[str, float]:
    return dict(json.loads((folder / "data/metrics.json").read_text(encoding="utf-8")))


def test_five_lines_lead_to_a_gated_model(own: Path) -> None:
    assert len(FIVE_LINES) == 5
    measured = metrics(own)
    assert measured["images"] == 12  # a fifth of each class
    assert measured["baseline_accuracy"] == pytest.approx(1 / 3, abs=1e-6)
    assert measured["accuracy"] > 0.6
    assert set(measured["recall"]) == {"猫 咪", "a dog", "Äpfel"}  # type: ignore[call-overload]  # a mapping within
    assert run(own, "git", "status", "--short") == ""


def test_the_model_answers_about_new_pictures(own: Path) -> None:
    draw(own / "new", pictures_a_class=10)
    lines = run(own, "python", "-m", "stages.predict", "new").splitlines()
    assert len(lines) == 30
    right = sum(line.split("/")[1] in line.split(": ")[1] for line in lines)
    assert right > 25
    shutil.rmtree(own / "new")


def test_a_new_picture_reruns_what_it_must(own: Path) -> None:
    assert stages_run(run(own, "dvc", "repro")) == []
    new = own / "pictures/animals/a dog/a new one.png"
    Image.new("RGB", (30, 40), (20, 220, 30)).save(new)
    assert stages_run(run(own, "dvc", "repro")) == ["download", "tensorize", "train", "evaluate"]
    new.unlink()
    assert stages_run(run(own, "dvc", "repro")) == []  # the run cache has what was before
    assert run(own, "git", "status", "--short") == ""


def pictures_tested(folder: Path) -> set[str]:
    with (folder / "data/predictions.csv").open(encoding="utf-8", newline="") as file:
        return {row["picture"] for row in csv.DictReader(file)}


def test_a_new_picture_leaves_the_test_images_where_they_are(own: Path) -> None:
    before = pictures_tested(own)
    new = own / "pictures/animals/a dog/a new one.png"
    Image.new("RGB", (30, 40), (20, 220, 30)).save(new)
    run(own, "dvc", "repro")
    assert len(pictures_tested(own) - before) <= 1
    new.unlink()
    run(own, "dvc", "repro")


def test_every_param_of_tensorize_reruns_it_back_and_forth(own: Path) -> None:
    tensors = own / "data/tensors/test.safetensors"
    before = tensors.read_bytes()
    for key, value in (("size", "16"), ("channels", "1"), ("fit", "pad"), ("seed", "1")):
        run(own, "dvc", "exp", "run", "-S", f"tensorize.{key}={value}")
        assert tensors.read_bytes() != before, key
        run(own, "git", "checkout", "--quiet", ".")
        run(own, "dvc", "repro")
        assert tensors.read_bytes() == before, key


def test_a_broken_picture_is_left_out_and_listed_if_one_says_so(own: Path) -> None:
    broken = own / "pictures/animals/a dog/broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(
        AssertionError, match=r"unreadable pictures: found 1, such as train/a dog/broken\.png \("
    ):
        run(own, "dvc", "repro")
    run(own, "dvc", "exp", "run", "-S", "tensorize.skip_broken=true")
    with (own / "data/skipped.csv").open(encoding="utf-8") as file:
        assert [row["picture"] for row in csv.DictReader(file)] == ["train/a dog/broken.png"]
    broken.unlink()
    run(own, "git", "checkout", "--quiet", ".")
    run(own, "dvc", "checkout", "--quiet")


def pipeline_on(folder: Path, dataset: str, **params: str) -> float:
    """The test accuracy after `dvc exp run` on another data set."""
    settings = {"download.dataset": dataset} | {f"tensorize.{k}": v for k, v in params.items()}
    run(folder, "dvc", "exp", "run", *(f"-S{key}={value}" for key, value in settings.items()))
    return metrics(folder)["accuracy"]


def test_digits_as_a_folder_of_pictures(tmp_path: Path) -> None:
    folder = copy_of_the_pipeline(tmp_path / "pipeline")
    commit(folder)
    digits = load_digits()
    for i, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / f"pictures/digits/{label}/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).round().astype(np.uint8)).save(path)
    assert pipeline_on(folder, "pictures/digits", validation="0.1") >= 0.94


@pytest.mark.mnist
def test_fashion_mnist_is_one_name_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = tmp_path / "mirror"
    try:
        fetch("FashionMNIST", mirror, str(DEBIAN) if DEBIAN.is_dir() else USERS_MIRROR)
    except (OSError, ValueError) as error:
        pytest.skip(f"Fashion-MNIST cannot be had here: {error}")
    monkeypatch.setenv("DATASET_MIRROR", str(mirror))
    folder = copy_of_the_pipeline(tmp_path / "pipeline")
    commit(folder)
    assert pipeline_on(folder, "FashionMNIST") >= 0.84
