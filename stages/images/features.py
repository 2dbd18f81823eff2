"""Images -> features that a linear layer separates well: oriented gradients, and pairs of them.

Shapes: images (N, C, H, W) uint8, C = 1 or 3, H and W at least 1; features (N, F) uint8. F depends
on C alone, because every image is pooled into the same grid of cells.

Every number is an integer below 2**53 held in a float64: sums are exact in whatever order BLAS adds
them, and IEEE 754 rounds quotients and square roots correctly. So the features are the same bytes
on every machine, and in every language whose numbers are float64. For an image I(y, x):

1. Gradient: gx = I(y, x + 1) - I(y, x - 1), gy = I(y + 1, x) - I(y - 1, x), with 0 outside the
   image. Of three channels, the one with the largest gx**2 + gy**2, the first if several have it
   (Dalal and Triggs 2005, as are gradients pooled by direction and cell).
2. Direction: e_b = round(64 (cos, sin)(2 pi b / 8)), b = 0 to 7. With u x v the cross product,
   r_b = max(0, min(g x e_(b+1), e_(b-1) x g)), a tent: each gradient is shared by the two
   directions nearest to it, in proportion to its length.
3. Cells: S_b = the sum of r_b times `tent_weights`, in 14 x 14 cells, and
   A_b = max(0, floor(sqrt(floor(784 S_b / (max(H, 14) max(W, 14))))) - 128): the root of a mean,
   whatever the image's size, minus that of a gradient of a third of a grey level, so that noise
   does not count. At 28 x 28 the quotient is S_b itself.
4. Pairs: Q_bcd = the sum of A_b(cell) A_c(cell + d) times `tent_weights`, in 4 x 4 cells, for
   directions b and c, and d = two cells right or two cells down (co-occurrence of gradients:
   Watanabe, Ito and Yokoi 2009).
5. Features: min(255, floor(A / 16)) and min(255, floor(sqrt(Q) / 128)); of three channels, also
   the mean of each in 8 x 8 cells, weighted by `tent_weights`, rounded down.

Bounds: |gx| and |gy| are at most 255. The cross products are at most 45 * 510 = 22,950, an int16,
and the smaller of two at most 32 * 510 = 16,320. A cell's weights add up to at most 1.17 times
16 max(H, 14) / 14 along an axis (exactly 16 H / 14 at 28 pixels), so floor(784 S / ...) is below
1.17**2 * 2**24 < 2**25, A below 2**13, and Q, whose weights add up to at most 60 * 60, below 2**38.
784 S is below 2**25 max(H, 14) max(W, 14), thus below 2**53 for the largest images allowed.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]  # (N, C, H, W)
Features = NDArray[np.uint8]  # (N, F)
Float = NDArray[np.float64]

DIRECTIONS = ((64, 0), (45, 45), (0, 64), (-45, 45), (-64, 0), (-45, -45), (0, -64), (45, -45))
CELLS = 14  # per side, for gradients
FAINT = 128  # subtracted from the root of a cell's mean gradient
PAIR_CELLS = 4  # per side, for pairs
PAIR_DISTANCE = 2  # cells
COLOUR_CELLS = 8  # per side, for colours
MAX_AREA = 2**28  # pixels
MAX_SHEAR = 512  # 1/256 of a pixel per row
PIXELS_AT_A_TIME = 2**15  # bounds the memory to about 10 MB, most of which fits in the cache


def feature_count(channels: int) -> int:
    """F, the number of features of an image with `channels` channels, 1 or 3."""
    gradients = len(DIRECTIONS) * CELLS**2
    pairs = 2 * len(DIRECTIONS) ** 2 * PAIR_CELLS**2
    colours = 3 * COLOUR_CELLS**2 if channels == 3 else 0
    return gradients + pairs + colours


def gradient_features(images: Images) -> Features:
    """Features (N, F) of images (N, C, H, W): cells, pairs to the right, pairs down, colours.

    Raises ValueError for images too large for exact arithmetic.
    """
    n, channels, height, width = images.shape
    if max(height, CELLS) * max(width, CELLS) > MAX_AREA:
        raise ValueError(
            f"images of {height} x {width} pixels; expected at most {MAX_AREA:,} pixels (a side"
            f" below {CELLS} counts as {CELLS}): set tensorize.size"
        )
    features = np.empty((n, feature_count(channels)), np.uint8)
    for chunk in _chunks(n, height * width):
        cells = cell_gradients(images[chunk])
        parts = [
            np.minimum(cells / 16, 255),
            pair_features(cells[..., :-PAIR_DISTANCE], cells[..., PAIR_DISTANCE:]),
            pair_features(cells[..., :-PAIR_DISTANCE, :], cells[..., PAIR_DISTANCE:, :]),
        ]
        if channels == 3:
            parts.append(mean_colours(images[chunk]))
        flat = [part.reshape(len(cells), -1) for part in parts]
        features[chunk] = np.concatenate(flat, axis=1)  # to uint8, which rounds down
    return features


def gradient_cells(features: NDArray[Any]) -> NDArray[Any]:
    """The features (N, F) that are gradients in cells, by direction: (N, 8, 14, 14)."""
    count = len(DIRECTIONS) * CELLS**2
    return features[:, :count].reshape(-1, len(DIRECTIONS), CELLS, CELLS)


def deskew(images: Images) -> Images:
    """Images (N, C, H, W), each sheared so that what it shows is upright.

    The shear, about the middle row, makes the second moment u_xy zero (LeCun et al. 1998):
    a = round(256 u_xy / u_yy), in 1/256 of a pixel per row and within +-512, the same for all
    channels. The pixel at (y, x) comes from the column x + floor(a (2 y - H + 1) / 2) / 256, by
    linear interpolation, with 0 outside the image.
    """
    n, channels, height, width = images.shape
    upright = np.empty_like(images)
    for chunk in _chunks(n, channels * height * width):
        shears = _shears(images[chunk])
        shifts = shears[:, None] * (2 * np.arange(height) - height + 1) >> 1  # (N, H)
        for rows in _chunks(height, len(shears) * channels * width):
            upright[chunk, :, rows] = _shifted(images[chunk, :, rows], shifts[:, rows])
    return upright


def tent_weights(size: int, cells: int) -> Float:
    """How much each of `size` pixels counts for each of `cells` cells, (cells, size), 0 to 16.

    round(16 max(0, 1 - |x - c| / w)), where x is the pixel's centre, c the cell's and w the width
    of a cell, at least one pixel, so that no cell is empty. Ties are rounded up.
    """
    # In units of 1 / (2 * cells) of a pixel, every number is an integer.
    pixels = cells * (2 * np.arange(size) + 1)
    centres = size * (2 * np.arange(cells)[:, None] + 1)
    width = 2 * max(size, cells)
    near = np.maximum(width - np.abs(pixels - centres), 0)
    weights: Float = ((32 * near + width) // (2 * width)).astype(np.float64)
    return weights


def cell_gradients(images: Images) -> Float:
    """A, the result of steps 1 to 3, (N, 8, 14, 14), for images (N, C, H, W)."""
    n, _, height, width = images.shape
    over_rows, over_columns = tent_weights(height, CELLS), tent_weights(width, CELLS).T
    sums = np.zeros((n, len(DIRECTIONS), CELLS, CELLS))
    for rows in _chunks(height, n * width):
        by_direction = _directions(*_gradient(images, rows))  # (N, 8, rows, W)
        by_column = by_direction.astype(np.float64).reshape(-1, width) @ over_columns
        sums += over_rows[:, rows] @ by_column.reshape(n, len(DIRECTIONS), -1, CELLS)
    area = max(height, CELLS) * max(width, CELLS)
    roots = np.floor(np.sqrt(np.floor(sums * (4 * CELLS**2) / area)))
    a: Float = np.maximum(roots - FAINT, 0)
    return a


def pair_features(cells: Float, others: Float) -> Float:
    """Steps 4 and 5, (N, 8 * 8, 16), not yet rounded down.

    cells and others: A in cells, and in the cells displaced by d, both (N, 8, rows, columns).
    """
    n, _, rows, columns = cells.shape
    products = cells[:, :, None] * others[:, None]  # (N, 8, 8, rows, columns)
    over_rows, over_columns = tent_weights(rows, PAIR_CELLS), tent_weights(columns, PAIR_CELLS)
    pool = np.kron(over_rows, over_columns).T  # (rows * columns, 16)
    sums = products.reshape(-1, rows * columns) @ pool
    return np.minimum(np.sqrt(sums) / 128, 255).reshape(n, -1, PAIR_CELLS**2)


def mean_colours(images: Images) -> Float:
    """The mean of each channel in 8 x 8 cells, (N, C, 8, 8), not yet rounded down."""
    n, channels, height, width = images.shape
    over_rows, over_columns = tent_weights(height, COLOUR_CELLS), tent_weights(width, COLOUR_CELLS)
    sums = np.zeros((n, channels, COLOUR_CELLS, COLOUR_CELLS))
    for rows in _chunks(height, n * channels * width):
        band = images[:, :, rows].astype(np.float64)
        sums += over_rows[:, rows] @ (band @ over_columns.T)
    return sums / np.outer(over_rows.sum(1), over_columns.sum(1))


def _gradient(images: Images, rows: slice) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """The gradient in some rows, gx and gy, (N, rows, W), of the channel where it is largest."""
    n, channels, height, width = images.shape
    padded = np.zeros((n, channels, rows.stop - rows.start + 2, width + 2), np.int16)
    first, last = max(rows.start - 1, 0), min(rows.stop + 1, height)
    top = first - rows.start + 1
    padded[:, :, top : top + last - first, 1:-1] = images[:, :, first:last]
    gx = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    gy = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    if channels == 1:
        return gx[:, 0], gy[:, 0]
    largest = (gx.astype(np.int32) ** 2 + gy.astype(np.int32) ** 2).argmax(1)[:, None]
    return np.take_along_axis(gx, largest, 1)[:, 0], np.take_along_axis(gy, largest, 1)[:, 0]


def _directions(gx: NDArray[np.int16], gy: NDArray[np.int16]) -> NDArray[np.int16]:
    """r_b of step 2, (N, 8, rows, W), for gradients (N, rows, W)."""
    crosses = [gx * np.int16(ey) - gy * np.int16(ex) for ex, ey in DIRECTIONS]  # g x e_b
    r = np.empty((len(gx), len(DIRECTIONS), *gx.shape[1:]), np.int16)
    for b in range(len(DIRECTIONS)):
        # e_(b-1) x g = g x e_(b+3): the opposite direction is the negative.
        following, opposite = crosses[(b + 1) % 8], crosses[(b + 3) % 8]
        np.maximum(np.minimum(following, opposite), 0, out=r[:, b])
    return r


def _shears(images: Images) -> NDArray[np.int64]:
    """The shear of each image, (N,), in 1/256 of a pixel per row.

    From the moments of the sum of the channels, about the middle. The unit of length is a whole
    number of pixels, chosen so that the longer side is at most 64 units: y and x lie within +-32.
    Where the mass m is above 2**21, all moments are divided by the same integer, so that S_x S_y
    is below 2**52. u_xy = S_xy - floor(S_x S_y / m).
    """
    n, _, height, width = images.shape
    unit = -(-max(height, width) // 64)
    y, x = (np.arange(size) // unit - (size - 1) // unit // 2 for size in (height, width))
    powers_of_y = np.stack([y**0, y, y * y]).astype(np.float64)  # (3, H)
    powers_of_x = np.stack([x**0, x], axis=1).astype(np.float64)  # (W, 2)
    moments = np.zeros((n, 3, 2))
    for rows in _chunks(height, n * width):
        mass = images[:, :, rows].sum(1, dtype=np.float64)
        moments += powers_of_y[:, rows] @ (mass @ powers_of_x)
    moments = np.floor(moments / np.maximum(np.ceil(moments[:, :1, :1] / 2**21), 1))
    m, s_x = np.maximum(moments[:, 0, 0], 1), moments[:, 0, 1]
    s_y, s_xy, s_yy = moments[:, 1, 0], moments[:, 1, 1], moments[:, 2, 0]
    u_xy, u_yy = s_xy - np.floor(s_x * s_y / m), s_yy - np.floor(s_y * s_y / m)
    shears = np.floor((512 * u_xy + u_yy) / np.maximum(2 * u_yy, 1))
    return np.where(u_yy > 0, np.clip(shears, -MAX_SHEAR, MAX_SHEAR), 0).astype(np.int64)


def _shifted(images: Images, shifts: NDArray[np.int64]) -> Images:
    """Images (N, C, H, W) with each row moved left by its `shifts` (N, H), in 1/256 pixel."""
    n, channels, height, width = images.shape
    whole = np.clip(shifts >> 8, -width - 1, width)[:, None, :, None]
    part = (shifts & 255)[:, None, :, None]
    padded = np.zeros((n, channels, height, 3 * width + 2), np.int32)
    padded[..., width + 1 : 2 * width + 1] = images
    columns = width + 1 + whole + np.arange(width + 1)  # (N, 1, H, W + 1)
    columns = np.broadcast_to(columns, (n, channels, height, width + 1))
    source = np.take_along_axis(padded, columns, axis=3)
    mixed = (256 - part) * source[..., :-1] + part * source[..., 1:]
    moved: Images = ((mixed + 128) >> 8).astype(np.uint8)
    return moved


def _chunks(items: int, size: int) -> Iterator[slice]:
    """Slices of as many items as add up to PIXELS_AT_A_TIME, or of one item if that is larger."""
    number = max(1, PIXELS_AT_A_TIME // max(1, size))
    for start in range(0, items, number):
        yield slice(start, min(start + number, items))
