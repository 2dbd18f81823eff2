"""A model and the test split -> metrics, predictions and figures.

In: the model that `train` made, and the test split, which nothing else opens.  Out: the metrics,
one prediction per test image, and a folder of plots. Every number is a sum over all the images,
divided once, in float64, and published with six decimals: `batch_size` changes none of them.
"""

import json
from dataclasses import astuple, fields
from pathlib import Path
from typing import Annotated

from pydantic import Field
from typer import Option

from stages.base.command import run
from stages.base.csv_text import csv_text
from stages.base.params import Integer, Params
from stages.base.whole_files import write_text
from stages.formats.model_file import Model
from stages.formats.split_file import LabelledImages
from stages.report.confusion_matrix import Confusion, confusions, matrix_figure
from stages.report.figures import mistakes_figure, weights_figure
from stages.report.metrics import Bin, confusion_counts, metrics, predict, reliability


class EvaluateParams(Params):
    """Section `evaluate` of params.yaml."""

    batch_size: Integer = Field(
        ge=1, description="images at a time, 1 or more; bounds the memory, changes no result"
    )
    calibration_bins: Integer = Field(
        ge=1, le=1000, description="bins of confidence, of equal width, 1 to 1000"
    )
    mistakes: Integer = Field(
        ge=1, le=1000, description="pictures in the grid of mistakes, 1 to 1000"
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
    model, test = Model.load(model_path), LabelledImages.load(test_path)
    if (test.classes, test.image_shape) != (model.classes, model.image_shape):
        raise ValueError(
            f"{test_path}: found other classes or another image shape than in {model_path};"
            " `dvc repro` makes both from the same data set"
        )
    if not len(test):
        raise ValueError(f"{test_path}: found no images; expected at least one to measure on")
    predictions = predict(model, test, params.batch_size)
    calibration = reliability(predictions, params.calibration_bins)
    measured = metrics(predictions, test.classes, calibration)
    counts = confusion_counts(predictions, len(test.classes))

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
    predictions: Annotated[Path, Option(help="out: one row per test image, CSV")],
    plots: Annotated[Path, Option(help="out: the folder for figures and curves")],
) -> None:
    """Measure a model on the test split."""
    evaluate(EvaluateParams.load(params, "evaluate"), model, test, metrics_path, predictions, plots)


if __name__ == "__main__":
    run(main, EvaluateParams)
