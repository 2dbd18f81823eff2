import base64
import io
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFont

from stages.report.svg import (
    BLUE,
    CAPTION,
    RED,
    SIDE,
    breadth,
    diverging,
    figure,
    fitted,
    png,
    rgb,
    shortened,
    templates,
)


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


def test_colours_of_weights_are_grey_at_zero_and_on_one_scale() -> None:
    values = torch.tensor([[[[0.0]], [[2.0]], [[-4.0]]], [[[4.0]], [[0.0]], [[1.0]]]])
    assert templates(values).tolist() == [[[[128, 191, 0]]], [[[255, 128, 159]]]]
    assert bool((templates(torch.zeros(1, 3, 2, 2)) == 128).all())


@pytest.mark.parametrize("channels", [1, 3])
def test_images_keep_their_pixels(channels: int) -> None:
    images = torch.arange(2 * channels * 6, dtype=torch.uint8).view(2, channels, 2, 3)
    pictures = rgb(images)
    assert pictures.shape == (2, 2, 3, 3)
    for channel in range(3):
        assert torch.equal(pictures[..., channel], images[:, min(channel, channels - 1)])


@pytest.mark.parametrize(
    ("shape", "small"),
    [
        ((1, 28, 28), (28, 28)),
        ((3, 128, 128), (128, 128)),
        ((3, 224, 224), (112, 112)),
        ((3, 130, 301), (44, 101)),
        ((1, 600, 1), (120, 1)),
    ],
)
def test_what_is_too_large_is_drawn_as_means_of_boxes(
    shape: tuple[int, int, int], small: tuple[int, int]
) -> None:
    images = torch.randint(0, 256, (2, *shape), generator=torch.Generator().manual_seed(0))
    means = fitted(images.to(torch.uint8))
    assert means.shape[2:] == small
    box = -(-max(shape[1:]) // 128)
    for row, column in ((0, 0), (small[0] - 1, small[1] - 1), (small[0] // 2, small[1] // 3)):
        pixels = images[
            ..., row * box : row * box + box, column * box : column * box + box
        ].flatten(2)
        expected = pixels.sum(2).to(torch.float64) / pixels.shape[2]  # of integers: exact
        assert torch.equal(means[:, :, row, column], expected)


@pytest.mark.parametrize("number", [1, 25, 100, 1000])
def test_a_figure_of_large_images_is_a_small_file(number: int) -> None:
    images = torch.zeros(1, 1, 1, 1, dtype=torch.uint8).expand(number, 3, 300, 300)
    svg = figure("a", "b", rgb(fitted(images)), [("caption",)] * number, columns=10)
    assert len(svg) < 4.2e6 + 1000 * number


def test_no_images_are_none() -> None:
    assert fitted(torch.empty(0, 1, 300, 300, dtype=torch.uint8)).shape[0] == 0


def test_long_names_keep_both_ends() -> None:
    assert shortened("short", 300) == "short"
    assert shortened("x" * 40, 700) == "xxxxx…xxxxx"
    assert shortened("漫画英雄人物", 400) == "漫画…物"
    assert shortened("Captain America 22", 800) == "Captai…ca 22"
    assert shortened("a bcdefgh", 340) == "a…gh"


@pytest.mark.parametrize("text", ["WWWW mmmm @@@@", "ABCDEFGHOQ", "illicit 0123456789", "Ωμέγα"])
def test_letters_take_no_more_room_than_they_count(text: str) -> None:
    font = ImageFont.load_default(100)
    assert font.getlength(text) <= breadth(text)


@given(text=st.text(), room=st.integers(100, 2000))
def test_any_name_can_be_drawn_and_has_its_place(text: str, room: int) -> None:
    short = shortened(text, room)
    assert breadth(short) <= room
    assert short == text or "…" in short or "\N{REPLACEMENT CHARACTER}" in short
    svg = figure("a", "b", torch.zeros(1, 1, 1, 3, dtype=torch.uint8), [(text,)], columns=1)
    ET.fromstring(svg.encode())


def test_the_tooltip_is_the_whole_name() -> None:
    pictures = torch.zeros(2, 1, 1, 3, dtype=torch.uint8)
    svg = ET.fromstring(figure("a", "b", pictures, [("x" * 40,), ("short",)], columns=2))
    titles = [element.text for element in svg.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == ["x" * 40]


CAPTIONS = [("one",), ("two", "lines"), ("<3>",)]


def test_a_figure_shows_each_picture_above_its_caption() -> None:
    pictures = torch.stack([torch.full((2, 2, 3), value, dtype=torch.uint8) for value in (0, 9, 7)])
    svg = ET.fromstring(figure("a < b", "c & d", pictures, CAPTIONS, columns=2))
    texts = [element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["a < b", "c & d", "one", "two", "lines", "<3>"]
    images = list(svg.iter("{http://www.w3.org/2000/svg}image"))
    left, _, width, height = map(float, svg.attrib["viewBox"].split())
    places = [(float(image.attrib["x"]), float(image.attrib["y"])) for image in images]
    assert places[0][1] == places[1][1] < places[2][1]
    assert places[0][0] == places[2][0] < places[1][0]
    for image, value in zip(images, (0, 9, 7), strict=True):
        data = base64.b64decode(image.attrib["href"].removeprefix("data:image/png;base64,"))
        assert set(Image.open(io.BytesIO(data)).tobytes()) == {value}
        assert left <= float(image.attrib["x"]) <= left + width - SIDE
        assert float(image.attrib["y"]) + SIDE + CAPTION <= height
