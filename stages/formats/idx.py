"""IDX, the format of MNIST's files: an array of unsigned bytes after a header with its shape.

A file holds two zeros, the type (8: unsigned bytes), the number of dimensions, the size of each
dimension as four bytes, high byte first, and then the values, with the last dimension varying
fastest (yann.lecun.com/exdb/mnist).
"""

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

UINT8 = 8  # the type
REMEDY = "`dvc repro -f -s download` fetches it again"


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """Return the content of the IDX file that holds `array`."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return _magic(array.ndim) + sizes + array.tobytes()


def read_idx(path: Path, dimensions: int) -> "np.memmap[Any, np.dtype[np.uint8]]":
    """Map the IDX file at `path` read-only, as a uint8 array with `dimensions` dimensions.

    Raises FileNotFoundError, or ValueError that says how the file differs from the format.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {REMEDY}")
    start = 4 + 4 * dimensions
    with path.open("rb") as file:
        header = file.read(start)
    magic = _magic(dimensions)
    if header[:4] != magic:
        raise ValueError(
            f"{path}: found {header[:4].hex(' ') or 'an empty file'}; expected an IDX file, which"
            f" begins with {magic.hex(' ')}; {REMEDY}"
        )
    if len(header) < start:
        raise ValueError(
            f"{path}: found {len(header)} bytes; expected a header of {start}; {REMEDY}"
        )
    shape = tuple(int.from_bytes(header[i : i + 4], "big") for i in range(4, start, 4))
    found, expected = path.stat().st_size, start + prod(shape)
    if found != expected:
        raise ValueError(
            f"{path}: found {found} bytes; expected {expected}, since its header says"
            f" {' x '.join(map(str, shape))} values; {REMEDY}"
        )
    return np.memmap(path, np.uint8, "r", start, shape)


def _magic(dimensions: int) -> bytes:
    return bytes([0, 0, UINT8, dimensions])
