"""Labelled images that stay on disk: read, and written as a split's file, a few at a time.

A split's file is what `images.LabelledImages` loads: safetensors, with the labels (N,) int64 and
the images (N, C, H, W) uint8, the names of the pictures that they were, each ended by a line feed,
as uint8 too, and the classes and how a picture was made to fit in its metadata.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from math import prod
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from stages.base.whole_files import whole_file

CHUNK_BYTES = 2**24

Fit = Literal["crop", "pad"]  # what becomes of a picture of another shape than the images'
Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class StoredImages:
    """N images of one shape, (C, H, W), that stay in a file, with their labels and names.

    The file holds images one after another from byte `offset` on; ours are those at `positions`.
    """

    file: IO[bytes]
    offset: int
    shape: tuple[int, int, int]
    positions: Indices  # (N,), ascending
    labels: Labels  # (N,)
    names: Sequence[str]  # N, of the pictures that they were

    def __len__(self) -> int:
        return len(self.positions)

    def subset(self, chosen: NDArray[np.bool_]) -> "StoredImages":
        """Those of the images, (N,), that are chosen."""
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


def write_split(
    path: Path,
    images: Iterable[Images],
    shape: tuple[int, int, int],
    labels: Labels,
    names: Iterable[str],
    classes: Sequence[str],
    fit: Fit,
) -> None:
    """Write a split's file, whole or not at all: `images` in chunks, (n, C, H, W), N together.

    Its bytes depend on the content alone, and are those that safetensors itself would write
    (github.com/huggingface/safetensors, "Format").
    """
    number, lines = len(labels), bytearray()
    for name in names:
        lines += f"{name}\n".encode()
    end_of_labels = 8 * number
    end_of_images = end_of_labels + number * prod(shape)
    header: dict[str, Any] = {
        "__metadata__": {"split": json.dumps({"classes": classes, "fit": fit}, ensure_ascii=False)},
        "labels": {"dtype": "I64", "shape": [number], "data_offsets": [0, end_of_labels]},
        "images": {
            "dtype": "U8",
            "shape": [number, *shape],
            "data_offsets": [end_of_labels, end_of_images],
        },
        "names": {
            "dtype": "U8",
            "shape": [len(lines)],
            "data_offsets": [end_of_images, end_of_images + len(lines)],
        },
    }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with whole_file(path) as part, part.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(labels.astype("<i8").tobytes())
        for chunk in images:
            file.write(chunk.tobytes())
        file.write(lines)
