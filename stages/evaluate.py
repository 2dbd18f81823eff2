"""A model and the test split -> metrics, predictions and pictures.

In: the model that `train` made, and the test split, which nothing else opens.  Out: the metrics,
one prediction a test image, and a folder of plots. Every number is a sum over all the images,
divided once, in float64, and published with six decimals: `batch_size` changes none of them.
"""

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from math import ceil, fsum, sqrt
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import nll_loss
from typer import Option

from stages.base.command import run
from stages.base.csv_text import csv_text
from stages.base.params import Integer, Params
from stages.base.whole_files import write_text
from stages.formats.model_file import LogisticRegression, use_threads
from stages.formats.split_file import LabelledImages
from stages.report.confusion_matrix import Confusion, confusions, matrix_figure
from stages.report.svg import diverging, figure, fitted, rgb, templates


class EvaluateParams(Params):
    """Section `evaluate` of params.yaml."""

    batch_size: Integer = Field(ge=1, description="images at a time, 1 or more; memory, no result")
    calibration_bins: Integer = Field(
        ge=1, le=1000, description="bins of equal width of the confidence, 1 to 1000"
    )
    mistakes: Integer = Field(
        ge=1, le=1000, description="pictures in the grid of mistakes, 1 to 1000"
    )


@dataclass(frozen=True)
class Predictions:
    """What a model says of N labelled images, float64 and int64, each (N,).

    actual and predicted: classes in [0, K).  loss: cross entropy in nats.
    confidence: probability of the predicted class.
    """

    actual: Tensor
    predicted: Tensor
    loss: Tensor
    confidence: Tensor


def predict(model: LogisticRegression, split: LabelledImages, batch_size: int) -> Predictions:
    """The model's predictions for a split, in the split's order."""
    losses, confidences, predicted = [], [], []
    for images, labels in split.batches(batch_size):
        log_p = model(images)
        best = log_p.max(1)
        losses.append(nll_loss(log_p, labels, reduction="none"))
        confidences.append(best.values.exp())
        predicted.append(best.indices)
    return Predictions(
        split.labels, torch.cat(predicted), torch.cat(losses), torch.cat(confidences)
    )


@dataclass(frozen=True)
class Bin:
    """The images whose confidence lies in one bin: mean confidence, accuracy, how many."""

    confidence: float
    accuracy: float
    images: int


def reliability(predictions: Predictions, bins: int) -> list[Bin]:
    """The bins that hold images, of `bins` of equal width, each closed above."""
    bin_of = (predictions.confidence * bins).ceil().long().clamp(1, bins) - 1  # (N,)
    correct = (predictions.actual == predictions.predicted).double()
    images = bin_of.bincount(minlength=bins)
    confidence = bin_of.bincount(predictions.confidence, bins) / images
    accuracy = bin_of.bincount(correct, bins) / images
    return [
        Bin(confidence[i].item(), accuracy[i].item(), int(images[i]))
        for i in images.nonzero().flatten().tolist()
    ]


def count_pairs(predictions: Predictions, k: int) -> Tensor:
    """The confusion matrix of K classes, (K, K) int64: images by actual and predicted class."""
    pairs = predictions.actual * k + predictions.predicted
    return pairs.bincount(minlength=k * k).view(k, k)


def metrics(
    predictions: Predictions, classes: Sequence[str], calibration: Sequence[Bin]
) -> dict[str, Any]:
    """The metrics by name.

    accuracy, errors and images; baseline_accuracy, that of always answering the images' most
    frequent class; balanced_accuracy, the mean of recall (Brodersen et al. 2010), of which that
    answer reaches 1 / (number of classes); cross_entropy in nats; macro_f1, the mean over the
    classes of 2 TP / (2 TP + FP + FN), 0 where that is 0 / 0; expected_calibration_error, the mean
    over the images of |confidence - accuracy| of their bin (Naeini et al. 2015); recall, by class,
    of the classes that the images have.
    """
    number = len(predictions.actual)
    counts = count_pairs(predictions, len(classes))
    hits, actual, predicted = counts.diag(), counts.sum(1), counts.sum(0)
    f1 = 2 * hits.double() / (actual + predicted).clamp(min=1)
    gaps = sum(b.images * abs(b.confidence - b.accuracy) for b in calibration)
    recall = {
        name: hit / of
        for name, hit, of in zip(classes, hits.tolist(), actual.tolist(), strict=True)
        if of
    }
    return {
        "accuracy": round(int(hits.sum()) / number, 6),
        # fsum: whoever computes it from the predictions may add the classes in any order
        "balanced_accuracy": round(fsum(recall.values()) / len(recall), 6),
        "baseline_accuracy": round(int(actual.max()) / number, 6),
        "cross_entropy": round(float(predictions.loss.sum()) / number, 6),
        "errors": number - int(hits.sum()),
        "expected_calibration_error": round(gaps / number, 6),
        "images": number,
        "macro_f1": round(float(f1.mean()), 6),
        "recall": {name: round(value, 6) for name, value in recall.items()},
    }


def weights_figure(model: LogisticRegression) -> str:
    """One picture a class: what each pixel adds to its logit, beyond what it adds to all classes.

    What all classes gain alike changes no probability, and so the mean over the classes is taken
    off: softmax(z + c) = softmax(z).
    """
    weights = fitted(model.weight.view(-1, *model.image_shape))  # (K, C, h, w)
    weights -= weights.mean(0)
    largest = f"{weights.abs().max():.2f} a pixel"
    if weights.shape[1] == 1:
        pictures = diverging(weights[:, 0])
        subtitle = f"red speaks for the class, blue against; full colour is {largest}"
    else:
        pictures = templates(weights)
        subtitle = f"the colours that speak for the class; grey is neither, full colour {largest}"
    return figure(
        "What the model looks for",
        subtitle,
        pictures,
        [(name,) for name in model.classes],
        columns=min(len(model.classes), max(5, ceil(sqrt(len(model.classes))))),
    )


def mistakes_figure(predictions: Predictions, split: LabelledImages, number: int) -> str:
    """The images that the model got wrong with the most confidence, the worst first."""
    wrong = (predictions.actual != predictions.predicted).nonzero().flatten()
    order = predictions.confidence[wrong].argsort(descending=True, stable=True)
    worst = wrong[order[:number]]
    captions = [
        (
            f"{predictions.confidence[i]:.1%}: {split.classes[predictions.predicted[i]]}",
            f"actual {split.classes[predictions.actual[i]]}",
        )
        for i in worst.tolist()
    ]
    return figure(
        "The most confident mistakes",
        f"{len(worst)} of {len(wrong)} among {len(split)} test images:"
        " how sure the model was of which class, and the actual one",
        rgb(fitted(split.images[worst])),
        captions,
        columns=max(5, ceil(sqrt(len(worst)))),
    )


def evaluate(
    params: EvaluateParams,
    model_path: Path,
    test_path: Path,
    metrics_path: Path,
    predictions_path: Path,
    plots: Path,
) -> None:
    """Read the model and the test split, predict, write what came out."""
    model = LogisticRegression.load(model_path)
    test = LabelledImages.load(test_path)
    if (test.classes, test.image_shape) != (model.classes, model.image_shape):
        raise ValueError(
            f"{test_path}: its classes or image shape differ from those of {model_path};"
            " `dvc repro` makes both from the same data set"
        )
    if not len(test):
        raise ValueError(f"{test_path}: no images; expected at least one to measure the model on")
    use_threads(params.batch_size, test.image_shape, test.classes)
    predictions = predict(model, test, params.batch_size)
    calibration = reliability(predictions, params.calibration_bins)
    measured = metrics(predictions, test.classes, calibration)
    counts = count_pairs(predictions, len(test.classes))

    write_text(plots / "weights.svg", weights_figure(model))
    write_text(plots / "mistakes.svg", mistakes_figure(predictions, test, params.mistakes))
    write_text(
        plots / "reliability.csv",
        csv_text([field.name for field in fields(Bin)], map(astuple, calibration)),
    )
    write_text(plots / "confusion.svg", matrix_figure(counts, test.classes))
    write_text(
        plots / "confusions.csv",
        csv_text(
            [field.name for field in fields(Confusion)],
            map(astuple, confusions(counts, test.classes)),
        ),
    )
    rows = zip(
        test.pictures,
        [test.classes[label] for label in predictions.actual.tolist()],
        [test.classes[label] for label in predictions.predicted.tolist()],
        predictions.loss.tolist(),
        strict=True,
    )
    write_text(predictions_path, csv_text(("picture", "actual", "predicted", "loss"), rows))
    text = json.dumps(measured, ensure_ascii=False, indent=2, sort_keys=True)
    write_text(metrics_path, f"{text}\n")
    print(
        f"accuracy {measured['accuracy']:.2%}, {measured['errors']} errors in {len(test)} images;"
        f" balanced accuracy {measured['balanced_accuracy']:.2%};"
        f" always the most frequent class {measured['baseline_accuracy']:.2%};"
        f" cross entropy {measured['cross_entropy']:.4f} nats"
    )


def main(
    params: Annotated[Path, Option(help="in: the file with the section `evaluate`")],
    model: Annotated[Path, Option(help="in: the model to measure")],
    test: Annotated[Path, Option(help="in: the images to measure it on")],
    metrics_path: Annotated[Path, Option("--metrics", help="out: the metrics, JSON")],
    predictions: Annotated[Path, Option(help="out: one row a test image, CSV")],
    plots: Annotated[Path, Option(help="out: the folder for pictures and curves")],
) -> None:
    """Measure a model on the test split."""
    evaluate(EvaluateParams.load(params, "evaluate"), model, test, metrics_path, predictions, plots)


if __name__ == "__main__":
    run(main, EvaluateParams)
