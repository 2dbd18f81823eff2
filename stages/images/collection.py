"""The pictures of a split -> images of one shape in a file, in bounded memory."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
from tqdm import tqdm

from stages.images.decoding import Unreadable, decode
from stages.images.preprocessing import Preprocessing
from stages.images.readers import RawSplit
from stages.images.stored_images import StoredImages


@contextmanager
def collect(
    split: RawSplit, preprocessing: Preprocessing, scratch: Path
) -> Iterator[tuple[StoredImages, list[Unreadable]]]:
    """Decode a split into an unnamed file in `scratch`, which exists until the block ends.

    Images that are already in a file, in the shape asked for, are not copied. Raises ValueError if
    no picture can be read, or if pictures differ in size and no size is set.
    """
    stored = split.stored
    with ExitStack() as files:
        if stored:
            files.enter_context(stored.file)
            if stored.shape == (preprocessing.channels, *(preprocessing.size or stored.shape[1:])):
                yield stored, []
                return
        scratch.mkdir(parents=True, exist_ok=True)
        file = files.enter_context(TemporaryFile(dir=scratch))
        yield _decoded(split, preprocessing, file)


def _decoded(
    split: RawSplit, preprocessing: Preprocessing, file: IO[bytes]
) -> tuple[StoredImages, list[Unreadable]]:
    pictures, size = split.pictures, preprocessing.size
    items = iter(pictures.items)
    labels: list[int] = []
    names: list[str] = []
    unreadable: list[Unreadable] = []
    started, total = time.perf_counter(), len(pictures.items)
    with tqdm(desc=split.name, total=total, unit="picture", disable=None, leave=False) as bar:
        for outcomes in decode(pictures, preprocessing):
            for outcome, item in zip(outcomes, items, strict=False):
                if isinstance(outcome, Unreadable):
                    unreadable.append(outcome)
                    continue
                name, size = pictures.name_of(item), size or outcome.size
                if outcome.size != size:
                    raise ValueError(
                        f"{name}: found {_pixels(outcome.size)}; expected {_pixels(size)} as in the"
                        " pictures before it; set tensorize.size, which resizes them all"
                    )
                file.write(outcome.pixels)
                labels.append(outcome.label)
                names.append(name)
            bar.update(len(outcomes))
    if not size or not names:
        example = f", such as {unreadable[0].name}: {unreadable[0].reason}" if unreadable else ""
        raise ValueError(f"{split.name}: found no readable picture{example}; expected some")
    print(
        f"{split.name}: {total} pictures, {total / (time.perf_counter() - started):.0f} per second"
    )
    shape = (preprocessing.channels, *size)
    positions = np.arange(len(names))
    return StoredImages(file, 0, shape, positions, np.array(labels, np.int64), names), unreadable


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} pixels"
