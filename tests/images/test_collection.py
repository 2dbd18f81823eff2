import re
import tracemalloc
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.images.collection import collect
from stages.images.decoding import Pictures, Unreadable
from stages.images.preprocessing import Preprocessing
from stages.images.readers import RawSplit
from stages.images.stored_images import StoredImages
from tests.openers import of_number

GREY = Preprocessing(1, (2, 3), "crop")


def pixels_of(images: StoredImages) -> Any:
    return np.concatenate(list(images.chunks()))


def split_of(n: int, open_item: Callable[[int], tuple[Image.Image, int]] = of_number) -> RawSplit:
    return RawSplit("train", Pictures(range(n), open_item, "picture {}".format, 1))


def assert_refused(collected: AbstractContextManager[object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"), collected:
        raise AssertionError


def test_readable_pictures_become_images_in_order(tmp_path: Path) -> None:
    with collect(split_of(75), GREY, tmp_path / "scratch") as (images, unreadable):
        readable = [i for i in range(75) if i % 10 != 9]
        expected = np.repeat(np.array(readable, np.uint8), 6).reshape(-1, 1, 2, 3)
        np.testing.assert_array_equal(pixels_of(images), expected)
        assert images.labels.tolist() == [i + 1000 for i in readable]
        assert list(images.names()) == [f"picture {i}" for i in readable]
        assert unreadable == [
            Unreadable(f"picture {i}", f"{i} is no picture") for i in range(9, 75, 10)
        ]


def test_the_scratch_file_has_no_name(tmp_path: Path) -> None:
    with collect(split_of(5), GREY, tmp_path):
        assert not list(tmp_path.iterdir())


def test_the_rate_is_printed_without_a_progress_bar_in_a_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with collect(split_of(5), GREY, tmp_path):
        pass
    out, err = capfd.readouterr()
    assert re.fullmatch(r"train: 5 pictures, \d+ per second\n", out)
    assert err == ""


@pytest.mark.parametrize(("n", "example"), [(0, ""), (2, ", such as picture 0: 0 is broken")])
def test_a_split_without_a_readable_picture_is_an_error(
    tmp_path: Path, n: int, example: str
) -> None:
    def unreadable(item: int) -> tuple[Image.Image, int]:
        raise ValueError(f"{item} is broken")

    message = f"train: found no readable picture{example}; expected some"
    assert_refused(collect(split_of(n, unreadable), GREY, tmp_path), message)


def of_two_sizes(item: int) -> tuple[Image.Image, int]:
    if item == 0:
        raise ValueError("broken")
    return Image.new("L", (3, 2) if item < 70 else (2, 3)), 0


def test_without_a_size_all_pictures_must_have_the_same(tmp_path: Path) -> None:
    own = Preprocessing(3, None, "crop")
    with collect(split_of(70, of_two_sizes), own, tmp_path) as (images, _):
        assert images.shape == (3, 2, 3)
        assert len(images) == 69
    message = (
        "picture 70: found 3 x 2 pixels; expected 2 x 3 pixels as in the pictures before it; set"
        " tensorize.size"
    )
    assert_refused(collect(split_of(71, of_two_sizes), own, tmp_path), message)


def stored_split() -> RawSplit:
    content, labels = np.arange(12, dtype=np.uint8), np.array([4, 5])
    file = BytesIO(content.tobytes())
    stored = StoredImages(file, 0, (1, 2, 3), np.arange(2), labels, "image {}".format)

    def open_item(item: int) -> tuple[Image.Image, int]:
        return Image.fromarray(content.reshape(2, 2, 3)[item]), 4 + item

    return RawSplit("train", Pictures(range(2), open_item, "image {}".format, 1), stored)


@pytest.mark.parametrize("size", [None, (2, 3)])
def test_stored_images_of_the_right_shape_are_not_copied(
    tmp_path: Path, size: tuple[int, int] | None
) -> None:
    split = stored_split()
    with collect(split, Preprocessing(1, size, "crop"), tmp_path / "scratch") as collected:
        assert split.stored
        assert collected == (replace(split.stored, held=range(2)), [])
        assert not list(tmp_path.iterdir())
    assert split.stored.file.closed


@pytest.mark.parametrize(("channels", "size"), [(3, None), (1, (4, 6)), (3, (2, 3))])
def test_stored_images_of_another_shape_are_preprocessed(
    tmp_path: Path, channels: int, size: tuple[int, int] | None
) -> None:
    split = stored_split()
    preprocessing = Preprocessing(channels, size, "crop")
    with collect(split, preprocessing, tmp_path) as (images, _):
        assert images.shape == (channels, *(size or (2, 3)))
        assert images.labels.tolist() == [4, 5]
        for item, found in enumerate(pixels_of(images)):
            image, _ = split.pictures.open_item(item)
            bands = preprocessing(image).split()
            np.testing.assert_array_equal(found, [np.asarray(band) for band in bands])


def test_memory_does_not_grow_with_the_number_of_pixels(tmp_path: Path) -> None:
    large = Preprocessing(1, (64, 64), "crop")
    blank = Image.new("L", (64, 64))

    def peak(n: int) -> int:
        tracemalloc.start()
        with collect(split_of(n, lambda _: (blank, 0)), large, tmp_path):
            peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak(100)  # the first call imports
    assert peak(2000) < peak(200) + 200 * 2000  # 8 MB of pixels; its name and label per picture
