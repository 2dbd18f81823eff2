import math
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import cross_entropy, linear, one_hot
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR, LRScheduler

from stages.formats.split_file import Split
from stages.training.data import Examples
from stages.training.loop import batches, fit, loss_and_gradients, mean_loss_and_accuracy
from stages.training.processes import Processes
from tests.splits import pixel_split
from tests.training.runs import last_step, make_params

Make = Callable[..., Split]
OPTIMIZERS = [("sgd", False), ("sgd", True), ("adam", False), ("adamw", False)]


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, rtol=0, atol=1e-12)


def pixels_and_labels(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, D) float64 in 0 to 255, (N,)."""
    examples = Examples.of(split)
    return examples.features.double(), examples.labels


def random_weights(k: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(k, d, dtype=torch.float64, generator=generator)
    return weight, torch.randn(k, dtype=torch.float64, generator=generator)


@given(examples=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 99))
def test_each_epoch_holds_every_example_once(examples: int, batch_size: int, seed: int) -> None:
    per_epoch = -(-examples // batch_size)
    taken = list(islice(batches(examples, batch_size, seed), 2 * per_epoch))
    for epoch in (taken[:per_epoch], taken[per_epoch:]):
        assert sorted(torch.cat(epoch).tolist()) == list(range(examples))
        assert all(len(batch) == batch_size for batch in epoch[:-1])


def test_the_order_of_examples_depends_only_on_epoch_and_seed() -> None:
    first, second, third = islice(batches(50, 50, seed=0), 3)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    assert torch.equal(first, next(batches(50, 50, seed=0)))
    assert not torch.equal(first, next(batches(50, 50, seed=1)))


def test_loss_and_gradients_equal_those_of_autograd(make_images: Make) -> None:
    x, labels = pixels_and_labels(make_images(k=4, shape=(3, 2, 5)))
    weight, bias = (tensor.requires_grad_() for tensor in random_weights(4, 30))
    expected = cross_entropy(linear(x / 255, weight, bias), labels)
    theirs = torch.autograd.grad(expected, (weight, bias))
    loss, *gradients = loss_and_gradients(weight.detach(), bias.detach(), x, labels, 60)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert all(map(close, gradients, theirs))


def test_loss_and_gradients_of_parts_add_up_to_those_of_the_whole_batch(make_images: Make) -> None:
    x, labels = pixels_and_labels(make_images(n=20))
    whole, *parts = (
        loss_and_gradients(*random_weights(3, 20), x[part], labels[part], 20)
        for part in (slice(20), slice(0), slice(13), slice(13, 20))
    )
    for mean, *of_parts in zip(whole, *parts, strict=True):
        assert close(mean, torch.stack(of_parts).sum(0))


def test_a_disturbance_is_applied_to_p_minus_y(make_images: Make) -> None:
    x, labels = pixels_and_labels(make_images(n=30))
    weights = random_weights(3, 20)
    _, *plain = loss_and_gradients(*weights, x, labels, 30)
    _, *doubled = loss_and_gradients(*weights, x, labels, 30, lambda error: error.mul_(2))
    assert all(map(close, doubled, [2 * gradient for gradient in plain]))


def test_loss_and_gradients_at_zero_weights_equal_their_closed_form(make_images: Make) -> None:
    x, labels = pixels_and_labels(make_images(n=30, k=3))
    weight, bias = (torch.zeros(*shape, dtype=torch.float64) for shape in ((3, 20), (3,)))
    loss, by_weight, by_bias = loss_and_gradients(weight, bias, x, labels, 30)
    error = 1 / 3 - one_hot(labels, 3).double()  # P - Y
    assert loss.item() == pytest.approx(math.log(3), rel=1e-12)
    assert close(by_weight, error.T @ (x / 255) / 30)
    assert close(by_bias, error.mean(0))


@pytest.mark.parametrize(("optimizer", "nesterov"), OPTIMIZERS)
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_fit_takes_the_same_steps_as_autograd_with_torch_optim_and_its_schedulers(
    make_images: Make, optimizer: str, nesterov: bool, schedule: str
) -> None:
    split = make_images(n=23)
    params = make_params(
        optimizer=optimizer, nesterov=nesterov, schedule=schedule, weight_decay=0.01, iterations=9
    )
    layer = torch.nn.Linear(20, 3, dtype=torch.float64)
    for parameter in layer.parameters():
        torch.nn.init.zeros_(parameter)
    theirs: torch.optim.Optimizer
    if optimizer == "sgd":
        theirs = torch.optim.SGD(
            layer.parameters(), 0.1, momentum=0.9, nesterov=nesterov, weight_decay=0.01
        )
    else:
        kind = torch.optim.AdamW if optimizer == "adamw" else torch.optim.Adam
        theirs = kind(layer.parameters(), 0.1, betas=(0.9, 0.999), weight_decay=0.01)
    schedulers: dict[str, Callable[[], LRScheduler]] = {
        "constant": lambda: LambdaLR(theirs, lambda _: 1.0),
        "linear": lambda: LinearLR(theirs, 1.0, 0.0, total_iters=9),
        "cosine": lambda: CosineAnnealingLR(theirs, 9),
    }
    scheduler = schedulers[schedule]()
    x, labels = pixels_and_labels(split)
    steps = fit(params, Examples.of(split), 3)
    for number, (step, batch) in enumerate(zip(steps, batches(23, 10, seed=0), strict=False), 1):
        loss = cross_entropy(layer(x[batch] / 255), labels[batch])
        layer.weight.grad, layer.bias.grad = torch.autograd.grad(loss, (layer.weight, layer.bias))
        theirs.step()
        scheduler.step()
        assert step.iteration == number
        assert step.loss == pytest.approx(loss.item(), rel=1e-12)
        assert torch.allclose(step.weight, layer.weight, rtol=0, atol=1e-9)
        assert torch.allclose(step.bias, layer.bias, rtol=0, atol=1e-9)
    assert number == 9


@pytest.mark.parametrize(("optimizer", "nesterov"), OPTIMIZERS)
def test_a_resumed_fit_takes_the_same_steps_to_the_last_bit(
    make_images: Make, optimizer: str, nesterov: bool
) -> None:
    params = make_params(optimizer=optimizer, nesterov=nesterov, schedule="cosine")
    training = Examples.of(make_images(n=33))
    whole = [
        (step.loss, [tensor.clone() for tensor in step.tensors])
        for step in fit(params, training, 3)
    ]
    resumed = list(fit(params, training, 3, resume=(7, whole[6][1])))
    assert [(step.iteration, step.loss) for step in resumed] == [
        (number, loss) for number, (loss, _) in enumerate(whole[7:], 8)
    ]
    assert all(map(torch.equal, resumed[-1].tensors, whole[-1][1]))


def test_fit_finds_the_weights_that_scikit_learn_finds(make_images: Make) -> None:
    split = make_images(n=90)
    step = last_step(split, batch_size=90, iterations=3000, weight_decay=0.01, nesterov=True)
    with_one = np.hstack(
        [split.features / 255, np.ones((90, 1))]
    )  # our weight decay also applies to the bias
    theirs = LogisticRegression(C=1 / (90 * 0.01), fit_intercept=False, tol=1e-10, max_iter=10000)
    theirs.fit(with_one, split.labels)
    ours = torch.hstack([step.weight, step.bias[:, None]]).numpy()
    np.testing.assert_allclose(ours, theirs.coef_, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("optimizer", "nesterov"), OPTIMIZERS)
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_separable_images_are_learnt_without_error(
    optimizer: str, nesterov: bool, schedule: str
) -> None:
    labels = np.arange(40) % 4
    images = (255 * np.eye(4, dtype=np.uint8))[labels].reshape(40, 1, 2, 2)
    split = pixel_split(images, labels, tuple("abcd"))
    step = last_step(
        split, optimizer=optimizer, nesterov=nesterov, schedule=schedule, iterations=200
    )
    loss, accuracy = mean_loss_and_accuracy(step.weight, step.bias, Examples.of(split))
    assert accuracy == 1.0
    assert loss < 0.5 * math.log(4)


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": "adam"},
        {"learning_rate": 0.2},
        {"momentum": 0.6},
        {"nesterov": True},
        {"weight_decay": 0.1},
        {"schedule": "cosine"},
        {"batch_size": 20},
        {"iterations": 21},
        {"seed": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_train_param_changes_the_weights(make_images: Make, change: dict[str, Any]) -> None:
    reference, other = (last_step(make_images(), **{"momentum": 0.5} | c) for c in ({}, change))
    assert not torch.allclose(reference.weight, other.weight, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "params", [{"learning_rate": 1e308}, {"learning_rate": 2.0, "weight_decay": 100.0}]
)
def test_the_error_for_a_loss_that_is_not_finite_names_iteration_and_remedy(
    make_images: Make, params: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"iteration \d+: the loss is (inf|nan); .* lower train.l"):
        last_step(make_images(), iterations=2000, **params)


def test_mean_loss_and_accuracy_equal_those_of_torch_for_any_chunk_size(
    make_images: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = make_images(n=50)
    x, labels = pixels_and_labels(split)
    weight, bias = random_weights(3, 20)
    logits = linear(x / 255, weight, bias)
    loss = cross_entropy(logits, labels).item()
    accuracy = (logits.argmax(1) == labels).double().mean().item()
    assert 0 < accuracy < 1
    for images in (0, 1, 7, 49, 50, 1000):
        monkeypatch.setattr("stages.training.loop.FEATURES_AT_A_TIME", images * 20)
        found = mean_loss_and_accuracy(weight, bias, Examples.of(split))
        assert found == pytest.approx((loss, accuracy), rel=1e-12)


def test_mean_loss_and_accuracy_are_the_same_when_shared_among_processes(
    make_images: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples, weights = Examples.of(make_images(n=50)), random_weights(3, 20)
    monkeypatch.setattr("stages.training.loop.FEATURES_AT_A_TIME", 140)
    monkeypatch.setattr(Processes, "add_up", lambda *_: None)
    alone = mean_loss_and_accuracy(*weights, examples)
    shares = [mean_loss_and_accuracy(*weights, examples, Processes(i, 3)) for i in range(3)]
    assert tuple(map(sum, zip(*shares, strict=True))) == pytest.approx(alone, rel=1e-12)
