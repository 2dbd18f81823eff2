import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.formats.input_spec import InputSpec
from stages.formats.model_file import Model, rounded
from stages.formats.split_file import Split
from stages.train import LARGE_GAP, train, warn_of_gap
from stages.training.history import Row
from stages.training.stability import FIRST_STEPS, LIMIT
from tests.splits import pixel_split
from tests.training.runs import final_margin, last_step, make_params, save_splits

Make = Callable[..., Split]


def test_train_writes_the_same_bytes_when_run_again(tmp_path: Path, make_images: Make) -> None:
    contents = []
    for folder in ("one", "the other"):
        paths = save_splits(tmp_path / folder, make_images(), make_images(seed=1))
        train(make_params(), *paths)
        contents.append([path.read_bytes() for path in paths])
    assert contents[0] == contents[1]


def test_train_writes_the_last_steps_weights_in_float32_and_its_params(
    tmp_path: Path, make_images: Make
) -> None:
    made = make_images(shape=(3, 2, 5))
    split = pixel_split(made.images, made.labels, ("猫", "b", "c"), "pad")
    *_, model_path, _, _ = paths = save_splits(tmp_path, split, split)
    train(make_params(), *paths)
    model, step = Model.load(model_path), last_step(split)
    for found, exact in ((model.weight, step.weight), (model.bias, step.bias)):
        assert np.array_equal(found, rounded(exact.numpy()))
    assert (model.classes, model.spec) == (split.classes, InputSpec(3, 2, 5, "pad"))
    assert model.serialized() == model_path.read_bytes()


def test_train_prints_the_rows_that_it_writes(
    tmp_path: Path, make_images: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = save_splits(tmp_path, make_images(), make_images(seed=1))
    train(make_params(iterations=25), *paths)
    names, *rows = [line.split(",") for line in paths[3].read_text().splitlines()]
    assert names == ["iteration", "training_loss", "validation_loss", "validation_accuracy"]
    assert [row[0] for row in rows] == ["10", "20", "25"]
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    printed = [words for words in printed if words[0] == "iteration"]
    for line, row in zip(printed, rows, strict=True):
        assert line[1] == row[0]
        assert [line[4], line[7]] == [f"{float(loss):.4f}" for loss in row[1:3]]
        assert line[9] == f"{float(row[3]):.2%}"


def test_train_without_a_validation_split_leaves_its_columns_empty(
    tmp_path: Path, make_images: Make
) -> None:
    paths = save_splits(tmp_path, make_images(), make_images(n=0))
    train(make_params(), *paths)
    _, *rows = [line.split(",") for line in paths[3].read_text().splitlines()]
    assert [row[2:] for row in rows] == [["", ""]] * 2


@pytest.mark.parametrize("images", [60, 0])
def test_train_publishes_the_last_row_as_metrics_for_choosing_params(
    tmp_path: Path, make_images: Make, images: int
) -> None:
    paths = save_splits(tmp_path, make_images(), make_images(n=images, seed=1))
    train(make_params(iterations=25), *paths)
    with paths[3].open(newline="") as file:
        *_, row = csv.DictReader(file)
    columns = {"training_loss": "training_loss"}
    if images:
        columns |= {
            "validation_accuracy": "validation_accuracy",
            "validation_cross_entropy": "validation_loss",
        }
    expected = {name: float(row[column]) for name, column in columns.items()}
    assert len(set(expected.values())) == len(columns)
    if images:
        expected["validation_images"] = images
    text = paths[4].read_text()
    assert json.loads(text) == expected
    assert text == json.dumps(expected, indent=2, sort_keys=True) + "\n"


@pytest.mark.parametrize(("unlike", "noted"), [(False, False), (True, True)])
def test_train_notes_in_one_line_that_validation_is_far_behind_training(
    tmp_path: Path,
    make_images: Make,
    capsys: pytest.CaptureFixture[str],
    unlike: bool,
    noted: bool,
) -> None:
    training = make_images()
    paths = save_splits(tmp_path, training, make_images(seed=1) if unlike else training)
    train(make_params(iterations=200), *paths)
    found = json.loads(paths[4].read_text())
    gap = found["validation_cross_entropy"] - found["training_loss"]
    assert (gap > LARGE_GAP) == unlike
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert len(notes) == noted
    for note in notes:
        for loss in ("validation_cross_entropy", "training_loss"):
            assert f"loss, {found[loss]:.2f}" in note
        assert "raise train.weight_decay or lower train.iterations" in note


@pytest.mark.parametrize(
    ("validation_loss", "noted"), [(0.5, False), (0.75, False), (0.76, True), (None, False)]
)
def test_the_gap_to_validation_is_noted_only_beyond_its_limit(
    capsys: pytest.CaptureFixture[str], validation_loss: float | None, noted: bool
) -> None:
    warn_of_gap(Row(10, 0.5, validation_loss, None if validation_loss is None else 0.9))
    assert capsys.readouterr().out.startswith("note: the validation loss, 0.76 nats") == noted


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_train_notes_on_standard_error_the_margin_and_a_rate_at_which_there_is_no_note(
    tmp_path: Path, make_images: Make, capsys: pytest.CaptureFixture[str], schedule: str
) -> None:
    split = make_images(n=200)
    split.labels[:] = np.random.default_rng(1).permutation(split.labels)  # not separable
    paths = save_splits(tmp_path, split, split)
    params = make_params(learning_rate=5.0, schedule=schedule, iterations=300)
    train(params, *paths)
    margin = final_margin(split, params)
    assert margin > LIMIT
    (note,) = capsys.readouterr().err.splitlines()
    assert f"expected to publish {margin:.0f} of 63 weights differently" in note
    found = re.search(r"lower train.learning_rate; (\S+) is stable here", note)
    assert found
    assert float(found[1]) < 5.0
    train(params.model_copy(update={"learning_rate": float(found[1])}), *paths)
    assert capsys.readouterr().err == ""


def test_train_notes_an_unstable_run_shorter_than_the_check(
    tmp_path: Path, make_images: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    split = make_images(n=200)
    split.labels[:] = np.random.default_rng(1).permutation(split.labels)
    paths = save_splits(tmp_path, split, split)
    train(make_params(learning_rate=20.0, iterations=FIRST_STEPS - 5), *paths)
    assert "lower train.learning_rate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"learning_rate": 1e308}, "iteration 2: the loss is"),
        ({"learning_rate": 1e40, "iterations": 1}, "beyond float32: lower train.learning_rate"),
    ],
)
def test_train_that_fails_leaves_older_outputs_alone(
    tmp_path: Path, make_images: Make, params: dict[str, Any], problem: str
) -> None:
    paths = save_splits(tmp_path, make_images(), make_images())
    paths[2].write_text("an older model")
    with pytest.raises(ValueError, match=problem):
        train(make_params(**params), *paths)
    assert paths[2].read_text() == "an older model"
    assert not any(path.exists() for path in paths[3:])


@pytest.mark.parametrize(
    ("training", "validation", "problem"),
    [
        ({}, {"k": 4}, "validation: found other classes or another input spec than in"),
        ({}, {"shape": (1, 5, 4)}, "validation: found other classes or another input spec"),
        ({"n": 0}, {"n": 0}, "train: found no images; expected at least one"),
        ({"k": 1}, {"k": 1}, "train: found one class; expected two or more"),
    ],
)
def test_train_refuses_splits_that_cannot_be_fitted(
    tmp_path: Path,
    make_images: Make,
    training: dict[str, Any],
    validation: dict[str, Any],
    problem: str,
) -> None:
    paths = save_splits(tmp_path, make_images(**training), make_images(**validation))
    with pytest.raises(ValueError, match=problem):
        train(make_params(), *paths)
    assert not paths[2].exists()


def test_nesterovs_momentum_is_refused_for_adam() -> None:
    with pytest.raises(ValueError, match="expected false, or optimizer 'sgd'"):
        make_params(optimizer="adam", nesterov=True)
