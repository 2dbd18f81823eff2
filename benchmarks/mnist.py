"""MNIST's own splits, whole and in memory, from the files that `download` fetched."""

from pathlib import Path

import numpy as np

from stages.formats.idx import read_idx
from stages.formats.split_file import Images, Labels

RAW = Path("data/raw")
CLASSES = 10


def read(split: str) -> tuple[Images, Labels]:
    """The images (N, 1, 28, 28) and labels (N,) of the split `train` or `t10k`."""
    images = read_idx(RAW / f"{split}-images-idx3-ubyte", dimensions=3)
    labels = read_idx(RAW / f"{split}-labels-idx1-ubyte", dimensions=1)
    return np.array(images[:, None]), labels.astype(np.int64)
