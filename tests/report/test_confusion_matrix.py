import base64
import io
from itertools import pairwise
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix
from torch import Tensor

from stages.evaluate import Predictions, count_pairs
from stages.report.confusion_matrix import Confusion, confusions, matrix_figure

SVG = "{http://www.w3.org/2000/svg}"


def random_counts(k: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 3, (k, k), generator=generator)
    return counts + torch.diag(torch.randint(5, 90, (k,), generator=generator))


def test_the_counts_are_those_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    actual, predicted = torch.randint(0, 6, (2, 300), generator=generator)
    counts = count_pairs(Predictions(actual, predicted, actual.double(), actual.double()), k=7)
    assert np.array_equal(counts, confusion_matrix(actual, predicted, labels=range(7)))


def test_every_confusion_is_listed_the_most_frequent_first() -> None:
    counts = torch.tensor([[90, 3, 7], [0, 0, 0], [7, 1, 2]])
    assert confusions(counts, ("a", "b", "c")) == [
        Confusion("a", "c", 7, 0.07),
        Confusion("c", "a", 7, 0.7),
        Confusion("a", "b", 3, 0.03),
        Confusion("c", "b", 1, 0.1),
    ]
    assert confusions(torch.diag(torch.tensor([4, 0])), ("a", "b")) == []


def test_colours_grow_with_the_share_of_the_actual_class() -> None:
    counts = torch.tensor([[16, 4, 0], [0, 10, 0], [0, 0, 0]])
    svg = ET.fromstring(matrix_figure(counts, ("a", "b", "c")))
    (image,) = svg.iter(f"{SVG}image")
    data = base64.b64decode(image.attrib["href"].removeprefix("data:image/png;base64,"))
    colours = np.asarray(Image.open(io.BytesIO(data))).astype(int)
    assert colours.shape == (3, 3, 3)
    assert colours[1, 1].tolist() == [33, 102, 172]  # all of them right: full blue
    right, wrong = colours[0, 0], colours[0, 1]
    assert wrong.tolist() == [round(255 + (c - 255) * 0.2**0.5) for c in (178, 24, 43)]
    assert right.tolist() == [round(255 + (c - 255) * 0.8**0.5) for c in (33, 102, 172)]
    assert (colours[2] == 255).all()


@pytest.mark.parametrize("k", [2, 10, 100, 300])
def test_every_class_has_a_label_in_its_row_and_column(k: int) -> None:
    names = [f"class {index}" for index in range(k)]
    svg = ET.fromstring(matrix_figure(random_counts(k), names))
    texts = [element.text for element in svg.iter(f"{SVG}text")]
    assert texts[4 : 4 + 2 * k] == [name for name in names for _ in range(2)]
    rows = [e for e in svg.iter(f"{SVG}text") if e.attrib.get("text-anchor") == "end"]
    (apart,) = {int(b.attrib["y"]) - int(a.attrib["y"]) for a, b in pairwise(rows)}
    assert all(apart > float(row.attrib["font-size"]) for row in rows)


def test_a_small_matrix_has_its_numbers_and_a_large_one_its_colours_alone() -> None:
    for k, numbers in ((10, True), (100, False)):
        counts = random_counts(k)
        svg = ET.fromstring(matrix_figure(counts, [f"class {index}" for index in range(k)]))
        texts = [element.text for element in svg.iter(f"{SVG}text")][4 + 2 * k :]
        assert texts == ([str(int(n)) for n in counts[counts > 0]] if numbers else [])
