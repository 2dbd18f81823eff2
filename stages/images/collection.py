"""The pictures of a source split -> images of one shape in a file, as bounded memory allows."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
from tqdm import tqdm

from stages.images.decoding import Unreadable, decode
from stages.images.preprocessing import Preprocessing
from stages.images.readers import SourceSplit
from stages.images.stored_images import Indices, StoredImages


@dataclass(frozen=True)
class Collected:
    """The images of a source split, which of its pictures each was, (N,), and what was none."""

    split: SourceSplit
    images: StoredImages
    items: Indices
    unreadable: list[Unreadable]

    def name(self, index: int) -> str:
        """Which picture image `index` was."""
        pictures = self.split.pictures
        return pictures.name_of(pictures.items[self.items[index]])


@contextmanager
def collect(
    split: SourceSplit,
    preprocessing: Preprocessing,
    scratch: Path,
) -> Iterator[Collected]:
    """Decode a source split into a nameless file in the folder `scratch`, until the block ends.

    Images that lie in a file already, and need not change, are not copied. Raises ValueError
    if the pictures differ in size while none is set, or if there is none that can be read.
    """
    stored = split.stored
    with ExitStack() as files:
        if stored:
            files.enter_context(stored.file)
            if stored.shape == (preprocessing.channels, *(preprocessing.size or stored.shape[1:])):
                yield Collected(split, stored, np.arange(len(stored)), [])
                return
        scratch.mkdir(parents=True, exist_ok=True)
        file = files.enter_context(TemporaryFile(dir=scratch))
        yield _decoded(split, preprocessing, file)


def _decoded(
    split: SourceSplit,
    preprocessing: Preprocessing,
    file: IO[bytes],
) -> Collected:
    pictures, height_width = split.pictures, preprocessing.size
    count = len(pictures.items)
    labels, items = np.empty(count, np.int64), np.empty(count, np.int64)
    position = images = 0
    unreadable: list[Unreadable] = []
    started = time.perf_counter()
    with tqdm(desc=split.name, total=count, unit="picture", disable=None, leave=False) as bar:
        for outcomes in decode(pictures, preprocessing):
            for outcome in outcomes:
                if isinstance(outcome, Unreadable):
                    unreadable.append(outcome)
                else:
                    height_width = height_width or outcome.size
                    if outcome.size != height_width:
                        name = pictures.name_of(pictures.items[position])
                        raise ValueError(_other_size(name, outcome.size, height_width))
                    file.write(outcome.pixels)
                    labels[images], items[images] = outcome.label, position
                    images += 1
                position += 1
            bar.update(len(outcomes))
    if not height_width or not images:
        reason = f" ({unreadable[0].name}: {unreadable[0].reason})" if unreadable else ""
        raise ValueError(f"{split.name}: no picture that can be read{reason}; expected some")
    seconds = time.perf_counter() - started
    print(f"{split.name}: {count} pictures, {count / seconds:.0f} a second")
    stored = StoredImages(file, 0, (preprocessing.channels, *height_width), labels[:images])
    return Collected(split, stored, items[:images], unreadable)


def _other_size(name: str, found: tuple[int, int], expected: tuple[int, int]) -> str:
    (height, width), (h, w) = found, expected
    return (
        f"{name}: {height} x {width} pixels, but those before it have {h} x {w};"
        " set tensorize.size, to which all are brought"
    )
