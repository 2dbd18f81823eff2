"""A model and the test split -> metrics, predictions, figures, and a page that shows the run.

In: the model and the history that `train` made, and the test split, which nothing else opens.
Out: the metrics, one prediction per test image, a folder of plots, the page and the model card.
Every metric is a sum over all images, divided once, in float64, and published with six decimals, so
`batch_size` changes none of them.
"""

import csv
from dataclasses import astuple, fields
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field
from threadpoolctl import threadpool_limits
from typer import Option

from stages.base.canonical_text import csv_text, json_text
from stages.base.command import run
from stages.base.params import Integer, Params
from stages.base.whole_files import whole_files
from stages.formats.model_file import Model
from stages.formats.split_file import Split
from stages.images.features import gradient_cells
from stages.report.confusion_matrix import Confusion, confusions, matrix_figure
from stages.report.figures import contributions, mistakes_figure, strokes_figure, weights_figure
from stages.report.metrics import Bin, metrics, predict, reliability
from stages.report.model_card import model_card
from stages.report.page import render
from stages.report.page_data import PageData


class EvaluateParams(Params):
    """The section `evaluate` of params.yaml."""

    batch_size: Integer = Field(
        ge=1, description="images at a time, 1 or more; bounds the memory, changes no result"
    )
    calibration_bins: Integer = Field(
        ge=1, le=1000, description="bins of confidence, of equal width, 1 to 1000"
    )
    mistakes: Integer = Field(
        ge=1, le=1000, description="pictures in the grid of mistakes, 1 to 1000"
    )


def read_history(path: Path) -> list[tuple[int, float, float | None, float | None]]:
    """The rows of the history that `train` wrote: iteration, losses, accuracy; None if empty.

    Raises FileNotFoundError, or ValueError if the file is not a history.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; `dvc repro train` makes it")
    try:
        _, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
        numbers = [[float(value) if value else None for value in row] for row in rows]
        return [
            (int(iteration or 0), training or 0.0, loss, accuracy)
            for iteration, training, loss, accuracy in numbers
        ]
    except (ValueError, OverflowError, csv.Error) as error:
        raise ValueError(
            f"{path}: not a history ({error}); `dvc repro -f -s train` regenerates it"
        ) from None


def evaluate(
    params: EvaluateParams,
    model_path: Path,
    test_path: Path,
    history_path: Path,
    metrics_path: Path,
    predictions_path: Path,
    plots: Path,
    report_path: Path,
    model_card_path: Path,
) -> None:
    """Read the model, the test split and the history; predict; write the results."""
    model, test = Model.load(model_path), Split.load(test_path)
    if (test.classes, test.spec, test.features.shape[1]) != (
        model.classes,
        model.spec,
        model.weight.shape[1],
    ):
        raise ValueError(
            f"{test_path}: found other classes or another input spec than in {model_path};"
            " `dvc repro` makes both from the same data set"
        )
    if not len(test):
        raise ValueError(f"{test_path}: found no images; expected at least one to measure on")
    with threadpool_limits(1, "blas"):  # small products, for which more threads cost time
        predictions = predict(model, test, params.batch_size)
    calibration = reliability(predictions, params.calibration_bins)
    measured = metrics(predictions, test.classes, calibration)
    report = PageData(
        title=test.origin.name,
        licence=test.origin.licence,
        source=test.origin.source,
        classes=test.classes,
        image_shape=test.spec.image_shape,
        fit=test.spec.fit,
        features="gradients" if test.spec.features == "gradients" else "pixels",
        deskew=test.spec.deskew,
        weight=model.weight.astype(np.float32),
        bias=model.bias.astype(np.float32),
        images=test.images,
        pictures=test.pictures,
        actual=predictions.actual,
        predicted=predictions.predicted,
        confidence=predictions.confidence,
        actual_probability=np.exp(-predictions.loss),
        metrics=measured,
        reliability=[(b.confidence, b.accuracy, b.images) for b in calibration],
        history=read_history(history_path),
        params={
            "tensorize": test.origin.params,
            "train": model.params,
            "evaluate": {"calibration_bins": params.calibration_bins},
        },
        counts=test.origin.counts,
    )
    with whole_files() as outputs:
        outputs.write_text(report_path, render(report))
        outputs.write_text(model_card_path, model_card(report))
        if model.spec.features == "gradients":
            cells = gradient_cells(contributions(model, test, params.batch_size))
            outputs.write_text(plots / "weights.svg", strokes_figure(cells, model.classes))
        else:
            outputs.write_text(plots / "weights.svg", weights_figure(model))
        outputs.write_text(
            plots / "mistakes.svg", mistakes_figure(predictions, test, params.mistakes)
        )
        outputs.write_text(
            plots / "reliability.csv",
            csv_text([field.name for field in fields(Bin)], map(astuple, calibration)),
        )
        counts = report.confusion_counts
        outputs.write_text(plots / "confusion.svg", matrix_figure(counts, test.classes))
        outputs.write_text(
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
            predictions.confidence.tolist(),
            strict=True,
        )
        columns = ("picture", "actual", "predicted", "loss", "confidence")
        outputs.write_text(predictions_path, csv_text(columns, rows))
        outputs.write_text(metrics_path, json_text(measured))
    errors = measured["errors"]
    print(
        f"accuracy {measured['accuracy']:.2%}, {errors} error{'s' * (errors != 1)} in {len(test)}"
        " images;"
        f" balanced accuracy {measured['balanced_accuracy']:.2%};"
        f" always the most frequent class {measured['baseline_accuracy']:.2%};"
        f" cross entropy {measured['cross_entropy']:.4f} nats"
    )


def main(
    params: Annotated[Path, Option(help="in: the file with the section `evaluate`")],
    model: Annotated[Path, Option(help="in: the model to measure")],
    test: Annotated[Path, Option(help="in: the images to measure it on")],
    history: Annotated[Path, Option(help="in: losses and accuracy during training, CSV")],
    metrics_path: Annotated[Path, Option("--metrics", help="out: the metrics, JSON")],
    predictions: Annotated[Path, Option(help="out: one row per test image, CSV")],
    plots: Annotated[Path, Option(help="out: the folder for figures and curves")],
    report: Annotated[Path, Option(help="out: the page that shows the run, HTML")],
    card: Annotated[Path, Option("--model-card", help="out: the model card, Markdown")],
) -> None:
    """Measure a model on the test split."""
    loaded = EvaluateParams.load(params, "evaluate")
    evaluate(loaded, model, test, history, metrics_path, predictions, plots, report, card)


if __name__ == "__main__":
    run(main, EvaluateParams)
