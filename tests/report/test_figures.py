import re
from collections.abc import Callable

import numpy as np
import pytest

from stages.formats.input_spec import InputSpec
from stages.formats.model_file import Model
from stages.formats.split_file import Split
from stages.report.figures import contributions, mistakes_figure, strokes_figure, weights_figure
from tests.report.drawn import captioned, texts
from tests.report.made_up import predictions_of

Make = Callable[..., Split]


def random_model(k: int, shape: tuple[int, int, int]) -> Model:
    weight = np.random.default_rng(0).normal(size=(k, np.prod(shape)))
    return Model(weight, np.zeros(k), tuple(f"class {i}" for i in range(k)), InputSpec(*shape))


def test_mistakes_are_drawn_most_confident_first_each_above_its_own_caption(
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


def test_a_model_without_mistakes_has_an_empty_grid_of_mistakes(make_images: Make) -> None:
    svg = mistakes_figure(predictions_of([0, 1], [0, 1], [0.9, 0.9]), make_images(n=2, k=2), 5)
    assert "0 of 0 among 2" in texts(svg)[1]
    assert captioned(svg) == []


@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 4, 5)])
def test_weights_that_all_classes_share_are_not_drawn(
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
    model.weight[np.arange(k), np.arange(k)] = 1.0  # class k has its blue pixel at k
    found = captioned(weights_figure(model))
    assert [caption for caption, _ in found] == [[name] for name in model.classes]
    for label, (_, pixels) in enumerate(found):
        blue_over_red = pixels[..., 2] - pixels[..., 0]
        assert blue_over_red.argmax() == label


def test_the_weights_of_colour_pictures_keep_their_channels_and_positions() -> None:
    model = random_model(2, (3, 4, 5))
    model.weight[:] = 0
    model.weight[0].reshape(3, 4, 5)[1, 2, 3] = 1.0  # the first class gains by green at (2, 3)
    (_, first), (_, second) = captioned(weights_figure(model))
    assert first[2, 3].tolist() == [128, 255, 128]
    assert second[2, 3].tolist() == [128, 0, 128]
    assert np.argwhere(first != 128).tolist() == np.argwhere(second != 128).tolist() == [[2, 3, 1]]


def test_contributions_weight_each_feature_by_its_value_in_a_typical_image() -> None:
    features = np.array([[10, 0], [30, 4], [0, 51], [0, 153]], np.uint8)
    spec = InputSpec(1, 1, 2)
    split = Split(features, np.array([0, 0, 1, 1]), ("a", "b"), spec)
    model = Model(np.array([[1.0, -2.0], [0.0, 4.0]]), np.zeros(2), ("a", "b"), spec)
    # Beyond the mean of the classes: [[0.5, -3], [-0.5, 3]]; means: [20, 2] of a, [0, 102] of b.
    expected = np.array([[0.5 * 20, -3 * 102], [-0.5 * 20, 3 * 102]]) / 255
    for batch_size in (1, 3, 10):
        np.testing.assert_allclose(contributions(model, split, batch_size), expected, rtol=1e-12)


def test_the_strokes_of_each_class_are_drawn_above_its_name() -> None:
    cells = np.zeros((3, 8, 2, 2))
    cells[0, 0, 0, 0] = cells[1, 4, 0, 1] = 1.0  # opposite gradients have the same edge
    cells[2, 6, 1, 1] = -1.0
    svg = strokes_figure(cells, ("x", "y", "z"))
    assert re.findall(r'd="([^"]*)" stroke="(#[0-9a-f]+)"', svg) == [
        ("M8 1l0 14", "#1f56c4"),
        ("M24 1l0 14", "#1f56c4"),
        ("M31 24l-14 0", "#bc4708"),
    ]
    assert texts(svg)[2:] == ["x", "y", "z"]
