"""The command predict, compared with the model's own probabilities for a split's images."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.evaluate import EvaluateParams, evaluate
from stages.formats.model_file import Model
from stages.formats.split_file import Split
from stages.images.decoding import Unreadable
from stages.images.inputs import compute_features, feature_count
from stages.images.preprocessing import Preprocessing
from stages.predict import answers, find_pictures, model_of_the_pipeline
from tests.conftest import ROOT
from tests.splits import pixel_split

Make = Callable[..., Split]
CLASSES = ("猫", "a dog", "Äpfel")


@pytest.fixture
def split(make_images: Make) -> Split:
    made = make_images(n=90, k=3, shape=(3, 8, 10))
    return pixel_split(made.images, made.labels, CLASSES, "pad")


@pytest.fixture
def model_path(tmp_path: Path, split: Split) -> Path:
    """A model of pictures of 8 x 10 pixels in colour, which pads others."""
    path = tmp_path / "a model.safetensors"
    weight = np.random.default_rng(0).normal(0, 0.1, (3, 240))
    Model(weight, np.array([0.1, 0.2, -0.3]), CLASSES, split.spec).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path, split: Split) -> Path:
    """The split's pictures as PNG files, in folders with spaces and other scripts."""
    folder = tmp_path / "my 图片"
    for i, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
        path = folder / CLASSES[label] / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(path)
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
        timeout=120,
    )


def all_answers(model: Path, pictures: Sequence[str], top: int) -> list[list[tuple[str, float]]]:
    return [a for a in answers(Model.load(model), pictures, top) if not isinstance(a, Unreadable)]


def test_answers_for_files_equal_the_models_for_the_same_images(
    model_path: Path, folder: Path, split: Split
) -> None:
    expected = np.exp(Model.load(model_path).log_probabilities(split.features))  # (N, K)
    pictures = sorted(find_pictures([str(folder)]), key=lambda path: Path(path).name)
    found = all_answers(model_path, pictures, top=3)
    assert len(found) == len(split)
    for answer, p in zip(found, expected, strict=True):
        order = p.argsort()[::-1]
        assert [label for label, _ in answer] == [CLASSES[i] for i in order]
        np.testing.assert_allclose([q for _, q in answer], p[order], rtol=1e-12)
        assert sum(q for _, q in answer) == pytest.approx(1)


@pytest.mark.parametrize(("kind", "deskewed"), [("gradients", True), ("pixels", True)])
def test_answers_for_files_equal_the_predictions_of_evaluate_for_the_same_images(
    tmp_path: Path, folder: Path, split: Split, kind: str, deskewed: bool
) -> None:
    spec = replace(split.spec, features=kind, deskew=deskewed)
    pictures = sorted(find_pictures([str(folder)]), key=lambda path: Path(path).name)
    names = np.frombuffer("".join(f"{path}\n" for path in pictures).encode(), np.uint8)
    features = compute_features(split.images, spec)
    test = Split(features, split.labels, CLASSES, spec, names, split.images)
    test.save(tmp_path / "test")
    weight = np.random.default_rng(0).normal(0, 0.02, (3, features.shape[1]))
    Model(weight, np.zeros(3), CLASSES, spec).save(tmp_path / "model")
    params = EvaluateParams(batch_size=7, calibration_bins=5, mistakes=3)
    (tmp_path / "history").write_text("iteration,training_loss\n")
    paths = ("model", "test", "history", "metrics.json", "predictions.csv", "plots", "page", "card")
    evaluate(params, *(tmp_path / name for name in paths))

    result = run(*pictures, "--model", str(tmp_path / "model"), "--csv")
    assert result.stderr == ""
    found = list(csv.DictReader(io.StringIO(result.stdout)))
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        expected = list(csv.DictReader(file))
    assert [tuple(row.values()) for row in found] == [
        (row["picture"], "1", row["predicted"], row["confidence"]) for row in expected
    ]
    assert len({row["predicted"] for row in expected}) > 1


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_model_with_other_features_than_the_codes_is_refused_in_one_line(
    tmp_path: Path, split: Split, difference: int
) -> None:
    spec = replace(split.spec, features="gradients")
    expected = feature_count(spec)
    weight = np.zeros((3, expected + difference))
    Model(weight, np.zeros(3), CLASSES, spec).save(tmp_path / "model")
    result = run("x.png", "--model", "model", folder=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (
        2,
        "",
        f"error: model: found weights for {expected + difference} gradients; expected {expected}:"
        " another release of this pipeline made it\n",
    )


def test_a_picture_of_another_shape_is_fitted_as_in_training(
    tmp_path: Path, model_path: Path
) -> None:
    picture = Image.radial_gradient("L").resize((300, 90)).convert("CMYK")
    picture.save(tmp_path / "wide.tif")
    padded = Preprocessing(3, (8, 10), "pad")(picture)
    pixels = np.asarray(padded).transpose(2, 0, 1).reshape(1, 240)
    expected = np.exp(Model.load(model_path).log_probabilities(pixels)).max()
    ((_, p),) = all_answers(model_path, [str(tmp_path / "wide.tif")], top=1)[0]
    assert p == pytest.approx(expected, rel=1e-12)


def test_there_is_one_answer_per_picture_in_each_format(model_path: Path, folder: Path) -> None:
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


def test_pictures_are_also_taken_from_folders_and_from_a_list_on_standard_input(
    model_path: Path, folder: Path
) -> None:
    (folder / "notes.txt").write_text("no picture")
    of_folder = run(str(folder), "--model", str(model_path))
    assert (of_folder.returncode, of_folder.stderr) == (0, "")
    listed = "\n".join(find_pictures([str(folder)])) + "\n\n"
    assert run("-", "--model", str(model_path), text=listed).stdout == of_folder.stdout
    assert len(of_folder.stdout.splitlines()) == 90


def test_an_unreadable_picture_is_reported_and_the_others_are_answered(
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


def test_a_name_too_long_is_reported_and_a_line_feed_in_a_name_forges_no_answer(
    tmp_path: Path, model_path: Path, folder: Path
) -> None:
    good = str(next(folder.rglob("*.png")))
    forged = tmp_path / "x\nfine.png: cat 99%.png"
    forged.write_bytes(Path(good).read_bytes())
    result = run("a" * 300, str(forged), good, "--model", str(model_path))
    assert result.returncode == 1
    assert len(result.stdout.splitlines()) == 2
    assert result.stderr == f"{'a' * 300}: cannot be read: File name too long\n"


def test_a_name_on_standard_input_that_is_not_utf_8_leaves_the_others_answered(
    model_path: Path, folder: Path
) -> None:
    good = str(next(folder.rglob("*.png")))
    odd = os.fsencode(folder) + b"/caf\xe9.png"
    Path(os.fsdecode(odd)).write_bytes(Path(good).read_bytes())
    result = subprocess.run(
        [sys.executable, "-m", "stages.predict", "-", "--model", str(model_path)],
        cwd=ROOT,
        input=b"\n".join([b"\xff.png", odd, good.encode()]),
        capture_output=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.decode() == "\\udcff.png: cannot be read: No such file or directory\n"
    first, second = result.stdout.decode().splitlines()
    assert first.startswith(f"{folder}/caf\\udce9.png: ")
    assert second.startswith(f"{good}: ")


def test_control_characters_of_names_do_not_reach_a_terminal(tmp_path: Path, split: Split) -> None:
    classes = ("\x1b[2J", "b", "c")
    Model(np.zeros((3, 240)), np.array([1.0, 0, 0]), classes, split.spec).save(tmp_path / "model")
    Image.new("L", (8, 8)).save(tmp_path / "\x1b[31mred\n.png")
    for options in ((), ("--csv",), ("--json",)):
        result = run(str(tmp_path), "--model", str(tmp_path / "model"), *options)
        assert result.returncode == 0
        assert "\x1b" not in result.stdout
        assert len(result.stdout.splitlines()) == (2 if options == ("--csv",) else 1)
        assert "[2J" in result.stdout


def test_a_list_on_standard_input_may_be_empty_or_come_from_windows(
    model_path: Path, folder: Path
) -> None:
    good = [str(path) for path in sorted(folder.rglob("*.png"))[:2]]
    command = ("-", "-", good[0], "--model", str(model_path))
    assert len(run(*command).stdout.splitlines()) == 1
    assert len(run(*command, text="\r\n".join(good)).stdout.splitlines()) == 3


def test_the_default_model_comes_from_dvc_yaml_in_the_working_folder(
    tmp_path: Path, model_path: Path
) -> None:
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
        (("x.png",), "error: --model: found none, and no dvc.yaml in this folder that names one;"),
        (("x.png", "--model", "no such"), "error: no such: no such file; expected a model: `dvc "),
        (("x.png", "--model", "text"), "error: text: not a model of this pipeline ("),
        (("-", "--model", "a model.safetensors"), "error: no pictures there; expected files,"),
        (("x.png", "--json", "--csv"), "error: --json and --csv: expected one of them at most"),
    ],
    ids=["no pipeline", "no model", "another file", "an empty list", "two formats"],
)
def test_predict_reports_bad_input_in_one_line(
    tmp_path: Path, model_path: Path, arguments: tuple[str, ...], problem: str
) -> None:
    assert model_path.parent == tmp_path
    (tmp_path / "text").write_text("text")
    result = run(*arguments, folder=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(problem)
    assert result.stderr.count("\n") == 1
