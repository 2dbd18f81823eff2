import csv
import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    recall_score,
)
from torch import Tensor

from stages.evaluate import (
    EvaluateParams,
    Predictions,
    evaluate,
    metrics,
    mistakes_figure,
    predict,
    reliability,
    weights_figure,
)
from stages.formats.model_file import LogisticRegression
from stages.formats.split_file import LabelledImages

Make = Callable[..., LabelledImages]
PARAMS = EvaluateParams(batch_size=16, calibration_bins=10, mistakes=6)


def random_model(split: LabelledImages, seed: int = 0) -> LogisticRegression:
    model = LogisticRegression(split.image_shape, split.classes)
    model.weight.normal_(generator=torch.Generator().manual_seed(seed))
    return model


def predictions_of(actual: list[int], predicted: list[int], confidence: list[float]) -> Predictions:
    return Predictions(
        torch.tensor(actual),
        torch.tensor(predicted),
        torch.zeros(len(actual), dtype=torch.float64),
        torch.tensor(confidence, dtype=torch.float64),
    )


def test_metrics_are_those_of_scikit_learn(make_images: Make) -> None:
    split = make_images(n=500, k=5)
    imbalanced = (split.labels == 3) | (torch.arange(500) % 7 <= split.labels)
    split = split.subset(imbalanced.nonzero().flatten()[:200])
    assert len(set(split.labels.bincount().tolist())) > 3
    model = random_model(split)
    predictions = predict(model, split, batch_size=16)
    measured = metrics(predictions, split.classes, reliability(predictions, 10))
    p = model(split.images).exp().numpy()
    actual, predicted = split.labels.numpy(), p.argmax(1)
    assert measured["accuracy"] == pytest.approx(accuracy_score(actual, predicted), abs=1e-6)
    assert measured["balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(actual, predicted), abs=1e-6
    )
    baseline = DummyClassifier(strategy="most_frequent").fit(actual, actual)
    assert measured["baseline_accuracy"] == baseline.score(actual, actual)
    assert measured["macro_f1"] == pytest.approx(
        f1_score(actual, predicted, average="macro", labels=range(5), zero_division=0), abs=1e-6
    )
    assert measured["cross_entropy"] == pytest.approx(log_loss(actual, p), abs=1e-6)
    assert list(measured["recall"]) == list(split.classes)
    assert list(measured["recall"].values()) == pytest.approx(
        recall_score(actual, predicted, average=None).tolist(), abs=1e-6
    )
    assert measured["images"] == 200
    assert measured["errors"] == int((actual != predicted).sum())
    assert predictions.confidence.numpy() == pytest.approx(p.max(1), abs=1e-12)


def test_calibration_error_is_the_mean_gap_over_the_images() -> None:
    # two bins of 0.5: (0.3, wrong), (0.5, right) and (0.6, right), (0.9, right), (1.0, wrong)
    predictions = predictions_of([0, 0, 0, 0, 0], [1, 0, 0, 0, 1], [0.3, 0.5, 0.6, 0.9, 1.0])
    rows = reliability(predictions, bins=2)
    assert [row.images for row in rows] == [2, 3]
    assert [row.confidence for row in rows] == pytest.approx([0.4, 2.5 / 3])
    assert [row.accuracy for row in rows] == pytest.approx([0.5, 2 / 3])
    measured = metrics(predictions, ("a", "b"), rows)
    assert measured["expected_calibration_error"] == pytest.approx(
        (2 * 0.1 + 3 * (2.5 - 2) / 3) / 5, abs=1e-6
    )


def test_the_rarest_class_counts_as_much_as_the_most_frequent() -> None:
    predictions = predictions_of([0] * 95 + [1] * 5, [0] * 100, [0.9] * 100)
    measured = metrics(predictions, ("a", "b"), reliability(predictions, 5))
    assert measured["accuracy"] == measured["baseline_accuracy"] == 0.95
    assert measured["balanced_accuracy"] == 0.5


def test_a_class_without_test_images_has_no_recall_and_f1_zero() -> None:
    predictions = predictions_of([0, 0, 1], [0, 0, 1], [0.9, 0.9, 0.9])
    measured = metrics(predictions, ("a", "b", "c"), reliability(predictions, 5))
    assert measured["recall"] == {"a": 1.0, "b": 1.0}
    assert measured["balanced_accuracy"] == 1
    assert measured["macro_f1"] == pytest.approx(2 / 3, abs=1e-6)


def run_evaluate(folder: Path, split: LabelledImages, params: EvaluateParams = PARAMS) -> None:
    split.save(folder / "test.safetensors")
    random_model(split).save(folder / "model.safetensors", {})
    names = ("model.safetensors", "test.safetensors", "metrics.json", "predictions.csv", "plots")
    evaluate(params, *(folder / name for name in names))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch_size=st.integers(1, 120))
def test_the_batch_size_changes_no_byte(
    tmp_path_factory: pytest.TempPathFactory, make_images: Make, batch_size: int
) -> None:
    split = make_images(n=100, shape=(1, 9, 9))
    one, other = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    run_evaluate(one, split)
    run_evaluate(other, split, PARAMS.model_copy(update={"batch_size": batch_size}))
    assert contents(one) == contents(other)


def test_predictions_and_metrics_agree(tmp_path: Path, make_images: Make) -> None:
    split = make_images(n=100)
    run_evaluate(tmp_path, split)
    measured = json.loads((tmp_path / "metrics.json").read_text())
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["actual"] for row in rows] == [split.classes[label] for label in split.labels]
    right = sum(row["actual"] == row["predicted"] for row in rows)
    assert measured["accuracy"] == pytest.approx(right / 100, abs=1e-6)
    assert measured["errors"] == 100 - right
    losses = [float(row["loss"]) for row in rows]
    assert measured["cross_entropy"] == pytest.approx(np.mean(losses), abs=1e-6)


def test_metrics_merge_and_hash(tmp_path: Path, make_images: Make) -> None:
    run_evaluate(tmp_path, make_images())
    text = (tmp_path / "metrics.json").read_text()
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"


def test_names_of_classes_are_written_as_they_are(tmp_path: Path, make_images: Make) -> None:
    classes = ("孙悟空", "a.b", 'with "quotes", <tags> & a\nline')
    images = make_images()
    run_evaluate(tmp_path, LabelledImages(images.images, images.labels, classes))
    text = (tmp_path / "metrics.json").read_text(encoding="utf-8")
    assert '"孙悟空": ' in text
    assert set(json.loads(text)["recall"]) == set(classes)
    for name, key in (("predictions.csv", "actual"), ("plots/confusions.csv", "predicted")):
        with (tmp_path / name).open(newline="", encoding="utf-8") as file:
            assert {row[key] for row in csv.DictReader(file)} <= set(classes)
    for path in (tmp_path / "plots").glob("*.svg"):
        ET.parse(path)


def test_the_mistakes_are_the_most_confident_ones_first(make_images: Make) -> None:
    split = make_images(n=5, k=2)
    actual = split.labels.tolist()  # 0 1 0 1 0
    predicted = [1, 1, 1, 0, 0]
    predictions = predictions_of(actual, predicted, [0.6, 0.99, 0.8, 0.7, 0.99])
    captions = texts(mistakes_figure(predictions, split, number=2))
    assert captions[1].startswith("2 of 3 among 5 test images")
    assert captions[2:] == [
        "80.0%: class 1",
        "actual class 0",
        "70.0%: class 0",
        "actual class 1",
    ]


def test_no_mistakes_make_an_empty_grid(make_images: Make) -> None:
    split = make_images(n=2, k=2)
    predictions = predictions_of([0, 1], [0, 1], [0.9, 0.9])
    assert "0 of 0 among 2" in texts(mistakes_figure(predictions, split, number=5))[1]


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter() if "text" in element.tag]


def test_what_all_classes_gain_alike_is_not_drawn(make_images: Make) -> None:
    for shape in ((1, 4, 5), (3, 4, 5)):
        model = random_model(make_images(shape=shape))
        before = weights_figure(model)
        model.weight.add_(torch.arange(model.weight.shape[1]) % 2)
        assert weights_figure(model) == before


@pytest.mark.parametrize("k", [2, 10, 100])
@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 4, 5)])
def test_one_picture_of_weights_a_class(
    make_images: Make, k: int, shape: tuple[int, int, int]
) -> None:
    model = random_model(make_images(n=k, k=k, shape=shape))
    assert texts(weights_figure(model))[2:] == list(model.classes)


def test_evaluate_refuses_what_does_not_fit_and_writes_nothing(
    tmp_path: Path, make_images: Make
) -> None:
    split = make_images()
    paths = [tmp_path / name for name in ("model", "test", "metrics", "predictions", "plots")]
    random_model(split).save(paths[0], {})
    make_images(k=4).save(paths[1])
    with pytest.raises(ValueError, match="test: its classes or image shape differ"):
        evaluate(PARAMS, *paths)
    empty: Tensor = torch.arange(0)
    split.subset(empty).save(paths[1])
    with pytest.raises(ValueError, match="test: no images"):
        evaluate(PARAMS, *paths)
    assert not any(path.exists() for path in paths[2:])
