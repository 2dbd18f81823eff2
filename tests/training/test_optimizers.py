import pytest
import torch

from stages.training.optimizers import SGD, Adam, Optimizer, learning_rate_at

STEPS, RATE = 50, 0.05


def steps_of(ours: Optimizer, weights: list[torch.Tensor]) -> None:
    generator = torch.Generator().manual_seed(1)
    for number in range(1, STEPS + 1):
        gradients = [torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in weights]
        ours.step(gradients, RATE, number)


def steps_of_torch(theirs: torch.optim.Optimizer, weights: list[torch.Tensor]) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        for w in weights:
            w.grad = torch.randn(w.shape, generator=generator, dtype=w.dtype)
        theirs.step()


def make_weights() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in ((3, 4), (3,))]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_takes_the_same_steps_as_torch(
    momentum: float, nesterov: bool, weight_decay: float
) -> None:
    ours, theirs = make_weights(), make_weights()
    steps_of(SGD(ours, momentum, nesterov, weight_decay), ours)
    steps_of_torch(
        torch.optim.SGD(
            theirs, RATE, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay
        ),
        theirs,
    )
    for our, their in zip(ours, theirs, strict=True):
        assert torch.allclose(our, their, rtol=0, atol=1e-12)


def test_nesterov_without_momentum_is_plain_gradient_descent() -> None:
    nesterov, plain = make_weights(), make_weights()
    steps_of(SGD(nesterov, 0.0, True, 0.1), nesterov)
    steps_of(SGD(plain, 0.0, False, 0.1), plain)
    assert all(torch.equal(a, b) for a, b in zip(nesterov, plain, strict=True))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decoupled", [False, True])
def test_adam_takes_the_same_steps_as_torch(
    decoupled: bool, momentum: float, weight_decay: float
) -> None:
    ours, theirs = make_weights(), make_weights()
    steps_of(Adam(ours, momentum, weight_decay, decoupled), ours)
    reference = torch.optim.AdamW if decoupled else torch.optim.Adam
    steps_of_torch(
        reference(theirs, RATE, betas=(momentum, 0.999), weight_decay=weight_decay), theirs
    )
    for our, their in zip(ours, theirs, strict=True):
        assert torch.allclose(our, their, rtol=0, atol=1e-12)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedules_equal_those_of_torch(schedule: str) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], RATE)
    theirs = {
        "constant": torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0),
        "linear": torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=STEPS),
        "cosine": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS),
    }[schedule]
    for iteration in range(STEPS):
        expected = theirs.get_last_lr()[0]
        assert learning_rate_at(schedule, RATE, iteration, STEPS) == pytest.approx(expected)
        optimizer.step()
        theirs.step()


def test_an_unknown_schedule_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match="found 'step'; expected 'constant'"):
        learning_rate_at("step", RATE, 0, STEPS)
