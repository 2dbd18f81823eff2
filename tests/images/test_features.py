from collections.abc import Iterator
from fractions import Fraction
from math import floor, isqrt
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stages.images import features
from stages.images.features import (
    CELLS,
    COLOUR_CELLS,
    DIRECTIONS,
    PAIR_CELLS,
    cell_gradients,
    deskew,
    feature_count,
    gradient_features,
    tent_weights,
)

Images = NDArray[np.uint8]
Array = NDArray[Any]
Pixels = list[list[int]]  # of one channel

SIZES = [(28, 28), (8, 8), (1, 1), (1, 9), (9, 1), (2, 3), (14, 14), (13, 31), (32, 20), (40, 64)]


def extremes(channels: int, height: int, width: int) -> Images:
    """Black, white, checkerboards and stripes, with 0 and 255."""
    y, x = np.indices((height, width))
    patterns: list[Array] = [
        0 * y,
        0 * y + 1,
        (x + y) % 2,
        (x // 2 + y // 2) % 2,
        x // 2 % 2,
        y // 2 % 2,
    ]
    patterns += [x % 2, y % 2, x < width // 2, y < height // 2, x < y, x + y < width]
    images = (255 * np.stack(patterns)).astype(np.uint8)
    return np.repeat(images[:, None], channels, axis=1)


def random_images(n: int, channels: int, height: int, width: int, seed: int) -> Images:
    """Noise, noise of 0 and 255, and sparse strokes of it."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (n, channels, height, width))
    images[1::3] = images[1::3] // 128 * 255
    images[2::3] *= random.random(images[2::3].shape) < 0.2
    return images.astype(np.uint8)


def collections(per_size: int) -> Iterator[Images]:
    for seed, (height, width) in enumerate(SIZES):
        for channels in (1, 3):
            yield extremes(channels, height, width)
            yield random_images(per_size, channels, height, width, seed)
    yield extremes(1, 4000, 3)[2:6]
    yield random_images(1, 3, 3, 4000, 99)


# The features of one image, from their definition: loops over Python's integers.


def at(pixels: Pixels, y: int, x: int) -> int:
    inside = 0 <= y < len(pixels) and 0 <= x < len(pixels[0])
    return pixels[y][x] if inside else 0


def tent(size: int, cells: int, cell: int, pixel: int) -> int:
    width = max(Fraction(1), Fraction(size, cells))
    centre = Fraction(size * (2 * cell + 1), 2 * cells)
    distance = abs(Fraction(2 * pixel + 1, 2) - centre) / width
    return floor(16 * max(Fraction(0), 1 - distance) + Fraction(1, 2))


def tents(size: int, cells: int) -> list[list[tuple[int, int]]]:
    """For each pixel, the cells where it counts, and how much."""
    return [
        [(cell, weight) for cell in range(cells) if (weight := tent(size, cells, cell, pixel))]
        for pixel in range(size)
    ]


def cross(u: tuple[int, int], v: tuple[int, int]) -> int:
    return u[0] * v[1] - u[1] * v[0]


def gradient_at(channels: list[Pixels], y: int, x: int) -> tuple[int, int]:
    gradients = [
        (at(p, y, x + 1) - at(p, y, x - 1), at(p, y + 1, x) - at(p, y - 1, x)) for p in channels
    ]
    return max(gradients, key=lambda g: g[0] ** 2 + g[1] ** 2)


def naive_cells(channels: list[Pixels]) -> list[list[list[int]]]:
    height, width = len(channels[0]), len(channels[0][0])
    sums = [[[0] * CELLS for _ in range(CELLS)] for _ in DIRECTIONS]
    down, right = tents(height, CELLS), tents(width, CELLS)
    for y in range(height):
        for x in range(width):
            g = gradient_at(channels, y, x)
            for b in range(8):
                before, after = DIRECTIONS[b - 1], DIRECTIONS[(b + 1) % 8]
                r = max(0, min(cross(g, after), cross(before, g)))
                for i, over_rows in down[y] if r else []:
                    for j, over_columns in right[x]:
                        sums[b][i][j] += over_rows * over_columns * r
    area = max(height, CELLS) * max(width, CELLS)
    return [
        [[max(0, isqrt(784 * s // area) - 128) for s in row] for row in plane] for plane in sums
    ]


def naive_pairs(cells: list[list[list[int]]], down: int, right: int) -> Iterator[int]:
    over_rows, over_columns = tents(CELLS - down, PAIR_CELLS), tents(CELLS - right, PAIR_CELLS)
    for one in cells:
        for other in cells:
            sums = [[0] * PAIR_CELLS for _ in range(PAIR_CELLS)]
            for y in range(CELLS - down):
                for x in range(CELLS - right):
                    product = one[y][x] * other[y + down][x + right]
                    for i, weight in over_rows[y] if product else []:
                        for j, weight_too in over_columns[x]:
                            sums[i][j] += weight * weight_too * product
            yield from (min(255, isqrt(total) // 128) for row in sums for total in row)


def naive_colours(pixels: Pixels) -> Iterator[int]:
    down, right = tents(len(pixels), COLOUR_CELLS), tents(len(pixels[0]), COLOUR_CELLS)
    sums = [[0] * COLOUR_CELLS for _ in range(COLOUR_CELLS)]
    weights = [[0] * COLOUR_CELLS for _ in range(COLOUR_CELLS)]
    for y, row in enumerate(pixels):
        for x, value in enumerate(row):
            for i, over_rows in down[y]:
                for j, over_columns in right[x]:
                    sums[i][j] += over_rows * over_columns * value
                    weights[i][j] += over_rows * over_columns
    for i in range(COLOUR_CELLS):
        yield from (total // weight for total, weight in zip(sums[i], weights[i], strict=True))


def naive_features(image: Images) -> list[int]:
    channels: list[Pixels] = image.tolist()
    cells = naive_cells(channels)
    found = [min(255, a // 16) for plane in cells for row in plane for a in row]
    found += [*naive_pairs(cells, 0, 2), *naive_pairs(cells, 2, 0)]
    if len(channels) == 3:
        found += [mean for pixels in channels for mean in naive_colours(pixels)]
    return found


def naive_deskew(image: Images) -> list[list[list[int]]]:
    channels: list[Pixels] = image.tolist()
    height, width = len(channels[0]), len(channels[0][0])
    unit = -(-max(height, width) // 64)
    m = s_x = s_y = s_xy = s_yy = 0
    for j in range(height):
        for i in range(width):
            mass = sum(pixels[j][i] for pixels in channels)
            y, x = j // unit - (height - 1) // unit // 2, i // unit - (width - 1) // unit // 2
            m, s_x, s_y = m + mass, s_x + mass * x, s_y + mass * y
            s_xy, s_yy = s_xy + mass * x * y, s_yy + mass * y * y
    share = max(1, -(-m // 2**21))
    m, s_x, s_y, s_xy, s_yy = (s // share for s in (m, s_x, s_y, s_xy, s_yy))
    u_xy, u_yy = (s_xy - s_x * s_y // m, s_yy - s_y * s_y // m) if m else (0, 0)
    a = max(-512, min(512, (512 * u_xy + u_yy) // (2 * u_yy))) if u_yy > 0 else 0
    upright = []
    for pixels in channels:
        rows = []
        for y in range(height):
            whole, part = divmod(a * (2 * y - height + 1) // 2, 256)
            source = [at(pixels, y, x + whole) for x in range(width + 1)]
            rows.append(
                [
                    ((256 - part) * source[x] + part * source[x + 1] + 128) // 256
                    for x in range(width)
                ]
            )
        upright.append(rows)
    return upright


# The same for many images, in any type of number.


def root(numbers: Array) -> Array:
    """The square root, rounded down, in the type of `numbers`."""
    if np.issubdtype(numbers.dtype, np.floating):
        return np.floor(np.sqrt(numbers))
    return np.array([isqrt(number) for number in numbers.ravel().tolist()]).reshape(numbers.shape)


def features_in(dtype: type, images: Images) -> Images:
    """The features of grey images (N, 1, H, W), with every number a `dtype`."""

    def in_type(size: int, cells: int) -> Array:
        return tent_weights(size, cells).astype(dtype)

    n, _, height, width = images.shape
    padded: Array = np.pad(images[:, 0], ((0, 0), (1, 1), (1, 1))).astype(dtype)
    gx = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    gy = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    turns = [gx * dtype(ey) - gy * dtype(ex) for ex, ey in DIRECTIONS]
    r = np.stack([np.minimum(turns[(b + 1) % 8], -turns[b - 1]).clip(0) for b in range(8)], axis=1)
    down, right = (in_type(size, CELLS) for size in (height, width))
    means = down @ r @ right.T * dtype(784) // dtype(max(height, 14) * max(width, 14))
    a = (root(means) - dtype(128)).clip(0)
    found = [(a // dtype(16)).clip(max=255).reshape(n, -1)]
    wide, narrow = (in_type(size, PAIR_CELLS) for size in (CELLS, CELLS - 2))
    for one, other, over_rows, over_columns in (
        (a[..., :-2], a[..., 2:], wide, narrow),
        (a[..., :-2, :], a[..., 2:, :], narrow, wide),
    ):
        sums = over_rows @ (one[:, :, None] * other[:, None]) @ over_columns.T
        found.append((root(sums) // dtype(128)).clip(max=255).reshape(n, -1))
    return np.concatenate(found, axis=1).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_features_of_every_size_are_those_of_the_definition(channels: int) -> None:
    for seed, (height, width) in enumerate(SIZES):
        noise = random_images(3, channels, height, width, seed)
        images = np.concatenate([extremes(channels, height, width), noise])
        assert gradient_features(images).tolist() == list(map(naive_features, images))


@pytest.mark.parametrize("shape", [(1, 4000, 3), (3, 3, 2000)])
def test_features_of_long_images_are_those_of_the_definition(shape: tuple[int, int, int]) -> None:
    images = random_images(2, *shape, seed=0)
    assert gradient_features(images).tolist() == list(map(naive_features, images))


def test_int64_gives_the_same_features_for_1000_images() -> None:
    images = [images for images in collections(100) if images.shape[1] == 1]
    assert sum(map(len, images)) > 1000
    for some in images:
        np.testing.assert_array_equal(gradient_features(some), features_in(np.int64, some))


def test_float64_is_exact_and_float32_is_not() -> None:
    images = random_images(150, 1, 64, 64, seed=0)
    exact = features_in(np.int64, images)
    np.testing.assert_array_equal(features_in(np.float64, images), exact)
    assert (features_in(np.float32, images) != exact).any()


def test_an_image_has_the_same_features_in_any_batch() -> None:
    for images in collections(40):
        together = gradient_features(images)
        np.testing.assert_array_equal(gradient_features(images[::-1])[::-1], together)
        np.testing.assert_array_equal(gradient_features(images[:1]), together[:1])


def test_neither_the_chunks_nor_the_strides_change_a_feature(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = random_images(5, 3, 31, 30, seed=0)
    whole, upright = gradient_features(images), deskew(images)
    last = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(gradient_features(last), whole)
    for pixels in (1, 100, 2000):
        monkeypatch.setattr(features, "PIXELS_AT_A_TIME", pixels)
        np.testing.assert_array_equal(gradient_features(images), whole)
        np.testing.assert_array_equal(deskew(images), upright)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_number_of_features_depends_on_the_channels_alone(channels: int) -> None:
    for height, width in SIZES:
        found = gradient_features(np.zeros((2, channels, height, width), np.uint8))
        assert found.shape == (2, feature_count(channels))
        assert found.dtype == np.uint8
    assert feature_count(channels) == {1: 3616, 3: 3808}[channels]


@pytest.mark.parametrize("function", [gradient_features, deskew])
def test_no_images_have_no_features(function: Any) -> None:
    assert len(function(np.zeros((0, 1, 28, 28), np.uint8))) == 0


def test_a_black_image_has_no_features_and_a_white_one_those_of_its_edge() -> None:
    assert not gradient_features(extremes(3, 28, 28)[:1]).any()
    white = cell_gradients(extremes(1, 28, 28)[1:2])[0]
    assert not white[:, 2:-2, 2:-2].any()
    assert white[:, 0].any()


def test_an_image_enlarged_keeps_the_scale_of_its_features() -> None:
    small = random_images(20, 1, 28, 28, seed=0)
    large = small.repeat(20, axis=2).repeat(20, axis=3)
    # A pixel becomes 20, of which two have a gradient, half of what central differences add up to.
    ratio = cell_gradients(large).mean() / cell_gradients(small).mean()
    assert 0.2 < ratio < 0.5


def test_the_bounds_in_the_docstring_hold() -> None:
    sizes = [*range(1, 600), 1234, 4000, 10_000, 99_999]
    for size in sizes:
        for cells in (CELLS, COLOUR_CELLS, PAIR_CELLS):
            weights = tent_weights(size, cells)
            assert weights.sum(1).min() > 0
            assert weights.max() <= 16
            assert weights.sum(1).max() <= 1.17 * 16 * max(size, cells) / cells
    assert tent_weights(28, CELLS).sum(1).max() == 32
    assert max(tent_weights(size, PAIR_CELLS).sum(1).max() for size in (12, 14)) <= 60
    g = np.stack(np.meshgrid(np.arange(-255, 256), np.arange(-255, 256))).astype(np.int16)
    for gx, gy in zip(g[0][:, None], g[1][:, None], strict=True):
        assert features._directions(gx[:, None], gy[:, None]).max() <= 16_320
    for images in collections(10):
        assert cell_gradients(images).max() < 2**13
    assert (1.17 * 1.17) * 2**24 < 2**25
    assert 2**25 * features.MAX_AREA <= 2**53


def test_the_worst_image_stays_exact() -> None:
    """Squares of white and black whose gradients all add up in the cells."""
    y, x = np.indices((1000, 700))
    images = (255 * ((x // 2 + y // 2) % 2)).astype(np.uint8)[None, None]
    np.testing.assert_array_equal(gradient_features(images), features_in(np.int64, images))


def test_an_image_too_large_for_exact_sums_is_refused() -> None:
    huge = np.broadcast_to(np.uint8(1), (1, 1, 2**15, 2**14))
    with pytest.raises(ValueError, match=r"32768 x 16384 pixels; expected at most 268,435,456"):
        gradient_features(huge)


def test_deskewed_images_are_those_of_the_definition() -> None:
    for images in collections(12):
        np.testing.assert_array_equal(deskew(images), [naive_deskew(image) for image in images])


def test_deskewing_an_oblique_stroke_makes_it_upright() -> None:
    y, x = np.indices((28, 28))
    for slope in (-0.6, 0.4):
        stroke = np.where(abs(x - 13.5 - slope * (y - 13.5)) < 2, 255, 0) * (abs(y - 13.5) < 9)
        upright = deskew(stroke.astype(np.uint8)[None, None])[0, 0]
        columns = np.flatnonzero(upright.sum(0))
        assert np.ptp(columns) <= 5
        assert np.ptp(np.flatnonzero(stroke.sum(0))) >= 9


def test_a_shear_is_bounded() -> None:
    diagonal = np.eye(64, dtype=np.uint8)[None, None] * 255
    flat = np.zeros((1, 1, 64, 64), np.uint8)
    flat[0, 0, 31, :32], flat[0, 0, 32, 32:] = 255, 255
    assert features._shears(diagonal).tolist() == [256]
    assert features._shears(flat).tolist() == [512]
    assert features._shears(np.zeros_like(flat)).tolist() == [0]
