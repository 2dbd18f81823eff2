import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from stages.report.confusion_matrix import Confusion, confusions, matrix_figure
from stages.report.metrics import confusion_counts
from tests.report.drawn import SVG, pictures


def random_counts(k: int) -> NDArray[np.int64]:
    generator = np.random.default_rng(0)
    return generator.integers(0, 3, (k, k)) + np.diag(generator.integers(5, 90, k))


def test_confusion_counts_equal_those_of_scikit_learn() -> None:
    actual, predicted = np.random.default_rng(0).integers(0, 6, (2, 300))
    counts = confusion_counts(actual, predicted, k=7)
    assert np.array_equal(counts, confusion_matrix(actual, predicted, labels=range(7)))


def test_every_confusion_is_listed_most_frequent_first() -> None:
    counts = np.array([[90, 3, 7], [0, 0, 0], [7, 1, 2]])
    assert confusions(counts, ("a", "b", "c")) == [
        Confusion("a", "c", 7, 0.07),
        Confusion("c", "a", 7, 0.7),
        Confusion("a", "b", 3, 0.03),
        Confusion("c", "b", 1, 0.1),
    ]
    assert confusions(np.diag([4, 0]), ("a", "b")) == []


def test_a_cells_colour_deepens_with_its_share_of_the_actual_class() -> None:
    counts = np.array([[16, 4, 0], [0, 10, 0], [0, 0, 0]])
    (picture,) = pictures(matrix_figure(counts, ("a", "b", "c")))
    colours = picture.pixels  # rows are actual classes, columns predicted ones
    assert colours.shape == (3, 3, 3)
    assert colours[1, 1].tolist() == [31, 86, 196]  # all of them right: full blue
    right, wrong = colours[0, 0], colours[0, 1]
    assert wrong.tolist() == [round(255 + (c - 255) * 0.2**0.5) for c in (188, 71, 8)]
    assert right.tolist() == [round(255 + (c - 255) * 0.8**0.5) for c in (31, 86, 196)]
    assert (colours[1, 0] == 255).all()
    assert (colours[2] == 255).all()


@pytest.mark.parametrize("k", [2, 10, 25])
def test_each_number_is_in_the_row_of_its_actual_and_the_column_of_its_predicted_class(
    k: int,
) -> None:
    counts, names = random_counts(k), [f"class {index}" for index in range(k)]
    rows, columns, numbers = {}, {}, []
    for text in ET.fromstring(matrix_figure(counts, names)).iter(f"{SVG}text"):
        turned = re.match(r"translate\((\d+) \d+\) rotate\(-90\)", text.get("transform", ""))
        if turned and text.text in names:
            columns[int(turned[1])] = names.index(text.text)
        elif text.text in names:
            rows[int(text.attrib["y"])] = names.index(text.text)
        elif (text.text or "").isdecimal():
            numbers.append((int(text.attrib["y"]), int(text.attrib["x"]), int(text.text or "")))
    drawn = np.zeros_like(counts)
    for y, x, number in numbers:
        drawn[rows[y], columns[x]] = number
    assert np.array_equal(drawn, counts)
    assert len(numbers) == np.count_nonzero(counts)


@pytest.mark.parametrize("k", [2, 10, 100, 300])
def test_every_class_has_a_label_in_its_row_and_column(k: int) -> None:
    names = [f"class {index}" for index in range(k)]
    svg = ET.fromstring(matrix_figure(random_counts(k), names))
    labels = [text for text in svg.iter(f"{SVG}text") if text.text in names]
    assert [text.text for text in labels] == [name for name in names for _ in range(2)]
    rows = [text for text in labels if text.get("text-anchor") == "end"]
    (apart,) = {int(b.attrib["y"]) - int(a.attrib["y"]) for a, b in pairwise(rows)}
    assert all(apart > float(row.attrib["font-size"]) for row in rows)


def test_a_large_confusion_matrix_has_no_numbers() -> None:
    svg = ET.fromstring(matrix_figure(random_counts(100), ["a"] * 100))
    assert not [text for text in svg.iter(f"{SVG}text") if (text.text or "").isdecimal()]
