import re
import tracemalloc
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.images.collection import Collected, collect
from stages.images.decoding import Pictures, Unreadable
from stages.images.preprocessing import Preprocessing
from stages.images.readers import SourceSplit
from stages.images.stored_images import StoredImages
from tests.openers import of_number

GREY = Preprocessing(1, (2, 3), "crop")


def pixels_of(collected: Collected) -> Any:
    return np.concatenate(list(collected.images.chunks()))


def source_split(
    n: int, open_item: Callable[[int], tuple[Image.Image, int]] = of_number
) -> SourceSplit:
    return SourceSplit("train", Pictures(range(n), open_item, "picture {}".format, 1))


def test_pictures_become_images_in_order_without_those_that_are_none(tmp_path: Path) -> None:
    with collect(source_split(25), GREY, tmp_path / "scratch") as collected:
        numbers = [i for i in range(25) if i % 10 != 9]
        expected = np.repeat(np.array(numbers, np.uint8), 6).reshape(-1, 1, 2, 3)
        np.testing.assert_array_equal(pixels_of(collected), expected)
        assert collected.images.labels.tolist() == [i + 1000 for i in numbers]
        assert collected.items.tolist() == numbers
        assert collected.unreadable == [
            Unreadable(f"picture {i}", f"{i} is no picture") for i in (9, 19)
        ]
        assert collected.name(9) == "picture 10"


def test_the_scratch_file_has_no_name(tmp_path: Path) -> None:
    with collect(source_split(5), GREY, tmp_path):
        assert not list(tmp_path.iterdir())


def test_the_rate_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with collect(source_split(5), GREY, tmp_path):
        pass
    out, err = capfd.readouterr()
    assert re.fullmatch(r"train: 5 pictures, \d+ a second\n", out)
    assert err == ""  # no bar where nobody looks


@pytest.mark.parametrize(("n", "first"), [(0, ""), (2, " (picture 0: 0 is broken)")])
def test_nothing_left_is_told(tmp_path: Path, n: int, first: str) -> None:
    def none(item: int) -> tuple[Image.Image, int]:
        raise ValueError(f"{item} is broken")

    message = f"train: no picture that can be read{first}; expected some"
    with (
        pytest.raises(ValueError, match=f"^{re.escape(message)}$"),
        collect(source_split(n, none), GREY, tmp_path),
    ):
        raise AssertionError


def of_size(item: int) -> tuple[Image.Image, int]:
    if item == 0:
        raise ValueError("broken")
    return Image.new("L", (3, 2) if item < 70 else (2, 3)), 0


def test_without_a_size_pictures_keep_their_own(tmp_path: Path) -> None:
    own = Preprocessing(3, None, "crop")
    with collect(source_split(70, of_size), own, tmp_path) as collected:
        assert collected.images.shape == (3, 2, 3)
        assert len(collected.images) == 69
    message = "picture 70: 3 x 2 pixels, but those before it have 2 x 3; set tensorize.size"
    with (
        pytest.raises(ValueError, match=f"^{message}"),
        collect(source_split(71, of_size), own, tmp_path),
    ):
        raise AssertionError


def stored_split() -> SourceSplit:
    images = np.arange(12, dtype=np.uint8)
    stored = StoredImages(BytesIO(images.tobytes()), 0, (1, 2, 3), np.array([4, 5]))

    def open_item(item: int) -> tuple[Image.Image, int]:
        return Image.fromarray(images.reshape(2, 2, 3)[item]), 4 + item

    return SourceSplit("train", Pictures(range(2), open_item, "image {}".format, 1), stored)


@pytest.mark.parametrize("size", [None, (2, 3)])
def test_images_that_lie_in_a_file_as_they_must_be_are_not_copied(
    tmp_path: Path, size: tuple[int, int] | None
) -> None:
    split = stored_split()
    with collect(split, Preprocessing(1, size, "crop"), tmp_path / "scratch") as collected:
        assert collected.images is split.stored
        assert collected.items.tolist() == [0, 1]
        assert collected.unreadable == []
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("channels", "size"), [(3, None), (1, (4, 6)), (3, (2, 3))])
def test_others_are_made_of_them(
    tmp_path: Path, channels: int, size: tuple[int, int] | None
) -> None:
    split = stored_split()
    preprocessing = Preprocessing(channels, size, "crop")
    with collect(split, preprocessing, tmp_path) as collected:
        assert collected.images.shape == (channels, *(size or (2, 3)))
        assert collected.images.labels.tolist() == [4, 5]
        for item, found in enumerate(pixels_of(collected)):
            image, _ = split.pictures.open_item(item)
            bands = preprocessing(image).split()
            np.testing.assert_array_equal(found, [np.asarray(band) for band in bands])


def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path: Path) -> None:
    large = Preprocessing(1, (64, 64), "crop")
    blank = Image.new("L", (64, 64))

    def peak(n: int) -> int:
        tracemalloc.start()
        with collect(source_split(n, lambda _: (blank, 0)), large, tmp_path):
            peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak(100)  # what is imported at first
    assert peak(2000) < peak(200) + 100 * 2000  # 8 MB of pixels, and some bytes a picture
