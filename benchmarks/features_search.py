"""The constants of the features and the training settings, compared on validation images only.

    python -m benchmarks.features_search [--no-deskew] [--splits N] [NAME ...]

Prints one row of a Markdown table per name, all of them by default: NAME is a key of VARIANTS or of
SETTINGS. The training images are those in data/raw; of the 60,000, each split holds out another
10,000 at random. Leave deskewing on for handwriting only. A row of 3,000 iterations takes about ten
seconds per split, and the same split and batches in every row, so differences between rows are far
less noisy than the rows themselves. Tables of what was tried are in docs/features.md.
"""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.mnist import read
from stages.formats.split_file import Labels
from stages.images import features
from stages.images.features import Features, Images, deskew, gradient_features
from stages.training.data import Examples
from stages.training.loop import fit, mean_loss_and_accuracy
from stages.training.settings import TrainParams
from stages.training.stability import FIRST_STEPS, margin, other_roundings

HELD_OUT = 10_000
FIRST_SEED = 10
CLASSES = 10
HEADER = "| | numbers | accuracy, % | mean | cross entropy | margin |\n|---|--:|--:|--:|--:|--:|"

# What is set in stages.images.features.
VARIANTS: dict[str, dict[str, int]] = {
    "as committed": {},
    "nothing taken off A": {"FAINT": 0},
    "64 taken off A": {"FAINT": 64},
    "128 taken off A": {"FAINT": 128},
    "512 taken off A": {"FAINT": 512},
    "pairs in 3 x 3 cells": {"PAIR_CELLS": 3},
    "pairs in 5 x 5 cells": {"PAIR_CELLS": 5},
    "pairs one cell apart": {"PAIR_DISTANCE": 1},
    "pairs three cells apart": {"PAIR_DISTANCE": 3},
    "gradients in 12 x 12 cells": {"CELLS": 12},
}

DEFAULTS = TrainParams(
    optimizer="adamw",
    learning_rate=0.007,
    momentum=0.9,
    nesterov=False,
    weight_decay=0.01,
    schedule="cosine",
    batch_size=100,
    iterations=3000,
    eval_every=500,
    seed=0,
)

# What is set in the section `train` of params.yaml.
SETTINGS: dict[str, dict[str, float | str]] = {
    "rate 0.003": {"learning_rate": 0.003},
    "rate 0.005": {"learning_rate": 0.005},
    "rate 0.01": {"learning_rate": 0.01},
    "decay 0.1": {"weight_decay": 0.1},
    "momentum 0.95": {"momentum": 0.95},
    "linear": {"schedule": "linear"},
    "12,000 iterations": {"iterations": 12_000},
    "12,000, 0.003, 0.1": {"iterations": 12_000, "learning_rate": 0.003, "weight_decay": 0.1},
}


def features_with(constants: Mapping[str, int], images: Images) -> Features:
    """The features (N, F) with some of the module's constants replaced."""
    with ExitStack() as stack:
        for name, value in constants.items():
            stack.enter_context(patch.object(features, name, value))
        return gradient_features(images)


def splits(x: Features, labels: Labels, number: int) -> Iterator[tuple[int, Examples, Examples]]:
    """A seed, the examples to train on and those held out, `number` times."""
    for seed in range(FIRST_SEED, FIRST_SEED + number):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1000 + seed)).numpy()
        held_out, kept = (
            Examples(torch.from_numpy(x[rows]), torch.from_numpy(labels[rows]))
            for rows in (order[:HELD_OUT], order[HELD_OUT:])
        )
        yield seed, kept, held_out


def first_margin(params: TrainParams, training: Examples) -> float:
    """The margin between a run and its twin after the first steps."""
    run = fit(params, training, CLASSES)
    twin = fit(params, training, CLASSES, disturb=other_roundings())
    *_, (step, other) = islice(zip(run, twin, strict=True), FIRST_STEPS)
    return margin(step, other)


def row(name: str, x: Features, labels: Labels, params: TrainParams, number: int) -> str:
    """The row of the table."""
    accuracies, losses, margins = [], [], []
    for seed, training, held_out in splits(x, labels, number):
        seeded = params.model_copy(update={"seed": seed})
        *_, last = fit(seeded, training, CLASSES)
        loss, accuracy = mean_loss_and_accuracy(last.weight, last.bias, held_out)
        accuracies.append(100 * accuracy)
        losses.append(loss)
        margins.append(first_margin(seeded, training))
    each = " / ".join(f"{accuracy:.2f}" for accuracy in accuracies)
    return (
        f"| {name} | {x.shape[1]:,} | {each} | {np.mean(accuracies):.3f} | {np.mean(losses):.4f}"
        f" | {max(margins):.1e} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Features and settings, on validation images.")
    parser.add_argument("names", nargs="*", default=[*VARIANTS, *SETTINGS], metavar="NAME")
    parser.add_argument("--no-deskew", dest="deskew", action="store_false")
    parser.add_argument("--splits", type=int, default=4)
    arguments = parser.parse_args()
    images, labels = read("train")
    if arguments.deskew:
        images = deskew(images)
    print(HEADER)
    for name in arguments.names:
        x = features_with(VARIANTS.get(name, {}), images)
        params = DEFAULTS.model_copy(update=SETTINGS.get(name, {}))
        print(row(name, x, labels, params, arguments.splits), flush=True)


if __name__ == "__main__":
    main()
