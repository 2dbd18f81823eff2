import numpy as np
import pytest
from scipy.ndimage import shift as scipy_shift

from stages.images.augmentation import moved, moves_by


@pytest.mark.parametrize("pixels", [0, 1, 2, 9])
def test_images_are_moved_as_scipy_moves_them(pixels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 2, 5, 4), np.uint8)
    for move in moves_by(pixels):
        expected = scipy_shift(images, (0, 0, *move), order=0, mode="constant", cval=0)
        np.testing.assert_array_equal(moved(images, move), expected)


def test_there_are_five_copies_or_one() -> None:
    assert moves_by(0) == [(0, 0)]
    assert sorted(moves_by(3)) == [(-3, 0), (0, -3), (0, 0), (0, 3), (3, 0)]
