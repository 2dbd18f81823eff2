"""The command that answers, against the model that `train` wrote and PyTorch's own arithmetic."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from stages.formats.model_file import LogisticRegression
from stages.formats.split_file import LabelledImages
from stages.images.decoding import Unreadable
from stages.images.preprocessing import Preprocessing
from stages.predict import Model, answers, find_pictures, model_of_the_pipeline
from stages.train import Splits, TrainParams, fit
from tests.conftest import ROOT

Make = Callable[..., LabelledImages]
CLASSES = ("猫", "a dog", "Äpfel")


@pytest.fixture
def split(make_images: Make) -> LabelledImages:
    made = make_images(n=90, k=3, shape=(3, 8, 10))
    return LabelledImages(made.images, made.labels, CLASSES, "pad")


@pytest.fixture
def model_path(tmp_path: Path, split: LabelledImages) -> Path:
    """A model of pictures of 8 x 10 pixels in colour, as `train` writes it."""
    params = TrainParams.load(ROOT / "params.yaml", "train").model_copy(update={"iterations": 50})
    path = tmp_path / "a model.safetensors"
    fit(params, Splits(split, split)).save(path, params.model_dump())
    return path


@pytest.fixture
def folder(tmp_path: Path, split: LabelledImages) -> Path:
    """The split's pictures as PNG files, in folders with spaces and other scripts."""
    folder = tmp_path / "my 图片"
    for i, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
        path = folder / CLASSES[label] / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return folder


def run(*arguments: str, folder: Path = ROOT, text: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "stages.predict", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )


def all_answers(model: Path, pictures: Sequence[str], top: int) -> list[list[tuple[str, float]]]:
    return [a for a in answers(Model.load(model), pictures, top) if not isinstance(a, Unreadable)]


def test_probabilities_are_those_of_the_model_in_pytorch(
    model_path: Path, folder: Path, split: LabelledImages
) -> None:
    expected = LogisticRegression.load(model_path)(split.images).exp()  # (N, K)
    pictures = sorted(find_pictures([str(folder)]), key=lambda path: Path(path).name)
    found = all_answers(model_path, pictures, top=3)
    assert len(found) == len(split)
    for answer, p in zip(found, expected, strict=True):
        order = p.argsort(descending=True)
        assert [label for label, _ in answer] == [CLASSES[i] for i in order]
        np.testing.assert_allclose([q for _, q in answer], p[order], rtol=1e-12)
        assert sum(q for _, q in answer) == pytest.approx(1)


def test_huge_logits_give_probabilities_all_the_same() -> None:
    model = Model(
        np.array([[3e6], [-3e6]]), np.zeros(2), ("a", "b"), Preprocessing(1, (1, 1), "crop")
    )
    p = model.probabilities(np.array([[255], [0]], dtype=np.uint8))
    np.testing.assert_array_equal(p, [[1, 0], [0.5, 0.5]])


def test_a_picture_of_another_shape_is_made_to_fit_as_in_training(
    tmp_path: Path, model_path: Path
) -> None:
    picture = Image.radial_gradient("L").resize((300, 90)).convert("CMYK")
    picture.save(tmp_path / "wide.tif")
    padded = Preprocessing(3, (8, 10), "pad")(picture)
    images = torch.from_numpy(np.array(padded)).permute(2, 0, 1)[None]
    expected = LogisticRegression.load(model_path)(images).exp().max()
    ((_, p),) = all_answers(model_path, [str(tmp_path / "wide.tif")], top=1)[0]
    assert p == pytest.approx(float(expected), rel=1e-12)


def test_one_line_a_picture_in_each_format(model_path: Path, folder: Path) -> None:
    pictures = [str(path) for path in sorted(folder.rglob("*.png"))[:3]]
    expected = all_answers(model_path, pictures, top=2)
    command = ["--model", str(model_path), "--top", "2"]

    lines = run(*pictures, *command).stdout.splitlines()
    assert lines == [
        f"{picture}: {a} {p:.2%}, {b} {q:.2%}"
        for picture, ((a, p), (b, q)) in zip(pictures, expected, strict=True)
    ]
    objects = [json.loads(line) for line in run(*pictures, *command, "--json").stdout.splitlines()]
    assert objects == [
        {
            "picture": picture,
            "labels": [{"label": n, "probability": round(p, 6)} for n, p in answer],
        }
        for picture, answer in zip(pictures, expected, strict=True)
    ]
    rows = list(csv.reader(io.StringIO(run(*pictures, *command, "--csv").stdout)))
    assert rows == [
        ["picture", "rank", "label", "probability"],
        *(
            [picture, str(rank), label, f"{p:.6f}"]
            for picture, answer in zip(pictures, expected, strict=True)
            for rank, (label, p) in enumerate(answer, start=1)
        ),
    ]


def test_folders_and_a_list_on_standard_input_are_files_too(model_path: Path, folder: Path) -> None:
    (folder / "notes.txt").write_text("no picture")
    of_folder = run(str(folder), "--model", str(model_path))
    assert (of_folder.returncode, of_folder.stderr) == (0, "")
    listed = "\n".join(find_pictures([str(folder)])) + "\n\n"
    assert run("-", "--model", str(model_path), text=listed).stdout == of_folder.stdout
    assert len(of_folder.stdout.splitlines()) == 90


def test_a_picture_that_cannot_be_read_is_told_and_the_others_are_answered(
    tmp_path: Path, model_path: Path, folder: Path
) -> None:
    good = [str(path) for path in sorted(folder.rglob("*.png"))[:2]]
    broken, missing = tmp_path / "broken.png", tmp_path / "missing.png"
    broken.write_bytes(Path(good[0]).read_bytes()[:60])
    result = run(good[0], str(broken), str(missing), good[1], "--model", str(model_path))
    assert result.returncode == 1
    assert [line.split(": ")[0] for line in result.stdout.splitlines()] == good
    errors = result.stderr.splitlines()
    assert errors[0].startswith(f"{broken}: cannot be read: ")
    assert errors[1] == f"{missing}: cannot be read: No such file or directory"
    assert len(errors) == 2


def test_what_cannot_be_looked_at_is_told_too(
    tmp_path: Path, model_path: Path, folder: Path
) -> None:
    good = str(next(folder.rglob("*.png")))
    forged = tmp_path / "x\nfine.png: cat 99%.png"
    forged.write_bytes(Path(good).read_bytes())
    result = run("a" * 300, str(forged), good, "--model", str(model_path))
    assert result.returncode == 1
    assert len(result.stdout.splitlines()) == 2
    assert result.stderr == f"{'a' * 300}: cannot be read: File name too long\n"


def test_lists_may_be_empty_or_come_from_windows(model_path: Path, folder: Path) -> None:
    good = [str(path) for path in sorted(folder.rglob("*.png"))[:2]]
    command = ("-", "-", good[0], "--model", str(model_path))
    assert len(run(*command).stdout.splitlines()) == 1
    assert len(run(*command, text="\r\n".join(good)).stdout.splitlines()) == 3


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"fit": "squash"}, "fit squash"),
        ({"image_shape": [2, 8, 10]}, "channels 2"),
        ({"image_shape": [3, 8, 11]}, "weights"),
        ({"classes": ["a", "b"]}, "weights"),
        ({"classes": ["a", "a", "b"]}, "'a', 'a', 'b'"),
        ({"image_shape": None}, "cannot unpack"),
    ],
)
def test_a_model_that_is_none_is_told(
    tmp_path: Path, model_path: Path, changes: dict[str, Any], problem: str
) -> None:
    with safe_open(model_path, framework="np") as file:
        weights = {name: file.get_tensor(name) for name in ("weight", "bias")}
        about = json.loads(file.metadata()["model"]) | changes
    save_file(weights, tmp_path / "other", {"model": json.dumps(about)})
    with pytest.raises(ValueError, match=rf"other: not a model of this pipeline \(.*{problem}"):
        Model.load(tmp_path / "other")


def test_a_model_that_is_not_finite_is_told(tmp_path: Path, model_path: Path) -> None:
    with safe_open(model_path, framework="np") as file:
        weights = {name: file.get_tensor(name) for name in ("weight", "bias")}
        metadata = file.metadata()
    weights["bias"][0] = np.nan
    save_file(weights, tmp_path / "other", metadata)
    with pytest.raises(ValueError, match="weights that are not finite"):
        Model.load(tmp_path / "other")


def test_without_a_name_the_model_is_the_pipelines(tmp_path: Path, model_path: Path) -> None:
    assert model_of_the_pipeline_in(ROOT) == Path("data/model.safetensors")
    (tmp_path / "dvc.yaml").write_text(
        f"artifacts:\n  mine:\n    path: {model_path.name}\n    type: model\n"
    )
    Image.new("L", (3, 3)).save(tmp_path / "x.png")
    assert run("x.png", folder=tmp_path).stdout.startswith("x.png: ")


def model_of_the_pipeline_in(folder: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return model_of_the_pipeline()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("x.png",), "error: no dvc.yaml in this folder; name the model with --model"),
        (("x.png", "--model", "no such"), "error: no such: no such file; `dvc repro` makes the"),
        (("x.png", "--model", "text"), "error: text: not a model of this pipeline ("),
        (("-", "--model", "a model.safetensors"), "error: no pictures there; expected files,"),
        (("x.png", "--json", "--csv"), "error: --json and --csv: expected one of them at most"),
    ],
    ids=["no pipeline", "no model", "another file", "an empty list", "two formats"],
)
def test_bad_input_is_told_in_a_line(
    tmp_path: Path, model_path: Path, arguments: tuple[str, ...], problem: str
) -> None:
    assert model_path.parent == tmp_path
    (tmp_path / "text").write_text("text")
    result = run(*arguments, folder=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(problem)
    assert result.stderr.count("\n") == 1
