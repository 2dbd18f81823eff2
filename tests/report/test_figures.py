from collections.abc import Callable

import numpy as np
import pytest

from stages.formats.model_file import Model
from stages.formats.split_file import LabelledImages
from stages.report.figures import mistakes_figure, weights_figure
from tests.report.drawn import captioned, texts
from tests.report.made_up import predictions_of

Make = Callable[..., LabelledImages]


def random_model(k: int, shape: tuple[int, int, int]) -> Model:
    weight = np.random.default_rng(0).normal(size=(k, np.prod(shape)))
    return Model(weight, np.zeros(k), tuple(f"class {i}" for i in range(k)), shape, "crop")


def test_mistakes_are_drawn_the_most_confident_first_each_above_its_own_caption(
    make_images: Make,
) -> None:
    split = make_images(n=5, k=2, shape=(3, 4, 5))  # classes 0 1 0 1 0
    predictions = predictions_of([0, 1, 0, 1, 0], [1, 1, 1, 0, 0], [0.6, 0.99, 0.8, 0.7, 0.99])
    svg = mistakes_figure(predictions, split, number=2)
    assert texts(svg)[1].startswith("2 of 3 among 5 test images")
    (first, image_2), (second, image_3) = captioned(svg)
    assert first == ["80.0%: class 1", "actual class 0"]
    assert second == ["70.0%: class 0", "actual class 1"]
    assert np.array_equal(image_2, split.images[2].transpose(1, 2, 0))
    assert np.array_equal(image_3, split.images[3].transpose(1, 2, 0))


def test_a_model_without_mistakes_has_an_empty_grid(make_images: Make) -> None:
    svg = mistakes_figure(predictions_of([0, 1], [0, 1], [0.9, 0.9]), make_images(n=2, k=2), 5)
    assert "0 of 0 among 2" in texts(svg)[1]
    assert captioned(svg) == []


@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 4, 5)])
def test_what_all_classes_gain_alike_is_not_drawn_in_the_weights(
    shape: tuple[int, int, int],
) -> None:
    model = random_model(3, shape)
    before = weights_figure(model)
    model.weight[:] += np.arange(model.weight.shape[1]) % 2
    assert weights_figure(model) == before


@pytest.mark.parametrize("k", [2, 10, 20])
def test_the_weights_of_each_class_are_drawn_above_its_name(k: int) -> None:
    model = random_model(k, (1, 4, 5))
    model.weight[:] = 0
    model.weight[np.arange(k), np.arange(k)] = 1.0  # class k has its red pixel at k
    found = captioned(weights_figure(model))
    assert [caption for caption, _ in found] == [[name] for name in model.classes]
    for label, (_, pixels) in enumerate(found):
        red_over_blue = pixels[..., 0] - pixels[..., 2]
        assert red_over_blue.argmax() == label


def test_the_weights_of_coloured_pictures_keep_their_channels_and_places() -> None:
    model = random_model(2, (3, 4, 5))
    model.weight[:] = 0
    model.weight[0].reshape(3, 4, 5)[1, 2, 3] = 1.0  # the first class gains by green at (2, 3)
    (_, first), (_, second) = captioned(weights_figure(model))
    assert first[2, 3].tolist() == [128, 255, 128]
    assert second[2, 3].tolist() == [128, 0, 128]
    assert np.argwhere(first != 128).tolist() == np.argwhere(second != 128).tolist() == [[2, 3, 1]]
