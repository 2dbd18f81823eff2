import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression as SklearnLogisticRegression
from torch.nn.functional import cross_entropy, linear, one_hot

from stages.formats.model_file import LogisticRegression, pixels
from stages.formats.split_file import LabelledImages
from stages.train import (
    Evaluation,
    Splits,
    TrainParams,
    batches,
    fit,
    growth,
    loss_and_accuracy,
    loss_and_gradients,
    train,
)

Make = Callable[..., LabelledImages]
DEFAULTS: dict[str, Any] = {
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 0.0,
    "schedule": "constant",
    "batch_size": 10,
    "iterations": 20,
    "eval_every": 10,
    "seed": 0,
}


def fitted(
    training: LabelledImages, validation: LabelledImages | None = None, **params: Any
) -> tuple[LogisticRegression, list[Evaluation]]:
    history: list[Evaluation] = []
    nothing = training.subset(torch.arange(0))
    splits = Splits(training, nothing if validation is None else validation)
    model = fit(TrainParams(**DEFAULTS | params), splits, history.append)
    return model, history


@given(examples=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 99))
def test_each_epoch_holds_every_example_once(examples: int, batch_size: int, seed: int) -> None:
    per_epoch = -(-examples // batch_size)
    taken = list(islice(batches(examples, batch_size, seed), 2 * per_epoch))
    for epoch in (taken[:per_epoch], taken[per_epoch:]):
        assert sorted(torch.cat(epoch).tolist()) == list(range(examples))
        assert all(len(batch) == batch_size for batch in epoch[:-1])


def test_epochs_differ_and_seeds_decide() -> None:
    first, second, third = islice(batches(50, 50, seed=0), 3)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    assert torch.equal(first, next(batches(50, 50, seed=0)))
    assert not torch.equal(first, next(batches(50, 50, seed=1)))


def test_gradients_are_those_of_autograd(make_images: Make) -> None:
    split = make_images(k=4, shape=(3, 2, 5))
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 30, dtype=torch.float64, generator=generator).requires_grad_()
    bias = torch.randn(4, dtype=torch.float64, generator=generator).requires_grad_()
    x = pixels(split.images)
    expected = cross_entropy(linear(x, weight, bias), split.labels)
    theirs = torch.autograd.grad(expected, (weight, bias))
    loss, *gradients = loss_and_gradients(weight.detach(), bias.detach(), x, split.labels, 60)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for our, their in zip(gradients, theirs, strict=True):
        assert torch.allclose(our, their, rtol=0, atol=1e-12)


def test_parts_of_a_batch_add_up_to_its_mean(make_images: Make) -> None:
    split = make_images(n=20)
    model, _ = fitted(split)
    x = pixels(split.images)
    whole = loss_and_gradients(model.weight, model.bias, x, split.labels, 20)
    parts = [
        loss_and_gradients(model.weight, model.bias, x[part], split.labels[part], 20)
        for part in (slice(0, 0), slice(0, 13), slice(13, 20))
    ]
    for mean, *of_parts in zip(whole, *parts, strict=True):
        assert torch.allclose(mean, torch.stack(of_parts).sum(0), rtol=0, atol=1e-12)


def test_at_zero_weights_loss_and_gradients_have_a_closed_form(make_images: Make) -> None:
    split = make_images(n=30, k=3)
    x, y = pixels(split.images), one_hot(split.labels, 3).double()
    model = LogisticRegression(split.image_shape, split.classes)
    loss, by_weight, by_bias = loss_and_gradients(model.weight, model.bias, x, split.labels, 30)
    assert loss.item() == pytest.approx(math.log(3), rel=1e-12)
    assert torch.allclose(by_weight, (1 / 3 - y).T @ x / 30, rtol=0, atol=1e-12)
    assert torch.allclose(by_bias, (1 / 3 - y).mean(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_the_first_step_is_the_optimizer_on_the_mean_gradient(
    make_images: Make, optimizer: str
) -> None:
    split = make_images(n=12)
    model, _ = fitted(split, optimizer=optimizer, iterations=1, batch_size=12)
    x = pixels(split.images)
    gradient = (1 / 3 - one_hot(split.labels, 3).double()).T @ x / 12
    step = gradient if optimizer == "sgd" else gradient / (gradient.abs() + 1e-8)
    assert torch.allclose(model.weight, -0.1 * step, rtol=0, atol=1e-12)


def test_finds_what_scikit_learn_finds(make_images: Make) -> None:
    split = make_images(n=90, k=3)
    weight_decay = 0.01
    model, _ = fitted(
        split,
        batch_size=90,
        iterations=3000,
        eval_every=3000,
        weight_decay=weight_decay,
        nesterov=True,
    )
    x = pixels(split.images).numpy()
    with_one = np.hstack([x, np.ones((90, 1))])  # our weight decay takes in the bias
    theirs = SklearnLogisticRegression(
        C=1 / (90 * weight_decay), fit_intercept=False, tol=1e-10, max_iter=10000
    ).fit(with_one, split.labels.numpy())
    ours = torch.hstack([model.weight, model.bias[:, None]]).numpy()
    np.testing.assert_allclose(ours, theirs.coef_, rtol=0, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_separable_images_are_learnt_without_error(optimizer: str, schedule: str) -> None:
    labels = torch.arange(40) % 4
    images = (one_hot(labels, 4) * 255).to(torch.uint8).view(40, 1, 2, 2)
    split = LabelledImages(images, labels, tuple("abcd"))
    _, history = fitted(split, split, optimizer=optimizer, schedule=schedule, iterations=200)
    assert history[-1].validation_accuracy == 1.0
    assert history[-1].training_loss < history[0].training_loss < math.log(4)


def test_history_has_a_row_every_eval_every_and_one_at_the_end(make_images: Make) -> None:
    split = make_images()
    model, history = fitted(split, split, iterations=25, eval_every=10)
    assert [row.iteration for row in history] == [10, 20, 25]
    loss = cross_entropy(model(split.images), split.labels).item()
    accuracy = (model(split.images).argmax(1) == split.labels).double().mean().item()
    assert history[-1].training_loss == pytest.approx(loss, rel=1e-12)
    assert history[-1].validation_loss == pytest.approx(loss, rel=1e-12)
    assert history[-1].validation_accuracy == pytest.approx(accuracy, rel=1e-12)


def test_loss_and_accuracy_do_not_depend_on_how_many_images_are_taken_at_a_time(
    make_images: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = make_images(n=50)
    model, _ = fitted(split)
    loss, accuracy = loss_and_accuracy(model, split)
    for images in (0, 1, 7, 49):
        monkeypatch.setattr("stages.train.PIXELS_AT_A_TIME", images * 20)
        other = loss_and_accuracy(model, split)
        assert other[0] == pytest.approx(loss, rel=1e-12)
        assert other[1] == accuracy


def test_each_param_has_an_effect(make_images: Make) -> None:
    split = make_images()
    reference, _ = fitted(split, momentum=0.5)
    for change in (
        {"optimizer": "adam"},
        {"learning_rate": 0.2},
        {"momentum": 0.6},
        {"nesterov": True},
        {"weight_decay": 0.1},
        {"schedule": "cosine"},
        {"batch_size": 20},
        {"iterations": 21},
        {"seed": 1},
    ):
        other, _ = fitted(split, **{"momentum": 0.5} | change)
        assert not torch.allclose(reference.weight, other.weight, rtol=0, atol=1e-9), change


@pytest.mark.parametrize(
    "params", [{"learning_rate": 1e308}, {"learning_rate": 2.0, "weight_decay": 100.0}]
)
def test_a_loss_that_is_not_finite_names_the_iteration_and_the_cause(
    make_images: Make, params: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"iteration \d+: the loss is (inf|nan); .* lower train.l"):
        fitted(make_images(), iterations=2000, **params)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rare", [False, True])
@pytest.mark.parametrize(
    ("optimizer", "weight_decay", "stable", "unstable"),
    [("sgd", 0.0, 0.1, 10.0), ("adam", 0.0, 0.01, 3.0), ("adam", 0.01, 0.01, 3.0)],
)
def test_errors_grow_where_the_learning_rate_is_beyond_the_stable_range(
    make_images: Make,
    optimizer: str,
    weight_decay: float,
    stable: float,
    unstable: float,
    rare: bool,
    seed: int,
) -> None:
    split = make_images(n=500)
    if rare:  # pixels that few images light, as at the border of MNIST's
        split.images[:-2, :, 0] = 0
    params = {"optimizer": optimizer, "weight_decay": weight_decay, "seed": seed}
    params |= {"iterations": 3000}
    for learning_rate, expected in ((stable, False), (unstable, True)):
        values = DEFAULTS | params | {"learning_rate": learning_rate}
        assert (growth(TrainParams(**values), Splits(split, split)) > 2) == expected


def test_growth_after_one_step_is_the_disturbance_of_the_gradient(make_images: Make) -> None:
    split = make_images(n=60)
    params = TrainParams(**DEFAULTS | {"batch_size": 60, "iterations": 1})
    gradient = (1 / 3 - one_hot(split.labels, 3).double()).T @ pixels(split.images) / 60
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(3, 20, dtype=torch.float64, generator=generator)
    expected = (gradient * random).norm() / gradient.norm()
    assert growth(params, Splits(split, split)) == pytest.approx(expected.item(), rel=1e-5)


def test_train_notes_an_unstable_learning_rate_and_only_that(
    tmp_path: Path, make_images: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write_splits(tmp_path, make_images(), make_images())
    train(TrainParams(**DEFAULTS | {"iterations": 600}), *paths)
    assert capsys.readouterr().err == ""
    train(TrainParams(**DEFAULTS | {"iterations": 600, "learning_rate": 20.0}), *paths)
    assert "lower train.learning_rate" in capsys.readouterr().err


def write_splits(
    tmp_path: Path, training: LabelledImages, validation: LabelledImages
) -> list[Path]:
    names = ("train", "validation", "model", "history.csv")
    paths = [tmp_path / name for name in names]
    training.save(paths[0])
    validation.save(paths[1])
    return paths


def test_train_writes_the_same_bytes_again(tmp_path: Path, make_images: Make) -> None:
    params = TrainParams(**DEFAULTS)
    contents = []
    for folder in ("one", "the other"):
        paths = write_splits(tmp_path / folder, make_images(), make_images(seed=1))
        train(params, *paths)
        contents.append([path.read_bytes() for path in paths])
    assert contents[0] == contents[1]
    assert contents[0][3].decode().splitlines()[0] == (
        "iteration,training_loss,validation_loss,validation_accuracy"
    )


def test_train_without_a_validation_split(
    tmp_path: Path, make_images: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    split = make_images()
    paths = write_splits(tmp_path, split, split.subset(torch.arange(0)))
    train(TrainParams(**DEFAULTS), *paths)
    rows = [line.split(",") for line in paths[3].read_text().splitlines()]
    assert [row[0] for row in rows] == ["iteration", "10", "20"]
    assert [row[2:] for row in rows[1:]] == [["", ""], ["", ""]]
    assert "accuracy" not in capsys.readouterr().out


def test_train_writes_nothing_when_the_loss_is_not_finite(
    tmp_path: Path, make_images: Make
) -> None:
    paths = write_splits(tmp_path, make_images(), make_images())
    paths[2].write_text("an older model")
    with pytest.raises(ValueError, match="iteration"):
        train(TrainParams(**DEFAULTS | {"learning_rate": 1e308}), *paths)
    assert paths[2].read_text() == "an older model"
    assert not paths[3].exists()


def test_train_refuses_splits_that_do_not_fit(tmp_path: Path, make_images: Make) -> None:
    paths = write_splits(tmp_path, make_images(), make_images(k=4))
    with pytest.raises(ValueError, match="validation: its classes or image shape differ"):
        train(TrainParams(**DEFAULTS), *paths)
    empty = make_images().subset(torch.arange(0))
    paths = write_splits(tmp_path, empty, empty)
    with pytest.raises(ValueError, match="train: no images"):
        train(TrainParams(**DEFAULTS), *paths)


def test_nesterov_is_for_sgd() -> None:
    with pytest.raises(ValueError, match="expected false, or optimizer 'sgd'"):
        TrainParams(**DEFAULTS | {"optimizer": "adam", "nesterov": True})
