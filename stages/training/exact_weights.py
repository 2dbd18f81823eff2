"""Params and two splits -> the float64 weights that `train` rounds before it publishes them.

`explain` rounds some of them the other way; `verify` measures how close they are to a rounding
boundary. Everything these two commands need from the training code is here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from typer import Option

from stages.base.command import run
from stages.base.process_count import processes_asked_for
from stages.base.whole_files import whole_file
from stages.formats.model_file import Model, rounded
from stages.formats.split_file import Split
from stages.training.data import Examples, read_splits
from stages.training.loop import fit
from stages.training.processes import (
    ALONE,
    Processes,
    errors_told_to_torchrun,
    joined_processes,
    run_processes,
    use_threads,
)
from stages.training.settings import TrainParams

Weights = NDArray[np.float64]


@dataclass(frozen=True)
class ExactModel:
    """A fitted model before rounding.

    weights: (K * D + K,), the rows of the weight matrix, then the biases.
    content: maps such weights to the bytes of the file that `train` writes for them.
    """

    weights: Weights
    content: Callable[[Weights], bytes]


def exact_model(
    params_path: Path,
    train_path: Path,
    validation_path: Path,
    resume: bool = False,
    processes: Processes = ALONE,
) -> ExactModel:
    """Fit the model as `train` does; with `resume`, again from the state halfway through."""
    params = TrainParams.load(params_path, "train")
    split, _ = read_splits(train_path, validation_path)
    examples, classes = Examples.of(split), len(split.classes)
    use_threads(params.batch_size * examples.features.shape[1] * classes)
    state = None
    for step in fit(params, examples, classes, processes):
        if step.iteration == params.iterations // 2:
            state = (step.iteration, [tensor.clone() for tensor in step.tensors])
    if resume and state:
        *_, step = fit(params, examples, classes, processes, resume=state)
    weights = torch.cat([step.weight.flatten(), step.bias]).numpy()
    return ExactModel(weights, partial(_content, split, params))


def _content(split: Split, params: TrainParams, weights: Weights) -> bytes:
    k = len(split.classes)
    weight, bias = rounded(weights[:-k]).reshape(k, -1), rounded(weights[-k:])
    return Model(weight, bias, split.classes, split.spec, params.model_dump()).serialized()


def main(
    params: Annotated[Path, Option(help="in: the file with the section `train`")],
    train_split: Annotated[Path, Option("--train", help="in: the images to fit")],
    validation: Annotated[Path, Option(help="in: the images to validate on")],
    weights: Annotated[Path, Option(help="out: the weights, then the biases, float64, .npy")],
    resume: Annotated[bool, Option("--resume", help="resume from the state halfway")] = False,
) -> None:
    """Write the float64 weights of the model that `train` fits.

    PROCESSES works as for `train`.
    """
    if (count := processes_asked_for() or 1) > 1:
        run_processes("stages.training.exact_weights", count)
        return
    with errors_told_to_torchrun(), joined_processes() as processes:
        model = exact_model(params, train_split, validation, resume, processes)
    if processes.first:
        with whole_file(weights) as part, part.open("wb") as file:
            np.save(file, model.weights)


if __name__ == "__main__":
    run(main, TrainParams)
