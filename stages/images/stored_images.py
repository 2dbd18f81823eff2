"""Images of one shape that stay on disk, read a few at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from math import prod
from typing import IO

import numpy as np
from numpy.typing import NDArray

from stages.formats.split_file import Images, Labels

CHUNK_BYTES = 2**20

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class StoredImages:
    """N images of one shape, (C, H, W), that stay in a file, with their labels and names.

    The file holds one image after another, starting at byte `offset`; ours are at `positions`.
    """

    file: IO[bytes]
    offset: int
    shape: tuple[int, int, int]
    positions: Indices  # (N,), ascending
    labels: Labels  # (N,)
    names: Sequence[str]  # N, of the original pictures

    def __len__(self) -> int:
        return len(self.positions)

    def subset(self, chosen: NDArray[np.bool_]) -> "StoredImages":
        """The images for which `chosen`, (N,), is true."""
        names = list(compress(self.names, chosen))
        return replace(
            self, positions=self.positions[chosen], labels=self.labels[chosen], names=names
        )

    def chunks(self) -> Iterator[Images]:
        """The images in order, a few at a time, (n, C, H, W)."""
        size = prod(self.shape)
        at_a_time = max(1, CHUNK_BYTES // size)
        end = self.positions[-1] + 1 if len(self) else 0
        for start in range(0, end, at_a_time):
            n = min(at_a_time, end - start)
            first, last = np.searchsorted(self.positions, (start, start + n))
            if first < last:
                self.file.seek(self.offset + start * size)
                chunk = np.frombuffer(self.file.read(n * size), np.uint8).reshape(n, *self.shape)
                yield chunk[self.positions[first:last] - start]
