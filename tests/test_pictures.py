import base64
import io
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from PIL import Image

from stages.pictures import BLUE, RED, diverging, figure, png, rgb


@pytest.mark.parametrize(("height", "width"), [(1, 1), (28, 28), (3, 40), (200, 150)])
def test_pillow_reads_the_png_back(height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=generator)
    decoded = Image.open(io.BytesIO(png(picture)))
    decoded.load()
    assert decoded.format == "PNG"
    assert np.array_equal(np.asarray(decoded), picture.numpy())


def test_zero_is_white_and_the_largest_magnitude_has_the_full_colour() -> None:
    colours = diverging(torch.tensor([[[-2.0, 0.0, 2.0, 1.0]]], dtype=torch.float64))[0, 0]
    assert [tuple(colour) for colour in colours[:3].tolist()] == [BLUE, (255, 255, 255), RED]
    half = [round(255 + (full - 255) / 2) for full in RED]
    assert colours[3].tolist() == half


def test_weights_that_are_all_zero_are_white() -> None:
    assert bool((diverging(torch.zeros(1, 2, 2)) == 255).all())


@pytest.mark.parametrize("channels", [1, 3])
def test_images_keep_their_pixels(channels: int) -> None:
    images = torch.arange(2 * channels * 6, dtype=torch.uint8).view(2, channels, 2, 3)
    pictures = rgb(images)
    assert pictures.shape == (2, 2, 3, 3)
    for channel in range(3):
        assert torch.equal(pictures[..., channel], images[:, min(channel, channels - 1)])


def test_a_figure_shows_each_picture_above_its_caption() -> None:
    pictures = torch.stack([torch.full((2, 2, 3), value, dtype=torch.uint8) for value in (0, 9, 7)])
    svg = ET.fromstring(figure("a < b", "c & d", pictures, ["one", "two\nlines", "<3>"], columns=2))
    texts = [element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["a < b", "c & d", "one", "two", "lines", "<3>"]
    images = list(svg.iter("{http://www.w3.org/2000/svg}image"))
    places = [(float(image.attrib["x"]), float(image.attrib["y"])) for image in images]
    assert places[0][1] == places[1][1] < places[2][1]
    assert places[0][0] == places[2][0] < places[1][0]
    for image, value in zip(images, (0, 9, 7), strict=True):
        data = base64.b64decode(image.attrib["href"].removeprefix("data:image/png;base64,"))
        assert set(Image.open(io.BytesIO(data)).tobytes()) == {value}
        assert float(image.attrib["x"]) + 112 <= float(svg.attrib["width"])
        assert float(image.attrib["y"]) + 112 + 36 <= float(svg.attrib["height"])
