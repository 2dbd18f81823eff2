from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.images.decoding import Pictures
from stages.images.readers import RawSplit
from stages.images.stored_images import StoredImages
from stages.images.survey import SAMPLE, Survey, survey

GREY, RED = (90, 90, 90), (90, 90, 91)


def found_in(*pictures: Image.Image | None) -> Survey:
    """What is found in pictures, of which None cannot be read."""

    def open_item(item: Image.Image | None) -> tuple[Image.Image, int]:
        if item is None:
            raise ValueError("unreadable")
        return item, 0

    return survey(RawSplit("train", Pictures(pictures, open_item, str)))


def of_sizes(*sizes: tuple[int, int]) -> Survey:
    return Survey(Counter(sizes), Counter(), has_colour=False)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I", "I;16", "F"])
def test_pictures_of_a_grey_mode_are_grey(mode: str) -> None:
    assert found_in(Image.new(mode, (3, 2))).channels == 1


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "YCbCr", "HSV"])
def test_pictures_of_a_colour_mode_have_colour_if_any_pixel_does(mode: str) -> None:
    grey, red = (Image.new("RGB", (3, 2), colour) for colour in (GREY, RED))
    if mode == "P":
        grey, red = (image.quantize(2) for image in (grey, Image.new("RGB", (3, 2), "red")))
    else:
        grey, red = grey.convert(mode), Image.new("RGB", (3, 2), "red").convert(mode)
    assert found_in(grey, grey).channels == 1
    assert found_in(grey, red).channels == 3


def test_one_pixel_a_shade_off_grey_is_colour() -> None:
    pixels = np.full((9, 9, 3), 90, np.uint8)
    pixels[4, 5, 2] += 1
    assert found_in(Image.fromarray(pixels)).has_colour


def test_colour_that_is_transparent_does_not_count() -> None:
    assert found_in(Image.new("RGBA", (3, 2), (255, 0, 0, 0))).channels == 1
    assert found_in(Image.new("RGBA", (3, 2), (255, 0, 0, 9))).channels == 3


def test_sizes_and_modes_are_counted_and_unreadable_pictures_are_not() -> None:
    wide = Image.new("RGB", (5, 3))
    found = found_in(wide, None, wide, Image.new("L", (2, 7)))
    assert found == Survey(Counter({(3, 5): 2, (7, 2): 1}), Counter(RGB=2, L=1), has_colour=False)


@pytest.mark.parametrize("number", [SAMPLE, SAMPLE + 1, 10 * SAMPLE])
def test_pictures_are_looked_at_evenly_and_no_more_than_the_sample(number: int) -> None:
    seen: list[int] = []

    def open_item(item: int) -> tuple[Image.Image, int]:
        seen.append(item)
        return Image.new("L", (3, 2)), 0

    survey(RawSplit("train", Pictures(range(number), open_item, str)))
    gaps = np.diff(sorted(seen))
    assert len(seen) == SAMPLE
    assert set(gaps.tolist()) <= {number // SAMPLE, -(-number // SAMPLE)}


def test_images_that_are_stored_already_are_not_decoded() -> None:
    def never(_: Any) -> tuple[Image.Image, int]:
        raise AssertionError

    stored = StoredImages(BytesIO(), 0, (1, 28, 20), np.arange(4), np.zeros(4, np.int64), str)
    found = survey(RawSplit("train", Pictures(range(4), never, str), stored))
    assert (found.channels, found.size) == (1, (28, 20))


@pytest.mark.parametrize(
    ("sizes", "size"),
    [
        ([(28, 28)] * 3, (28, 28)),
        ([(8, 20)], (8, 20)),
        ([(64, 64)], (64, 64)),
        ([(64, 65)], (63, 64)),
        ([(480, 640)] * 2, (48, 64)),
        ([(1, 9000)], (1, 64)),
        ([(20, 20), (30, 30)], (32, 32)),
        ([(47, 900), (900, 47), (500, 500)], (32, 32)),
        ([(48, 900), (900, 63), (20, 20)], (48, 48)),
        ([(900, 900), (800, 1200), (20, 20)], (64, 64)),
        ([], (32, 32)),
    ],
)
def test_the_size_is_the_common_one_or_a_square_both_of_64_pixels_at_most(
    sizes: Sequence[tuple[int, int]], size: tuple[int, int]
) -> None:
    assert of_sizes(*sizes).size == size


def test_looking_uses_the_threads_asked_for_with_one_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pictures = [Image.new("RGB", (20 + i, 30), (i, i, i + i // 19)) for i in range(20)]
    results, numbers = [], []

    def pool(threads: int) -> ThreadPoolExecutor:
        numbers.append(threads)
        return ThreadPoolExecutor(threads)

    monkeypatch.setattr("stages.images.survey.ThreadPoolExecutor", pool)
    for threads in (1, 4):
        monkeypatch.setenv("PROCESSES", str(threads))
        results.append(found_in(*pictures))
    assert numbers == [1, 4]
    assert results[0] == results[1]
    assert results[0].channels == 3
