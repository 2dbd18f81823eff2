"""What the model looks for, and what it got wrong, as SVG."""

from collections.abc import Sequence
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray

from stages.formats.model_file import Model
from stages.formats.split_file import Split
from stages.report.metrics import Predictions
from stages.report.svg import (
    diverging,
    figure,
    fitted,
    images,
    on_one_scale,
    rgb,
    strokes,
    templates,
)


def weights_figure(model: Model) -> str:
    """One picture per class: what each pixel adds to its logit, beyond what it adds to all classes.

    Adding the same to all classes changes no probability, softmax(z + c) = softmax(z), so the mean
    over the classes is subtracted.
    """
    weights = fitted(model.weight.reshape(-1, *model.spec.image_shape))  # (K, C, h, w)
    weights -= weights.mean(0)
    largest = f"{np.abs(weights).max():.2f} per pixel"
    if weights.shape[1] == 1:
        pictures = diverging(weights[:, 0])
        subtitle = f"blue speaks for the class, orange against; full colour is {largest}"
    else:
        pictures = templates(weights)
        subtitle = f"the colours that speak for the class; grey is neutral, full colour {largest}"
    return figure(
        "What the model looks for",
        subtitle,
        images(pictures),
        [(name,) for name in model.classes],
        columns=min(len(model.classes), max(5, ceil(sqrt(len(model.classes))))),
    )


def contributions(model: Model, split: Split, batch_size: int) -> NDArray[np.float64]:
    """What each feature adds to each class's logit in a typical image, minus the mean, (K, D).

    A positive weight speaks for its class in that class's own images, so it is multiplied by their
    mean feature; a negative one speaks against it in the others', so it is multiplied by theirs.
    """
    k, d = model.weight.shape
    sums = np.zeros((k, d))
    for features, labels in split.batches(batch_size):
        sums += (labels == np.arange(k)[:, None]).astype(np.float64) @ features  # exact integers
    images = np.bincount(split.labels, minlength=k)[:, None]
    own = sums / np.maximum(images, 1)
    others = (sums.sum(0) - sums) / np.maximum(images.sum() - images, 1)
    weight = (model.weight - model.weight.mean(0)) / 255
    added: NDArray[np.float64] = np.where(weight > 0, weight * own, weight * others)
    return added


def strokes_figure(cells: NDArray[np.float64], classes: Sequence[str]) -> str:
    """One picture per class: the edges that speak for and against it, in each cell of a grid.

    cells: (K, B, G, G), what gradients of B directions, in equal steps from the right, add to a
    logit. An edge runs across its gradient, so opposite directions share a stroke.
    """
    k, directions, grid, _ = cells.shape
    columns = min(k, max(5, ceil(sqrt(k))))
    edges = cells.reshape(k, 2, directions // 2, grid, grid).sum(1)  # (K, B / 2, G, G)
    return figure(
        "What the model looks for",
        "blue edges speak for the class, orange ones, typical of others, against it",
        [strokes(edges_of_class) for edges_of_class in on_one_scale(edges)],
        [(name,) for name in classes],
        columns,
    )


def mistakes_figure(predictions: Predictions, split: Split, number: int) -> str:
    """The images that the model got wrong with the most confidence, the worst first."""
    wrong = np.flatnonzero(predictions.actual != predictions.predicted)
    worst = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")[:number]]
    captions = [
        (
            f"{predictions.confidence[i]:.1%}: {split.classes[predictions.predicted[i]]}",
            f"actual {split.classes[predictions.actual[i]]}",
        )
        for i in worst.tolist()
    ]
    return figure(
        "The most confident mistakes",
        f"{len(worst)} of {len(wrong)} among {len(split)} test images:"
        " how sure the model was of which class, and the actual one",
        images(rgb(fitted(split.images[worst]))),
        captions,
        columns=max(5, ceil(sqrt(len(worst)))),
    )
