"""Counts of actual and predicted classes -> a table of confusions and a picture of the matrix."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.report.svg import BLUE, FONT, GAP, ORANGE, TITLE, blend, breadth, drawing, image, named

LABEL = 130  # SVG units, at most, for the name of a class
CELLS, SMALLEST, LARGEST = 720, 12, 40  # SVG units: all cells together, then the bounds of one
NUMBERS = 28  # SVG units: the smallest cell that shows its number of images


@dataclass(frozen=True)
class Confusion:
    """Images of one class that were taken for another: how many, and what share of the class."""

    actual: str
    predicted: str
    images: int
    share: float


def confusions(counts: NDArray[np.int64], classes: Sequence[str]) -> list[Confusion]:
    """Every pair of classes that was confused, the most images first, then in the classes' order.

    counts: (K, K), by actual and predicted class.
    """
    wrong = counts * (1 - np.eye(len(counts), dtype=np.int64))
    pairs = np.argwhere(wrong)  # (M, 2)
    order = np.argsort(-wrong[wrong > 0], kind="stable")
    of = counts.sum(1).tolist()
    return [
        Confusion(classes[i], classes[j], images := int(counts[i, j]), images / of[i])
        for i, j in pairs[order].tolist()
    ]


def matrix_figure(counts: NDArray[np.int64], classes: Sequence[str]) -> str:
    """The confusion matrix, (K, K), coloured by share of the actual class.

    The colour grows with the square root of the share, so that 1 % can be seen, and means the same
    in the matrix of every model.
    """
    k = len(classes)
    strength = np.sqrt(counts / np.maximum(counts.sum(1, keepdims=True), 1))  # (K, K) in [0, 1]
    right = np.eye(k, dtype=np.bool_)[..., None]
    colours = blend(np.where(right, BLUE, ORANGE), strength[..., None])  # (K, K, 3)

    cell = min(LARGEST, max(SMALLEST, CELLS // k))
    font = min(FONT, cell - 2)
    room = min(LABEL * 100 // font, max(map(breadth, classes)))
    label = -(-room * font // 100)
    side, left, top = k * cell, 2 * GAP + 2 * FONT + label, TITLE + 2 * GAP + FONT + label
    middles = [index * cell + cell // 2 for index in range(k)]
    ruled = range(0, side, cell if cell >= NUMBERS else 10 * cell)
    grid = "".join(f"M{left + at} {top}v{side}M{left} {top + at}h{side}" for at in ruled)
    lines = [
        image(colours, left, top, side, side),
        f'<path d="{grid}M{left} {top + side}h{side}v{-side}" fill="none" stroke="#ccc"/>',
        f'<text x="{left + side // 2}" y="{TITLE + FONT}" fill="#555">predicted</text>',
        f'<text transform="translate({GAP + FONT} {top + side // 2}) rotate(-90)" fill="#555">'
        "actual</text>",
    ]
    for middle, name in zip(middles, classes, strict=True):
        text = f'dy=".35em" font-size="{font}">{named(name, room)}</text>'
        lines.append(f'<text x="{left - 6}" y="{top + middle}" text-anchor="end" {text}')
        above = f"translate({left + middle} {top - 6}) rotate(-90)"
        lines.append(f'<text transform="{above}" text-anchor="start" {text}')
    if cell >= NUMBERS:
        for i, j in np.argwhere(counts).tolist():
            fill = "white" if strength[i, j] > 0.6 else "black"
            place = f'x="{left + middles[j]}" y="{top + middles[i]}" dy=".35em" fill="{fill}"'
            lines.append(f"<text {place}>{int(counts[i, j])}</text>")
    return drawing(
        left + side + GAP + 2 * FONT,
        top + side + GAP,
        "Confusion matrix",
        "blue is right and orange is wrong, the stronger the larger the share of the actual class",
        "\n".join(lines),
    )
