"""File formats -> LabelledImages; the only place that knows formats."""

from math import prod
from pathlib import Path

import torch
from torch import Tensor

from stages.images import LabelledImages

DIGITS = tuple("0123456789")


def read_mnist(raw: Path, split: str) -> LabelledImages:
    """MNIST's `train` or `t10k` files in the folder `raw`: (N, 1, 28, 28) images, classes 0 to 9.

    Raises FileNotFoundError, or a ValueError if a file is not what its name says.
    """
    images_path, labels_path = (
        raw / f"{split}-images-idx3-ubyte",
        raw / f"{split}-labels-idx1-ubyte",
    )
    images, labels = read_idx(images_path, dimensions=3), read_idx(labels_path, dimensions=1)
    if len(images) != len(labels):
        raise ValueError(
            f"{labels_path}: {len(labels)} labels for the {len(images)} images of {images_path};"
            " `dvc repro` restores both"
        )
    return LabelledImages(images.unsqueeze(1), labels.to(torch.int64), DIGITS)


def read_idx(path: Path, dimensions: int) -> Tensor:
    """An IDX file of unsigned bytes -> a uint8 tensor with `dimensions` dimensions.

    The format: two zeros, the type (8 is uint8), the number of dimensions, each size as four bytes,
    high first, then the values, the last dimension fastest (yann.lecun.com/exdb/mnist).
    Raises FileNotFoundError, or a ValueError that says where the file departs from it.
    """
    remedy = "`dvc repro` restores it"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {remedy}")
    content = path.read_bytes()
    start = 4 + 4 * dimensions
    magic = bytes([0, 0, 8, dimensions])
    if content[:4] != magic:
        raise ValueError(
            f"{path}: expected an IDX file that begins with {magic.hex(' ')},"
            f" found {content[:4].hex(' ') or 'nothing'}; {remedy}"
        )
    if len(content) < start:
        raise ValueError(
            f"{path}: expected a header of {start} bytes, found {len(content)}; {remedy}"
        )
    sizes = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    if len(content) != start + prod(sizes):
        raise ValueError(
            f"{path}: its header says {' x '.join(map(str, sizes))} values:"
            f" expected {start + prod(sizes)} bytes, found {len(content)}; {remedy}"
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)[start:].reshape(sizes)
