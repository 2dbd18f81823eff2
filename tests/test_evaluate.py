import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stages.evaluate import EvaluateParams, evaluate, read_history
from stages.formats.input_spec import InputSpec
from stages.formats.model_file import Model
from stages.formats.origin import Origin
from stages.formats.split_file import Split
from stages.images.inputs import compute_features
from tests.report.drawn import captioned
from tests.splits import pixel_split

Make = Callable[..., Split]
PARAMS = EvaluateParams(batch_size=16, calibration_bins=10, mistakes=6)
INPUTS = ("model", "test", "history.csv")
OUTPUTS = ("metrics.json", "predictions.csv", "plots", "report.html", "model_card.md")
HISTORY = "iteration,training_loss,validation_loss,validation_accuracy\n10,0.5,,\n20,0.4,0.6,0.7\n"


def random_model(split: Split) -> Model:
    k, d = len(split.classes), split.features.shape[1]
    weight = np.random.default_rng(0).normal(size=(k, d)).astype(np.float32).astype(np.float64)
    return Model(weight, np.zeros(k), split.classes, split.spec)


def run_evaluate(folder: Path, split: Split, params: EvaluateParams = PARAMS) -> None:
    split.save(folder / "test")
    random_model(split).save(folder / "model")
    (folder / "history.csv").write_text(HISTORY)
    evaluate(params, *(folder / name for name in (*INPUTS, *OUTPUTS)))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch_size=st.integers(1, 120))
def test_the_batch_size_of_evaluate_changes_no_byte(
    tmp_path_factory: pytest.TempPathFactory, make_images: Make, batch_size: int
) -> None:
    split = make_images(n=100, shape=(1, 9, 9))
    one, other = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    run_evaluate(one, split)
    run_evaluate(other, split, PARAMS.model_copy(update={"batch_size": batch_size}))
    assert contents(one) == contents(other)


def test_each_row_of_the_predictions_belongs_to_the_picture_it_names(
    tmp_path: Path, make_images: Make
) -> None:
    made = make_images(n=100)
    names = "".join(f"test/{99 - i}, {i % 7}.png\n" for i in range(100)).encode()
    split = pixel_split(
        made.images, made.labels, ("a", "b", "c"), names=np.frombuffer(names, np.uint8)
    )
    run_evaluate(tmp_path, split)
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    log_p = random_model(split).log_probabilities(split.features)
    assert [list(row.values()) for row in rows] == [
        [
            f"test/{99 - i}, {i % 7}.png",
            "abc"[label],
            "abc"[log_p[i].argmax()],
            f"{-log_p[i, label]:.6f}",
            f"{np.exp(log_p[i].max()):.6f}",
        ]
        for i, label in enumerate(split.labels)
    ]
    assert list(rows[0]) == ["picture", "actual", "predicted", "loss", "confidence"]


def test_the_predictions_give_the_metrics_and_the_plots(tmp_path: Path, make_images: Make) -> None:
    split = make_images(n=100)
    run_evaluate(tmp_path, split)
    measured = json.loads((tmp_path / "metrics.json").read_text())
    rows = list(csv.DictReader((tmp_path / "predictions.csv").read_text().splitlines()))
    wrong = [row for row in rows if row["actual"] != row["predicted"]]
    assert measured["errors"] == len(wrong)
    assert measured["accuracy"] == pytest.approx(1 - len(wrong) / 100, abs=1e-6)
    losses = [float(row["loss"]) for row in rows]
    assert measured["cross_entropy"] == pytest.approx(np.mean(losses), abs=1e-6)

    pairs = list(csv.DictReader((tmp_path / "plots/confusions.csv").read_text().splitlines()))
    assert {(row["actual"], row["predicted"]): int(row["images"]) for row in pairs} == {
        pair: sum((row["actual"], row["predicted"]) == pair for row in wrong)
        for pair in {(row["actual"], row["predicted"]) for row in wrong}
    }
    bins = list(csv.DictReader((tmp_path / "plots/reliability.csv").read_text().splitlines()))
    assert sum(int(row["images"]) for row in bins) == 100
    drawn = captioned((tmp_path / "plots/mistakes.svg").read_text())
    assert len(drawn) == PARAMS.mistakes
    for (confident, actual), pixels in drawn:
        (index,) = np.flatnonzero((split.images[:, 0] == pixels[..., 0]).all((1, 2)))
        assert actual == f"actual {rows[index]['actual']}"
        assert confident.endswith(f"%: {rows[index]['predicted']}")


def test_metrics_json_has_sorted_keys_one_on_each_line(tmp_path: Path, make_images: Make) -> None:
    run_evaluate(tmp_path, make_images())
    text = (tmp_path / "metrics.json").read_text()
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"


def test_names_of_classes_are_written_as_they_are(tmp_path: Path, make_images: Make) -> None:
    classes = ("孙悟空", "a.b", 'with "quotes", <tags> & a\nline')
    made = make_images()
    run_evaluate(tmp_path, pixel_split(made.images, made.labels, classes))
    text = (tmp_path / "metrics.json").read_text(encoding="utf-8")
    assert '"孙悟空": ' in text
    assert set(json.loads(text)["recall"]) == set(classes)
    for name, key in (("predictions.csv", "actual"), ("plots/confusions.csv", "predicted")):
        with (tmp_path / name).open(newline="", encoding="utf-8") as file:
            assert {row[key] for row in csv.DictReader(file)} <= set(classes)
    for path in (tmp_path / "plots").glob("*.svg"):
        ET.parse(path)


def gradient_split(make_images: Make, shape: tuple[int, int, int], deskewed: bool) -> Split:
    """A test split of gradients, with its images."""
    made = make_images(n=40, shape=shape)
    spec = InputSpec(*shape, deskew=deskewed, features="gradients")
    features = compute_features(made.images, spec)
    return Split(features, made.labels, made.classes, spec, made.names, made.images)


@pytest.mark.parametrize("shape", [(1, 12, 10), (3, 12, 10)])
def test_a_model_of_gradients_is_drawn_in_strokes_and_its_mistakes_as_images(
    tmp_path: Path, make_images: Make, shape: tuple[int, int, int]
) -> None:
    split = gradient_split(make_images, shape, deskewed=True)
    run_evaluate(tmp_path, split)
    weights = (tmp_path / "plots/weights.svg").read_text()
    assert "<image" not in weights
    assert 'stroke="#' in weights
    drawn = captioned((tmp_path / "plots/mistakes.svg").read_text())
    assert len(drawn) == PARAMS.mistakes
    images = np.broadcast_to(split.images.transpose(0, 2, 3, 1), (40, *shape[1:], 3))
    for _, pixels in drawn:
        assert (images == pixels).all((1, 2, 3)).any()


def test_evaluate_refuses_features_of_another_kind(tmp_path: Path, make_images: Make) -> None:
    upright = gradient_split(make_images, (1, 12, 10), deskewed=True)
    random_model(upright).save(tmp_path / "model")
    for other in (gradient_split(make_images, (1, 12, 10), False), make_images(shape=(1, 12, 10))):
        other.save(tmp_path / "test")
        with pytest.raises(ValueError, match="another input spec than in"):
            evaluate(PARAMS, *(tmp_path / name for name in (*INPUTS, *OUTPUTS)))


@pytest.mark.parametrize(
    ("test", "problem"),
    [
        ({"k": 4}, "test: found other classes or another input spec than in"),
        ({"shape": (1, 5, 4)}, "test: found other classes or another input spec than in"),
        ({"n": 0}, "test: found no images; expected at least one"),
    ],
)
def test_evaluate_refuses_a_test_split_that_does_not_fit_the_model_and_writes_nothing(
    tmp_path: Path, make_images: Make, test: dict[str, int], problem: str
) -> None:
    random_model(make_images()).save(tmp_path / "model")
    make_images(**test).save(tmp_path / "test")
    (tmp_path / "history.csv").write_text(HISTORY)
    with pytest.raises(ValueError, match=problem):
        evaluate(PARAMS, *(tmp_path / name for name in (*INPUTS, *OUTPUTS)))
    assert not any((tmp_path / name).exists() for name in OUTPUTS)


def test_the_report_shows_the_run(tmp_path: Path, make_images: Make) -> None:
    made = make_images()
    counts, params = {"train": 90, "validation": 9, "test": 60}, {"fit": "crop"}
    origin = Origin("a < b", "CC0", "https://example.org", counts, params)
    run_evaluate(tmp_path, replace(made, origin=origin))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    card = (tmp_path / "model_card.md").read_text(encoding="utf-8")
    assert "a &lt; b" in page
    assert "a < b" not in page
    for text in (page, card):
        assert "CC0" in text
        assert str(tmp_path) not in text
    accuracy = json.loads((tmp_path / "metrics.json").read_text())["accuracy"]
    assert f"{accuracy:.2%}".replace("%", " %") in card


@pytest.mark.parametrize(
    "history", ["", "a,b\n1\n", "iteration\nx,y,z,w\n", "iteration\ninf,1,2,3\n", "0" * 10**6]
)
def test_a_broken_history_is_refused(tmp_path: Path, history: str) -> None:
    (tmp_path / "history.csv").write_text(history)
    with pytest.raises(ValueError, match=r"history\.csv: not a history .*regenerates it"):
        read_history(tmp_path / "history.csv")
