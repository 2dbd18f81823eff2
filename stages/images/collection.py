"""The pictures of a split -> images of one shape in a file, in bounded memory."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NamedTuple

import numpy as np
from tqdm import tqdm

from stages.base.process_group import ALONE, ProcessGroup
from stages.formats.split_file import Labels
from stages.images.decoding import Pictures, Unreadable, decode
from stages.images.preprocessing import Preprocessing
from stages.images.readers import RawSplit
from stages.images.stored_images import Indices, StoredImages


@contextmanager
def collect(
    split: RawSplit, preprocessing: Preprocessing, scratch: Path, group: ProcessGroup = ALONE
) -> Iterator[tuple[StoredImages, list[Unreadable]]]:
    """Decode a split into an unnamed file in `scratch`, which exists until the block ends.

    Each process decodes its share into a file of its own; labels and names are those of all. Images
    that are already in a file, in the shape asked for, are not copied. Raises ValueError if no
    picture can be read, or if pictures differ in size and no size is set.
    """
    stored = split.stored
    with ExitStack() as files:
        if stored:
            files.enter_context(stored.file)
            if stored.shape == (preprocessing.channels, *(preprocessing.size or stored.shape[1:])):
                yield replace(stored, held=group.share(len(stored))), []
                return
        scratch.mkdir(parents=True, exist_ok=True)
        file = files.enter_context(TemporaryFile(dir=scratch))
        yield _decoded(split, preprocessing, file, group)


def _decoded(
    split: RawSplit, preprocessing: Preprocessing, file: IO[bytes], group: ProcessGroup
) -> tuple[StoredImages, list[Unreadable]]:
    pictures, size = split.pictures, preprocessing.size
    share, written = group.share(len(pictures.items)), 0
    labels, readable = np.zeros(len(share), np.int64), np.zeros(len(share), np.bool_)
    unreadable: list[Unreadable] = []
    positions, started = iter(share), time.perf_counter()
    with tqdm(
        desc=split.name,
        total=len(share),
        unit="picture",
        disable=None if group.first else True,
        leave=False,
    ) as bar:
        for outcomes in decode(pictures, preprocessing, share):
            for outcome, position in zip(outcomes, positions, strict=False):
                if isinstance(outcome, Unreadable):
                    unreadable.append(outcome)
                    continue
                size = size or outcome.size
                _check_size(pictures, position, outcome.size, size)
                if position > written:  # those between are unreadable or another process's
                    file.seek(position * len(outcome.pixels))
                file.write(outcome.pixels)
                written = position + 1
                labels[position - share.start] = outcome.label
                readable[position - share.start] = True
            bar.update(len(outcomes))
    mine = _Share(size, share.start + np.flatnonzero(readable), labels[readable], unreadable)
    shares = group.gather(mine)
    unreadable = [one for other in shares for one in other.unreadable]
    number, size = len(pictures.items), next((s.size for s in shares if len(s.positions)), None)
    if not size:
        example = f", such as {unreadable[0].name}: {unreadable[0].reason}" if unreadable else ""
        raise ValueError(f"{split.name}: found no readable picture{example}; expected some")
    for other in shares:
        if other.size and len(other.positions):
            _check_size(pictures, int(other.positions[0]), other.size, size)
    if group.first:
        rate = number / (time.perf_counter() - started)
        print(f"{split.name}: {number} pictures, {rate:.0f} per second")
    images = StoredImages(
        file,
        0,
        (preprocessing.channels, *size),
        np.concatenate([other.positions for other in shares]),
        np.concatenate([other.labels for other in shares]),
        pictures.name_at,
        share,
    )
    return images, unreadable


class _Share(NamedTuple):
    """What one process has decoded: (H, W); where it is, (n,); its labels, (n,); what is not."""

    size: tuple[int, int] | None
    positions: Indices
    labels: Labels
    unreadable: list[Unreadable]


def _check_size(
    pictures: Pictures, position: int, found: tuple[int, int], expected: tuple[int, int]
) -> None:
    if found != expected:
        raise ValueError(
            f"{pictures.name_at(position)}: found {_pixels(found)}; expected {_pixels(expected)} as"
            " in the pictures before it; set tensorize.size, which resizes them all"
        )


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} pixels"
