"""The training loop: tensors in, weights out, no files.

Everything is computed in float64, so that what differs between machines (the order of sums) stays
far below what the published float32 weights can show.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor
from torch.nn.functional import nll_loss

from stages.training.data import Examples
from stages.training.optimizers import SGD, Adam, Optimizer, learning_rate_at
from stages.training.processes import ALONE, CPU, Processes
from stages.training.settings import TrainParams

SCALE = 1 / 255  # of a feature
FEATURES_AT_A_TIME = 2**19  # when evaluating: 4 MB in float64, which fits in the cache

Disturb = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Step:
    """The state after `iteration` steps, counted from 1.

    loss: mean cross entropy of the step's batch before the step, in nats.  weight: (K, D) and
    bias: (K,), float64, which the next step changes in place.  tensors: these two and the
    optimizer's state, all that the next step needs.
    """

    iteration: int
    loss: float
    weight: Tensor
    bias: Tensor
    tensors: Sequence[Tensor]


def batches(examples: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Endless batches of indices, (batch_size,) int64: each epoch has all examples in a new order.

    The last batch of an epoch is smaller where batch_size does not divide the number of examples.
    """
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.split(torch.randperm(examples, generator=generator), batch_size)


def logits(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """Weights (K, D) and (K,), and features (N, D), all float64 -> W x / 255 + b, (K, N).

    The scale is applied by the product itself, which saves a pass over the features; classes come
    first, because softmax over the first axis is several times as fast for few classes.
    """
    return torch.addmm(bias[:, None], weight, x.T, alpha=SCALE)


def loss_and_gradients(
    weight: Tensor,
    bias: Tensor,
    x: Tensor,
    labels: Tensor,
    batch_size: int,
    disturb: Disturb | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """What N examples contribute to a batch's mean cross entropy and its gradients.

    Weights (K, D) and (K,), and features (N, D), all float64, and labels (N,) int64
    -> loss in nats, (), and (K, D), (K,).
    With P the probabilities and Y the one-hot labels, both (K, N), the gradients are
    (P - Y) X / 255 and the row sums of P - Y, divided by the batch size (Bishop 2006, eq. 4.109).
    disturb: applied to P - Y.
    """
    log_p = torch.log_softmax(logits(weight, bias, x), dim=0)  # (K, N)
    actual = labels[None]  # (1, N)
    loss = log_p.gather(0, actual).sum().div_(-batch_size)
    # P - Y: of the actual class the others' sum, since 1 - p loses its digits where p is almost 1,
    # and an optimizer that divides by the size of gradients would make that loss visible.
    error = log_p.exp_().scatter_(0, actual, 0.0)
    error.scatter_(0, actual, -error.sum(0, keepdim=True))
    if disturb:
        error = disturb(error)
    by_bias = error.sum(1).div_(batch_size)
    return loss, error.mul_(SCALE / batch_size) @ x, by_bias


def make_optimizer(params: TrainParams, weights: list[Tensor]) -> Optimizer:
    """The update rule that `params` names, over `weights`."""
    if params.optimizer == "sgd":
        return SGD(weights, params.momentum, params.nesterov, params.weight_decay)
    return Adam(weights, params.momentum, params.weight_decay, params.optimizer == "adamw")


def fit(
    params: TrainParams,
    training: Examples,
    classes: int,
    processes: Processes = ALONE,
    device: torch.device = CPU,
    resume: tuple[int, Sequence[Tensor]] | None = None,
    disturb: Disturb | None = None,
) -> Iterator[Step]:
    """Take `params.iterations` steps on batches of the training examples, and yield each.

    The weights start at zero: the loss is convex, so there is no symmetry to break. resume: an
    iteration and that step's tensors, to continue from. disturb: applied to P - Y in each.
    Raises ValueError if the loss is no longer finite.
    """
    weight = torch.zeros(classes, training.features.shape[1], dtype=torch.float64, device=device)
    bias = torch.zeros(classes, dtype=torch.float64, device=device)
    optimizer = make_optimizer(params, [weight, bias])
    tensors = [weight, bias, *optimizer.state]
    start = 0
    if resume:
        start, saved = resume
        for tensor, value in zip(tensors, saved, strict=True):
            tensor.copy_(value)
    indices = batches(len(training), params.batch_size, params.seed)
    for iteration, batch in enumerate(islice(indices, start, params.iterations), start + 1):
        mine = processes.part(batch)
        x = training.features.index_select(0, mine).to(device, torch.float64)
        labels = training.labels.index_select(0, mine).to(device)
        loss, *gradients = loss_and_gradients(weight, bias, x, labels, len(batch), disturb)
        processes.add_up(loss, *gradients)
        batch_loss = float(loss)
        if not math.isfinite(batch_loss):
            raise ValueError(
                f"iteration {iteration}: the loss is {batch_loss}; the steps are too large:"
                f" lower train.learning_rate (now {params.learning_rate:g})"
                f" or train.weight_decay (now {params.weight_decay:g})"
            )
        rate = learning_rate_at(
            params.schedule, params.learning_rate, iteration - 1, params.iterations
        )
        optimizer.step(gradients, rate, iteration)
        yield Step(iteration, batch_loss, weight, bias, tensors)


def mean_loss_and_accuracy(
    weight: Tensor, bias: Tensor, examples: Examples, processes: Processes = ALONE
) -> tuple[float, float]:
    """Mean cross entropy in nats and accuracy in [0, 1]: sums over all examples, divided once."""
    sums = torch.zeros(2, dtype=torch.float64, device=weight.device)
    at_a_time = max(1, FEATURES_AT_A_TIME // max(1, weight.shape[1]))
    parts = zip(
        torch.split(examples.features, at_a_time),
        torch.split(examples.labels, at_a_time),
        strict=True,
    )
    for features, labels in islice(parts, processes.rank, None, processes.count):
        x, actual = features.to(weight.device, torch.float64), labels.to(weight.device)
        log_p = torch.log_softmax(logits(weight, bias, x), dim=0).T  # (n, K)
        sums[0] += nll_loss(log_p, actual, reduction="sum")
        sums[1] += (log_p.max(1).indices == actual).sum()  # argmax takes six times as long
    processes.add_up(sums)
    loss, accuracy = (sums / len(examples)).tolist()
    return loss, accuracy
