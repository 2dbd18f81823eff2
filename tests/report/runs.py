"""Made-up runs to show on a page: pen strokes or blocks of colour, and a linear model."""

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stages.images.features import deskew, gradient_features
from stages.report.metrics import Predictions, metrics, reliability
from stages.report.page_data import PageData

Array = NDArray[Any]
Stroke = Sequence[tuple[float, float]]

HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd",
    "\U0001f408\u200d\u2b1b cat",
    "x" * 500,
    "a\"b\u2028\u202e'c&amp;`${alert(1)}$title\\",
)
# (x, y) in [0, 1], in the order in which digits are written
STROKES: tuple[Stroke, ...] = (
    ((0.5, 0.1), (0.25, 0.3), (0.25, 0.7), (0.5, 0.9), (0.75, 0.7), (0.75, 0.3), (0.5, 0.1)),
    ((0.5, 0.1), (0.5, 0.9)),
    ((0.25, 0.25), (0.5, 0.1), (0.75, 0.3), (0.25, 0.9), (0.8, 0.9)),
    ((0.25, 0.15), (0.7, 0.25), (0.45, 0.45), (0.75, 0.7), (0.25, 0.88)),
    ((0.3, 0.1), (0.2, 0.6), (0.8, 0.6), (0.7, 0.2), (0.7, 0.95)),
    ((0.75, 0.1), (0.3, 0.1), (0.3, 0.45), (0.7, 0.6), (0.6, 0.9), (0.2, 0.85)),
    ((0.6, 0.1), (0.3, 0.5), (0.3, 0.85), (0.65, 0.85), (0.65, 0.6), (0.3, 0.6)),
    ((0.2, 0.1), (0.8, 0.1), (0.4, 0.9)),
    (
        (0.5, 0.5),
        (0.3, 0.25),
        (0.5, 0.1),
        (0.7, 0.25),
        (0.3, 0.7),
        (0.5, 0.9),
        (0.7, 0.7),
        (0.5, 0.5),
    ),
    ((0.7, 0.4), (0.35, 0.4), (0.4, 0.1), (0.7, 0.15), (0.7, 0.4), (0.65, 0.9)),
)


def handwriting(n: int, seed: int = 0, side: int = 28) -> tuple[Array, Array]:
    """Digits (n, 1, side, side) uint8, sized and centred by mass as MNIST's; labels (n,)."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % len(STROKES)
    written = [_written(STROKES[k], side, random) for k in labels]
    images: Array = np.stack(written)[:, None]
    return images, labels


def _written(path: Stroke, side: int, random: np.random.Generator) -> Array:
    points = np.array(path) + random.normal(0, 0.03, (len(path), 2))
    points[:, 0] += random.normal(0, 0.25) * (0.5 - points[:, 1])
    box, pen = side * 20 / 28, side * 2.4 / 28
    points -= points.min(0)
    points *= (box - pen) / points.max()
    for _ in range(2):  # the second time its centre of mass is known
        y, x = np.indices((side, side))
        grid = np.stack([x, y], axis=-1)[:, :, None]  # (side, side, 1, 2)
        start, along = points[:-1], np.diff(points, axis=0)
        length = np.maximum((along**2).sum(-1), 1e-9)
        at = np.clip(((grid - start) * along).sum(-1) / length, 0, 1)[..., None]
        distance = np.sqrt(((grid - start - at * along) ** 2).sum(-1)).min(-1)
        ink = np.clip(pen / 2 + 0.5 - distance, 0, 1)
        centre = (grid[:, :, 0] * ink[..., None]).sum((0, 1)) / ink.sum()
        points += np.rint(side / 2 - centre)
    pixels: Array = np.rint(255 * ink).astype(np.uint8)
    return pixels


def blocks(n: int, k: int, shape: tuple[int, int, int], seed: int = 0) -> tuple[Array, Array]:
    """Noise (n, *shape) uint8 over blocks of a colour that depends on the class; labels (n,)."""
    random = np.random.default_rng(seed)
    channels, height, width = shape
    labels = random.integers(0, k, n)
    colours = random.integers(0, 256, (k, channels, 4, 4))
    rows, columns = 4 * np.arange(height) // height, 4 * np.arange(width) // width
    noise = random.integers(0, 256, (n, *shape))
    pure = colours[labels][..., rows, :][..., columns]
    return (0.3 * pure + 0.7 * noise).astype(np.uint8), labels


def a_run(
    images: Array,
    labels: Array,
    *,
    names: Sequence[str] | None = None,
    features: Literal["gradients", "pixels"] = "gradients",
    deskewed: bool = False,
    mislabelled: float = 0.0,
    title: str = "Toys",
    seed: int = 0,
) -> PageData:
    """A nearest-mean classifier as a linear model of the images, and its predictions.

    Then a share of the labels is drawn at random, so that most of those are mistakes.
    """
    upright = deskew(images) if deskewed else images
    pixels = features == "pixels"
    seen = upright.reshape(len(images), -1) if pixels else gradient_features(upright)
    k = int(labels.max()) + 1
    x = seen / 255
    means = np.stack([x[labels == c].mean(0) for c in range(k)])
    weight = (means - x.mean(0)).astype(np.float32)
    bias = (-0.5 * (means**2 - x.mean(0) ** 2).sum(1)).astype(np.float32)
    logits = (seen * (1 / 255)) @ weight.T.astype(np.float64) + bias
    logits -= logits.max(1, keepdims=True)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    random = np.random.default_rng([seed, 1])  # not the seed that the labels were drawn with
    drawn = random.integers(0, k, len(labels))
    labels = np.where(random.random(len(labels)) < mislabelled, drawn, labels)
    of_actual = p[np.arange(len(p)), labels]
    classes = tuple(names or (str(c) if k <= 10 else f"class {c}" for c in range(k)))
    predictions = Predictions(labels, p.argmax(1), -np.log(np.maximum(of_actual, 1e-300)), p.max(1))
    bins = reliability(predictions, 15)
    return PageData(
        title=title,
        licence="CC0",
        source=None,
        classes=classes,
        image_shape=images.shape[1:],
        fit="crop",
        features=features,
        deskew=deskewed,
        weight=weight,
        bias=bias,
        images=images,
        pictures=[f"test/{classes[label]}/{i}" for i, label in enumerate(labels)],
        actual=labels,
        predicted=predictions.predicted,
        confidence=predictions.confidence,
        actual_probability=of_actual,
        metrics=metrics(predictions, classes, bins),
        reliability=[astuple(one) for one in bins],
        history=[(100, 0.9, 0.8, 0.75), (200, 0.7, 0.75, 0.8), (300, 0.65, 0.7, 0.8125)],
        params={
            "train": {"learning_rate": 0.003, "nesterov": False, "seed": seed},
            "tensorize": {"size": None, "fit": "crop", "size_of": [28, 28]},
            "evaluate": {"calibration_bins": 15},
            "download": {"dataset": title},
        },
        counts={"train": 1000, "validation": 100, "test": len(images)},
    )
