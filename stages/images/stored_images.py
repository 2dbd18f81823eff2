"""Images of one shape that stay on disk, read a few at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import IO

import numpy as np
from numpy.typing import NDArray

from stages.formats.split_file import Images, Labels

CHUNK_BYTES = 2**24

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class StoredImages:
    """N images of one shape, (C, H, W), one after the other in `file` from byte `offset` on."""

    file: IO[bytes]
    offset: int
    shape: tuple[int, int, int]
    labels: Labels  # (N,)

    def __len__(self) -> int:
        return len(self.labels)

    def chunks(self) -> Iterator[Images]:
        """All the images in order, (n, C, H, W) at a time."""
        size = prod(self.shape)
        at_a_time = max(1, CHUNK_BYTES // size)
        for start in range(0, len(self), at_a_time):
            n = min(at_a_time, len(self) - start)
            self.file.seek(self.offset + start * size)
            yield np.frombuffer(self.file.read(n * size), np.uint8).reshape(n, *self.shape)

    def chosen(self, indices: Indices) -> Iterator[Images]:
        """The images at `indices`, which ascend, some at a time."""
        start = 0
        for chunk in self.chunks():
            first, end = np.searchsorted(indices, (start, start + len(chunk)))
            yield chunk[indices[first:end] - start]
            start += len(chunk)
