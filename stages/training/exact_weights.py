"""Params and two splits -> the float64 weights that `train` rounds to float32.

`explain` rounds them the other way, `verify` measures how close they are to that. All that these
two need of the training code is here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typer import Option

from stages.base.command import run
from stages.base.whole_files import whole_file
from stages.formats.model_file import LogisticRegression, use_threads
from stages.train import CPU, TrainParams, fit, read_splits
from stages.training.checkpoint import State
from stages.training.processes import (
    ALONE,
    Processes,
    become_torchrun,
    joined_processes,
    processes_asked_for,
    under_torchrun,
)

Weights = NDArray[np.float64]


@dataclass(frozen=True)
class ExactModel:
    """A fitted model before rounding.

    weights: (K * D + K,), the rows of the weight matrix, then the biases.
    content: from such weights to the bytes of the file that `train` writes for them.
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
    """Fit the model as `train` does; with `resume`, once more from the state halfway through."""
    params = TrainParams.load(params_path, "train")
    splits = read_splits(train_path, validation_path)
    use_threads(params.batch_size, splits.training.image_shape, splits.training.classes)
    halfway: list[State] = []

    def keep_halfway(done: int, tensors: list[Tensor]) -> None:
        if done == params.iterations // 2:
            halfway.append(State(done, [tensor.clone() for tensor in tensors], None))

    model = fit(params, splits, after_step=keep_halfway, processes=processes)
    if resume and halfway:
        model = fit(params, splits, resume=halfway[0], processes=processes)
    weights = torch.cat([model.weight.flatten(), model.bias]).numpy()
    return ExactModel(weights, lambda other: _content(model, other, params))


def _content(model: LogisticRegression, weights: Weights, params: TrainParams) -> bytes:
    size = model.weight.numel()
    model.weight.copy_(torch.from_numpy(weights[:size]).view_as(model.weight))
    model.bias.copy_(torch.from_numpy(weights[size:]))
    return model.serialized(params.model_dump())


def main(
    params: Annotated[Path, Option(help="in: the file with the section `train`")],
    train_split: Annotated[Path, Option("--train", help="in: the images to fit")],
    validation: Annotated[Path, Option(help="in: the images to watch the loss on")],
    weights: Annotated[Path, Option(help="out: the weights, then the biases, float64, .npy")],
    resume: Annotated[bool, Option("--resume", help="resume from the state halfway")] = False,
) -> None:
    """Write the float64 weights of the model that `train` fits.

    TRAIN_PROCESSES works as for `train`.
    """
    if (count := processes_asked_for()) > 1 and not under_torchrun():
        become_torchrun("stages.training.exact_weights", count)
    with joined_processes(CPU) as processes:
        model = exact_model(params, train_split, validation, resume, processes)
    if processes.first:
        with whole_file(weights) as part, part.open("wb") as file:
            np.save(file, model.weights)


if __name__ == "__main__":
    run(main, TrainParams)
