"""Names in one array of bytes, as the files of splits and shards hold them."""

from codecs import getincrementaldecoder
from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

LINE_FEED = ord("\n")
CHUNK = 2**20  # bytes


class Lines(Sequence[str]):
    """N strings in one array: UTF-8, each followed by a line feed, which none contains.

    A list of them would take several times the memory. text: (M,) uint8. Raises ValueError, with
    UnicodeDecodeError for other bytes than UTF-8, if it is something else.
    """

    def __init__(self, text: NDArray[np.uint8]) -> None:
        if len(text) and text[-1] != LINE_FEED:
            raise ValueError("names: found no line feed at the end; expected one after each name")
        decoder = getincrementaldecoder("utf-8")()
        for start in range(0, len(text), CHUNK):
            decoder.decode(text[start : start + CHUNK].tobytes())
        self.text = text
        self._ends = np.flatnonzero(text == LINE_FEED)  # (N,)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        start = self._ends[index - 1] + 1 if index else 0
        return self.text[start : self._ends[index]].tobytes().decode()
