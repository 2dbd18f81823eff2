"""Labelled images -> a fitted logistic regression and the history of its loss.

In: two splits (`tensorize` made them).  Out: the model, and one row of history every `eval_every`
iterations. Everything is computed in float64 and published in float32 or with six decimals, so that
the same params give the same bytes on every machine, whatever its threads or device.
"""

import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, astuple, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import nll_loss
from tqdm import tqdm
from typer import Option

from stages.base.command import run
from stages.base.csv_text import csv_text
from stages.base.params import Integer, Params, Real, Seed
from stages.base.whole_files import write_text
from stages.formats.model_file import LogisticRegression, log_probabilities, pixels, use_threads
from stages.formats.split_file import LabelledImages
from stages.training.checkpoint import Checkpoint, State, run_key
from stages.training.optimizers import SGD, Adam, Optimizer, learning_rate_at
from stages.training.processes import (
    ALONE,
    Processes,
    become_torchrun,
    joined_processes,
    processes_asked_for,
    under_torchrun,
)

CPU = torch.device("cpu")
PIXELS_AT_A_TIME = 2**19  # where no gradient is taken: 4 MB in float64, which stay in the cache


class TrainParams(Params):
    """Section `train` of params.yaml."""

    optimizer: Literal["sgd", "adam", "adamw"] = Field(description="sgd, adam or adamw")
    learning_rate: Real = Field(gt=0, description="size of the first step, above 0")
    momentum: Real = Field(
        ge=0, lt=1, description="share of the past gradients kept, in [0, 1); Adam's beta1"
    )
    nesterov: bool = Field(description="true or false: Nesterov's momentum, for sgd alone")
    weight_decay: Real = Field(
        ge=0, description="added to the gradient per unit of weight (adamw: taken off the weight)"
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        description="constant, linear or cosine: how the learning rate falls"
    )
    batch_size: Integer = Field(ge=1, description="images an iteration, 1 or more")
    iterations: Integer = Field(ge=1, description="steps in all, 1 or more")
    eval_every: Integer = Field(ge=1, description="iterations between rows of history, 1 or more")
    seed: Seed = Field(description="of the order of the images, 0 to 2**63 - 1")

    @model_validator(mode="after")
    def _nesterov_is_for_sgd(self) -> Self:
        if self.nesterov and self.optimizer != "sgd":
            raise ValueError(
                f"nesterov: found true with optimizer {self.optimizer!r};"
                " expected false, or optimizer 'sgd'"
            )
        return self


@dataclass(frozen=True)
class Evaluation:
    """One row of history: mean cross entropies in nats, accuracy in [0, 1].

    None where there is no validation split.
    """

    iteration: int
    training_loss: float
    validation_loss: float | None
    validation_accuracy: float | None

    def __str__(self) -> str:
        text = f"iteration {self.iteration:6}  training loss {self.training_loss:.4f}"
        if self.validation_accuracy is not None:
            text += (
                f"  validation loss {self.validation_loss:.4f}"
                f"  accuracy {self.validation_accuracy:.2%}"
            )
        return text


@dataclass(frozen=True)
class Splits:
    """What is fitted, and what the loss is watched on, which may be empty."""

    training: LabelledImages
    validation: LabelledImages


def batches(examples: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Endless batches of indices, (batch_size,) int64: each epoch a new order of all the examples.

    The last batch of an epoch is smaller where batch_size does not divide the number of examples.
    """
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(examples, generator=generator)
        for start in range(0, examples, batch_size):
            yield order[start : start + batch_size]


def loss_and_gradients(
    weight: Tensor, bias: Tensor, x: Tensor, labels: Tensor, batch_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """What N examples add to a batch's mean cross entropy and to its gradients.

    Weights (K, D) and (K,), pixels (N, D), all float64, and labels (N,) int64
    -> loss in nats, (), and (K, D), (K,).
    With P the probabilities and Y the one-hot labels, both (N, K), the gradients are (P - Y)^T X
    and the column sums of P - Y, divided by the batch size (Bishop 2006, equation 4.109).
    """
    log_p = log_probabilities(weight, bias, x)
    loss = nll_loss(log_p, labels, reduction="sum").div_(batch_size)
    actual = labels[:, None]  # (N, 1)
    error = log_p.exp_().scatter_add_(1, actual, torch.full_like(actual, -1, dtype=log_p.dtype))
    error.div_(batch_size)  # (P - Y) / batch_size
    return loss, error.T @ x, error.sum(0)


def make_optimizer(params: TrainParams, weights: list[Tensor]) -> Optimizer:
    """The update rule that `params` names, over `weights`."""
    if params.optimizer == "sgd":
        return SGD(weights, params.momentum, params.nesterov, params.weight_decay)
    return Adam(weights, params.momentum, params.weight_decay, params.optimizer == "adamw")


def loss_and_accuracy(
    model: LogisticRegression, split: LabelledImages, processes: Processes = ALONE
) -> tuple[float, float]:
    """Mean cross entropy in nats and accuracy in [0, 1]: sums over a whole split, divided once."""
    sums = torch.zeros(2, dtype=torch.float64, device=model.weight.device)
    batch_size = max(1, PIXELS_AT_A_TIME // math.prod(split.image_shape))
    for images, labels in islice(split.batches(batch_size), processes.rank, None, processes.count):
        actual = labels.to(sums.device)
        log_p = model(images.to(sums.device))
        sums[0] += nll_loss(log_p, actual, reduction="sum")
        sums[1] += (log_p.max(1).indices == actual).sum()  # argmax takes six times as long
    processes.add_up(sums)
    loss, accuracy = (sums / len(split)).tolist()
    return loss, accuracy


def evaluate_splits(
    model: LogisticRegression, splits: Splits, iteration: int, processes: Processes
) -> Evaluation:
    """The row of history after `iteration` steps."""
    training_loss, _ = loss_and_accuracy(model, splits.training, processes)
    if not len(splits.validation):
        return Evaluation(iteration, training_loss, None, None)
    validation = loss_and_accuracy(model, splits.validation, processes)
    return Evaluation(iteration, training_loss, *validation)


def fit(
    params: TrainParams,
    splits: Splits,
    report: Callable[[Evaluation], None] | None = None,
    after_step: Callable[[int, list[Tensor]], None] | None = None,
    resume: State | None = None,
    disturbance: float = 0.0,
    processes: Processes = ALONE,
    device: torch.device = CPU,
) -> LogisticRegression:
    """The model after `params.iterations` steps on batches of the training split.

    `report` gets each row of history; `after_step` the number of steps done and the tensors that
    the next one needs, which a `State` to resume from holds as they were. Each gradient is
    multiplied by 1 + `disturbance` times a standard normal number.
    Raises ValueError if the loss is no longer finite.
    """
    training = splits.training
    model = LogisticRegression(training.image_shape, training.classes, training.fit).to(device)
    optimizer = make_optimizer(params, [model.weight, model.bias])
    tensors = [model.weight, model.bias, *optimizer.state]
    start = 0
    if resume:
        start = resume.iteration
        for tensor, kept in zip(tensors, resume.tensors, strict=True):
            tensor.copy_(kept)
    noise = torch.Generator().manual_seed(0)
    indices = batches(len(training), params.batch_size, params.seed)
    for done, batch in enumerate(islice(indices, start, params.iterations), start + 1):
        mine = processes.part(batch)
        x = pixels(training.images.index_select(0, mine).to(device))
        labels = training.labels.index_select(0, mine).to(device)
        loss, *gradients = loss_and_gradients(model.weight, model.bias, x, labels, len(batch))
        processes.add_up(loss, *gradients)
        if not math.isfinite(loss.item()):
            raise ValueError(
                f"iteration {done}: the loss is {loss.item()}; the steps are too large:"
                f" lower train.learning_rate (now {params.learning_rate:g})"
                f" or train.weight_decay (now {params.weight_decay:g})"
            )
        for gradient in gradients if disturbance else []:
            random = torch.randn(gradient.shape, dtype=gradient.dtype, generator=noise)
            gradient.mul_(1 + disturbance * random.to(device))
        rate = learning_rate_at(params.schedule, params.learning_rate, done - 1, params.iterations)
        optimizer.step(gradients, rate, done)
        if report and (done % params.eval_every == 0 or done == params.iterations):
            report(evaluate_splits(model, splits, done, processes))
        if after_step:
            after_step(done, tensors)
    return model


def growth(
    params: TrainParams,
    splits: Splits,
    processes: Processes = ALONE,
    device: torch.device = CPU,
) -> float:
    """How many times larger the relative error of the weights is than that of the gradients.

    Rounding disturbs each gradient by a share of its size. At a stable learning rate, gradient
    descent on a convex loss shrinks what that does to the weights, and this is about 1 or less; at
    a larger one it grows from step to step. Measured on the first 100 steps at the full rate.
    """
    short = params.model_copy(
        update={"iterations": min(100, params.iterations), "schedule": "constant"}
    )
    disturbance = 1e-9
    one = fit(short, splits, processes=processes, device=device)
    other = fit(short, splits, disturbance=disturbance, processes=processes, device=device)
    return float((other.weight - one.weight).norm() / one.weight.norm() / disturbance)


def pick_device() -> torch.device:
    """CUDA where there is one; else the CPU, also where there is MPS, which has no float64."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if torch.backends.mps.is_available():
        print("training on the CPU: MPS has no float64")
    return CPU


def read_splits(train_path: Path, validation_path: Path) -> Splits:
    """Read the two splits; raises ValueError if one cannot be trained on with the other."""
    training = LabelledImages.load(train_path)
    validation = LabelledImages.load(validation_path)
    if not len(training):
        raise ValueError(f"{train_path}: no images; expected at least one to train on")
    if (validation.classes, validation.image_shape) != (training.classes, training.image_shape):
        raise ValueError(
            f"{validation_path}: its classes or image shape differ from those of {train_path};"
            " `dvc repro -f tensorize` makes both anew"
        )
    return Splits(training, validation)


def train(
    params: TrainParams,
    train_path: Path,
    validation_path: Path,
    model_path: Path,
    history_path: Path,
) -> None:
    """Read two splits, fit, write the model and its history."""
    splits = read_splits(train_path, validation_path)
    use_threads(params.batch_size, splits.training.image_shape, splits.training.classes)
    checkpoint = Checkpoint(model_path, lambda: run_key(params, (train_path, validation_path)))
    device = pick_device()
    # A bar on a terminal, nothing but the rows in a log, and either from the first process alone.
    with (
        joined_processes(device) as processes,
        tqdm(
            total=params.iterations,
            unit="it",
            disable=None if processes.first else True,
            leave=False,
        ) as bar,
    ):
        state: State | None = processes.from_first(checkpoint.load() if processes.first else None)
        history = [Evaluation(**row) for row in state.report] if state else []
        if state and processes.first:
            print(f"going on after iteration {state.iteration}")
            bar.update(state.iteration)

        def report(row: Evaluation) -> None:
            history.append(row)
            if processes.first:
                bar.write(str(row), file=sys.stdout)

        def after_step(done: int, tensors: list[Tensor]) -> None:
            bar.update()
            if processes.first:
                checkpoint.offer(lambda: State(done, tensors, list(map(asdict, history))))

        if (factor := growth(params, splits, processes, device)) > 2 and processes.first:
            print(
                f"note: rounding errors grow {factor:.1f}-fold in the first steps: the learning"
                " rate is beyond the stable range, and other machines may get other bytes;"
                " lower train.learning_rate",
                file=sys.stderr,
            )
        model = fit(params, splits, report, after_step, state, processes=processes, device=device)
    if processes.first:
        model.save(model_path, params.model_dump())
        names = [field.name for field in fields(Evaluation)]
        write_text(history_path, csv_text(names, map(astuple, history)))
        checkpoint.remove()


def main(
    params: Annotated[Path, Option(help="in: the file with the section `train`")],
    train_split: Annotated[Path, Option("--train", help="in: the images to fit")],
    validation: Annotated[Path, Option(help="in: the images to watch the loss on")],
    model: Annotated[Path, Option(help="out: the model, safetensors")],
    history: Annotated[Path, Option(help="out: losses and accuracy, CSV")],
) -> None:
    """Fit a logistic regression to labelled images by stochastic gradient descent.

    The environment variable TRAIN_PROCESSES, or torchrun, shares the work among processes. That
    changes no byte of what comes out, nor does stopping a run and starting it again.
    """
    loaded = TrainParams.load(params, "train")
    if (count := processes_asked_for()) > 1 and not under_torchrun():
        read_splits(train_split, validation)  # what is wrong is told once, not by each process
        become_torchrun("stages.train", count)
    train(loaded, train_split, validation, model, history)


if __name__ == "__main__":
    run(main, TrainParams)
