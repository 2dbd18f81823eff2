import io
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFont

from stages.report.svg import (
    BLUE,
    CAPTION,
    ORANGE,
    SIDE,
    breadth,
    diverging,
    figure,
    fitted,
    png,
    rgb,
    shortened,
    strokes,
    templates,
)
from stages.report.svg import images as drawings
from tests.report.drawn import SVG, captioned, pictures, texts


def random_pixels(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (28, 28), (3, 40), (200, 150)])
def test_pillow_reads_back_our_png(height: int, width: int) -> None:
    picture = random_pixels(height, width, 3)
    decoded = Image.open(io.BytesIO(png(picture)))
    decoded.load()
    assert decoded.format == "PNG"
    assert np.array_equal(np.asarray(decoded), picture)


def test_diverging_colours_are_white_at_zero_and_full_at_the_largest_magnitude() -> None:
    colours = diverging(np.array([[[-2.0, 0.0, 2.0, 1.0]]]))[0, 0]
    assert [tuple(colour) for colour in colours[:3].tolist()] == [ORANGE, (255, 255, 255), BLUE]
    assert colours[3].tolist() == [round(255 + (full - 255) / 2) for full in BLUE]
    assert (diverging(np.zeros((1, 2, 2))) == 255).all()


def test_templates_are_grey_at_zero_and_on_one_scale() -> None:
    values = np.array([[[[0.0]], [[2.0]], [[-4.0]]], [[[4.0]], [[0.0]], [[1.0]]]])
    assert templates(values).tolist() == [[[[128, 191, 0]]], [[[255, 128, 159]]]]
    assert (templates(np.zeros((1, 3, 2, 2))) == 128).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_rgb_keeps_the_pixels_of_grey_and_colour_images(channels: int) -> None:
    images = random_pixels(2, channels, 2, 3)
    drawn = rgb(images)
    assert drawn.shape == (2, 2, 3, 3)
    for channel in range(3):
        assert np.array_equal(drawn[..., channel], images[:, min(channel, channels - 1)])


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
def test_images_too_large_to_draw_become_means_of_boxes(
    shape: tuple[int, int, int], small: tuple[int, int]
) -> None:
    images = random_pixels(2, *shape)
    means = fitted(images)
    assert means.shape[2:] == small
    box = -(-max(shape[1:]) // 128)
    for row, column in ((0, 0), (small[0] - 1, small[1] - 1), (small[0] // 2, small[1] // 3)):
        rows, columns = (slice(at * box, at * box + box) for at in (row, column))
        pixels = images[..., rows, columns].reshape(2, shape[0], -1)
        expected = pixels.sum(2) / pixels.shape[2]  # of integers, so exact
        assert np.array_equal(means[:, :, row, column], expected)


def test_fitting_no_images_gives_no_images() -> None:
    assert fitted(random_pixels(0, 1, 300, 300)).shape[0] == 0


@pytest.mark.parametrize("number", [1, 25, 300])
def test_a_figure_of_large_images_is_a_small_file(number: int) -> None:
    images = np.broadcast_to(np.uint8(0), (number, 3, 300, 300))
    svg = figure("a", "b", drawings(rgb(fitted(images))), [("caption",)] * number, columns=10)
    assert len(svg) < 4.2e6 + 1000 * number


@pytest.mark.parametrize(
    ("text", "room", "expected"),
    [
        ("short", 300, "short"),
        ("x" * 40, 700, "xxxxx…xxxxx"),
        ("漫画英雄人物", 400, "漫画…物"),
        ("Captain America 22", 800, "Captai…ca 22"),
        ("a bcdefgh", 340, "a…gh"),
    ],
)
def test_a_long_name_is_shortened_in_the_middle(text: str, room: int, expected: str) -> None:
    assert shortened(text, room) == expected


@pytest.mark.parametrize("text", ["WWWW mmmm @@@@", "ABCDEFGHOQ", "illicit 0123456789", "Ωμέγα"])
def test_no_letter_is_drawn_wider_than_its_breadth(text: str) -> None:
    font = ImageFont.load_default(100)
    assert font.getlength(text) <= breadth(text)


@given(text=st.text(), room=st.integers(100, 2000))
def test_any_name_is_shortened_to_fit_its_room(text: str, room: int) -> None:
    short = shortened(text, room)
    assert breadth(short) <= room
    assert short == text or "…" in short or "\N{REPLACEMENT CHARACTER}" in short
    ET.fromstring(figure("a", "b", [""], [(text,)], columns=1).encode())


def test_the_tooltip_of_a_shortened_name_is_the_full_name() -> None:
    svg = ET.fromstring(figure("a", "b", ["", ""], [("x" * 40,), ("short",)], columns=2))
    assert [element.text for element in svg.iter(f"{SVG}title")] == ["x" * 40]


@pytest.mark.parametrize("columns", [1, 2, 3, 5])
def test_a_figure_has_each_picture_above_its_own_caption(columns: int) -> None:
    grey = np.arange(5, dtype=np.uint8)
    captions = [(f"<{value}>", "two lines")[: 1 + value % 2] for value in grey]
    squares = np.broadcast_to(grey[:, None, None, None], (5, 2, 2, 3))
    svg = figure("a < b", "c & d", drawings(squares), captions, columns=columns)
    assert texts(svg)[:2] == ["a < b", "c & d"]
    found = captioned(svg)
    assert [(tuple(caption), pixels.tolist()) for caption, pixels in found] == [
        (caption, square.tolist()) for caption, square in zip(captions, squares, strict=True)
    ]
    left, _, width, height = map(float, ET.fromstring(svg).attrib["viewBox"].split())
    places = [(picture.y, picture.x) for picture in pictures(svg)]
    assert places == sorted(set(places))
    assert [y for y, _ in places] == [places[i - i % columns][0] for i in range(5)]
    for y, x in places:
        assert left <= x <= left + width - SIDE
        assert y + SIDE + CAPTION <= height


def test_strokes_run_across_their_gradients_and_show_strength_and_sign() -> None:
    strength = np.zeros((4, 2, 2))
    strength[0, 0, 1], strength[2, 1, 0] = 1.0, -0.25  # vertical and horizontal edges
    svg = ET.fromstring(strokes(strength).replace("<svg", f'<svg xmlns="{SVG[1:-1]}"'))
    drawn = {path.get("d"): path for path in svg.iter(f"{SVG}path")}
    assert drawn.keys() == {"M24 1l0 14", "M15 24l-14 0"}
    above, below = drawn["M24 1l0 14"], drawn["M15 24l-14 0"]
    assert (above.get("stroke"), above.get("stroke-opacity")) == ("#1f56c4", "1.00")
    assert (below.get("stroke"), below.get("stroke-opacity")) == ("#bc4708", "0.50")
