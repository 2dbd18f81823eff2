"""Update rules and learning rate schedules that give the same bytes on every machine.

They can, because each of these rules, at a stable learning rate, shrinks the last-bit differences
between two machines. A line search (L-BFGS) branches on them, and is left out for that reason.

They are written out here because building a `torch.optim.Optimizer` imports torch's compiler, which
takes longer than a whole training run. Tests check that they take the same steps as `torch.optim`.
"""

from collections.abc import Sequence
from math import cos, pi, sqrt
from typing import Protocol

import torch
from torch import Tensor


class Optimizer(Protocol):
    """Updates, in place, the weights it was constructed with."""

    @property
    def state(self) -> list[Tensor]:
        """Everything the next step needs besides the weights."""

    def step(self, gradients: Sequence[Tensor], learning_rate: float, number: int) -> None:
        """Take step `number`, from 1. The gradients, one per weight, may be overwritten."""


class SGD:
    """Stochastic gradient descent with momentum (Polyak 1964) or Nesterov's (1983).

    v <- momentum * v + g;  w <- w - learning_rate * v  (Nesterov: g + momentum * v instead of v),
    where g is the gradient plus weight_decay * w.
    """

    def __init__(
        self, weights: Sequence[Tensor], momentum: float, nesterov: bool, weight_decay: float
    ) -> None:
        self.weights = weights
        self.momentum, self.nesterov, self.weight_decay = momentum, nesterov, weight_decay
        self.velocities = [torch.zeros_like(weight) for weight in weights]

    @property
    def state(self) -> list[Tensor]:
        return self.velocities

    def step(self, gradients: Sequence[Tensor], learning_rate: float, number: int) -> None:  # noqa: ARG002  # Adam needs it
        for weight, gradient, velocity in zip(
            self.weights, gradients, self.velocities, strict=True
        ):
            if self.weight_decay:
                gradient.add_(weight, alpha=self.weight_decay)
            direction = gradient
            if self.momentum:
                direction = velocity.mul_(self.momentum).add_(gradient)
                if self.nesterov:
                    direction = gradient.add_(velocity, alpha=self.momentum)
            weight.sub_(direction, alpha=learning_rate)


class Adam:
    """Adam (Kingma and Ba 2015); with `decoupled` weight decay, AdamW (Loshchilov and Hutter 2019).

    momentum is the papers' beta1; beta2 and epsilon are the papers' defaults.
    """

    beta2 = 0.999
    epsilon = 1e-8

    def __init__(
        self, weights: Sequence[Tensor], momentum: float, weight_decay: float, decoupled: bool
    ) -> None:
        self.weights = weights
        self.momentum, self.weight_decay, self.decoupled = momentum, weight_decay, decoupled
        self.means = [torch.zeros_like(weight) for weight in weights]
        self.squares = [torch.zeros_like(weight) for weight in weights]

    @property
    def state(self) -> list[Tensor]:
        return self.means + self.squares

    def step(self, gradients: Sequence[Tensor], learning_rate: float, number: int) -> None:
        step_size = learning_rate / (1 - self.momentum**number)
        correction = sqrt(1 - self.beta2**number)
        for weight, gradient, mean, square in zip(
            self.weights, gradients, self.means, self.squares, strict=True
        ):
            if self.decoupled:
                weight.mul_(1 - learning_rate * self.weight_decay)
            else:
                gradient.add_(weight, alpha=self.weight_decay)
            mean.mul_(self.momentum).add_(gradient, alpha=1 - self.momentum)
            square.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
            # m / (sqrt(v) / c + epsilon) = c m / (sqrt(v) + c epsilon)
            root = square.sqrt().add_(correction * self.epsilon)
            weight.addcdiv_(mean, root, value=-step_size * correction)


def learning_rate_at(schedule: str, learning_rate: float, iteration: int, iterations: int) -> float:
    """The learning rate at `iteration`, from 0 to iterations - 1.

    `constant`; `linear` and `cosine` (Loshchilov and Hutter 2017) fall from `learning_rate` at
    iteration 0 towards 0 at the end.
    """
    progress = iteration / iterations
    match schedule:
        case "constant":
            return learning_rate
        case "linear":
            return learning_rate * (1 - progress)
        case "cosine":
            return learning_rate * 0.5 * (1 + cos(pi * progress))
    raise ValueError(f"found {schedule!r}; expected 'constant', 'linear' or 'cosine'")
