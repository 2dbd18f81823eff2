"""Labelled features -> a fitted logistic regression and the history of its loss.

In: two splits, made by `tensorize`.  Out: the model, a row of history every `eval_every`
iterations, and the validation metrics, for choosing params. Everything is computed in float64 and
published in float32 or with six decimals, so that the same params give the same bytes on every
machine, whatever its threads or device.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from typer import Option

from stages.base.canonical_text import csv_text, json_text
from stages.base.command import run
from stages.base.process_count import on_several_machines, processes_asked_for
from stages.base.whole_files import whole_files
from stages.formats.model_file import Model, rounded
from stages.formats.split_file import Split
from stages.training.checkpoint import Checkpoint, State, run_key
from stages.training.data import Examples, read_splits
from stages.training.history import History, Row
from stages.training.loop import Disturb, Step, fit
from stages.training.processes import (
    CPU,
    errors_told_to_torchrun,
    joined_processes,
    run_processes,
    use_threads,
)
from stages.training.settings import TrainParams
from stages.training.stability import LIMIT, Twin, other_roundings, stable_learning_rate

LARGE_GAP = 0.25  # nats


def pick_device() -> torch.device:
    """CUDA if available; otherwise the CPU, even where MPS is available: it has no float64."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if torch.backends.mps.is_available():
        print("training on the CPU: MPS has no float64")
    return CPU


def published(step: Step, split: Split, params: TrainParams) -> Model:
    """The model of a step, its weights rounded as they are published.

    Raises ValueError if a weight is not finite in float32.
    """
    weight, bias = (rounded(tensor.cpu().double().numpy()) for tensor in (step.weight, step.bias))
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise ValueError(
            "the weights grew beyond float32: lower train.learning_rate or train.weight_decay"
        )
    return Model(weight, bias, split.classes, split.spec, params.model_dump())


def train(
    params: TrainParams,
    train_path: Path,
    validation_path: Path,
    model_path: Path,
    history_path: Path,
    metrics_path: Path,
) -> None:
    """Read two splits, fit, write the model, its history and its validation metrics."""
    split, validation_split = read_splits(train_path, validation_path)
    training, validation = Examples.of(split), Examples.of(validation_split)
    classes = len(split.classes)
    use_threads(params.batch_size * training.features.shape[1] * classes)
    checkpoint = Checkpoint(model_path, lambda: run_key(params, (train_path, validation_path)))
    device = pick_device()
    # A progress bar on a terminal, only the rows in a log, and both from the first process alone.
    with (
        joined_processes(device) as processes,
        tqdm(
            total=params.iterations,
            unit="it",
            disable=None if processes.first else True,
            leave=False,
        ) as bar,
    ):
        history = History(params, validation, processes)
        state: State | None = processes.from_first(checkpoint.load() if processes.first else None)
        if state:
            history.restore(state.report)
            bar.update(state.iteration)
            if processes.first:
                print(f"resuming after iteration {state.iteration}")

        def run_fit(
            params: TrainParams,
            disturb: Disturb | None,
            resume: tuple[int, Sequence[Tensor]] | None = None,
        ) -> Iterator[Step]:
            return fit(params, training, classes, processes, device, resume, disturb)

        resume = (state.iteration, state.tensors) if state else None
        twin = Twin(run_fit(params, other_roundings(), resume), params.iterations)
        for step in run_fit(params, None, resume):
            bar.update()
            twin.follow(step)
            row = history.add(step)
            if processes.first:
                if row:
                    bar.write(str(row), file=sys.stdout)
                if checkpoint.due and step.iteration < params.iterations:
                    checkpoint.keep(State(step.iteration, step.tensors, history.state))
        if twin.margin > LIMIT:
            rate = stable_learning_rate(params, run_fit)
            if processes.first:
                warn_of_instability(twin.margin, step.weight.numel() + step.bias.numel(), rate)
    if processes.first:
        names = [field.name for field in fields(Row)]
        with whole_files() as outputs:
            model = published(step, split, params)
            outputs.part(model_path).write_bytes(model.serialized())
            outputs.write_text(history_path, csv_text(names, map(astuple, history.rows)))
            measured = validation_metrics(history.rows[-1], len(validation))
            outputs.write_text(metrics_path, json_text(measured))
        warn_of_gap(history.rows[-1])
        checkpoint.remove()


def validation_metrics(row: Row, images: int) -> dict[str, float]:
    """The last row of history, for choosing params; without a validation split, only its loss.

    images: in the validation split, on which the standard error of the choice depends.
    """
    values = {
        "training_loss": row.training_loss,
        "validation_accuracy": row.validation_accuracy,
        "validation_cross_entropy": row.validation_loss,
        "validation_images": images or None,
    }
    return {name: round(value, 6) for name, value in values.items() if value is not None}


def warn_of_gap(row: Row) -> None:
    """Print a note if the model fits the training images far better than the validation images."""
    if row.validation_loss is not None and row.validation_loss - row.training_loss > LARGE_GAP:
        print(
            f"note: the validation loss, {row.validation_loss:.2f} nats, is far above the training"
            f" loss, {row.training_loss:.2f}: the model fits its training images better than any"
            " others; add pictures, raise train.weight_decay or lower train.iterations"
        )


def warn_of_instability(margin: float, weights: int, stable: float | None) -> None:
    """Print a note on standard error: other machines may get other bytes, and what rate helps.

    margin: how many of the weights another machine is expected to publish differently.
    """
    remedy = "lower train.learning_rate"
    if stable:
        remedy += f"; {stable:g} is stable here"
    number = f"{margin:.2g}" if margin < 10 else f"{margin:,.0f}"
    print(
        f"note: another machine is expected to publish {number} of {weights:,} weights"
        f" differently, since rounding errors grow at this learning rate: {remedy}",
        file=sys.stderr,
    )


def main(
    params: Annotated[Path, Option(help="in: the file with the section `train`")],
    train_split: Annotated[Path, Option("--train", help="in: the images to fit")],
    validation: Annotated[Path, Option(help="in: the images to validate on")],
    model: Annotated[Path, Option(help="out: the model, safetensors")],
    history: Annotated[Path, Option(help="out: losses and accuracy, CSV")],
    metrics: Annotated[Path, Option(help="out: metrics for choosing params, JSON")],
) -> None:
    """Fit a logistic regression to labelled images by stochastic gradient descent.

    The environment variable PROCESSES, or torchrun, shares the work among processes. That
    changes no byte of the output; neither does stopping a run and starting it again.
    """
    loaded = TrainParams.load(params, "train")
    if (count := processes_asked_for() or 1) > 1 or on_several_machines():
        read_splits(train_split, validation)  # reports bad input once, not once per process
        run_processes("stages.train", count)
        return
    with errors_told_to_torchrun():
        train(loaded, train_split, validation, model, history, metrics)


if __name__ == "__main__":
    run(main, TrainParams)
