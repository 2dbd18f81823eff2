"""Images of one shape that stay on disk, read a few at a time."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import IO

import numpy as np
from numpy.typing import NDArray

from stages.formats.split_file import Images, Labels

CHUNK_BYTES = 2**20

EVERY = range(sys.maxsize)

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class StoredImages:
    """N images of one shape, (C, H, W), with their labels and names.

    The file holds one image after another, starting at byte `offset`; ours are at `positions`, but
    the pixels are this process's share alone, those at the positions `held`.
    """

    file: IO[bytes]
    offset: int
    shape: tuple[int, int, int]
    positions: Indices  # (N,), ascending
    labels: Labels  # (N,)
    name_at: Callable[[int], str]  # position -> the name of the original picture
    held: range = EVERY

    def __len__(self) -> int:
        return len(self.positions)

    def name(self, index: int) -> str:
        """The name of image `index`."""
        return self.name_at(int(self.positions[index]))

    def names(self) -> Iterator[str]:
        """The N names, in order."""
        return map(self.name, range(len(self)))

    @property
    def rows(self) -> slice:
        """Which of the N images are held."""
        first, end = np.searchsorted(self.positions, (self.held.start, self.held.stop))
        return slice(int(first), int(end))

    def subset(self, chosen: NDArray[np.bool_]) -> "StoredImages":
        """The images for which `chosen`, (N,), is true."""
        return replace(self, positions=self.positions[chosen], labels=self.labels[chosen])

    def chunks(self) -> Iterator[Images]:
        """The images that are held, in order, a few at a time, (n, C, H, W)."""
        size, positions = prod(self.shape), self.positions[self.rows]
        at_a_time = max(1, CHUNK_BYTES // size)
        first, end = (positions[0], positions[-1] + 1) if len(positions) else (0, 0)
        for start in range(first, end, at_a_time):
            n = min(at_a_time, end - start)
            first, last = np.searchsorted(positions, (start, start + n))
            if first < last:
                self.file.seek(self.offset + start * size)
                chunk = np.frombuffer(self.file.read(n * size), np.uint8).reshape(n, *self.shape)
                yield chunk[positions[first:last] - start]
