"""The pictures of a source split -> images of one shape in a file, as bounded memory allows."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from tqdm import tqdm

from stages.decoding import Decoded, Unreadable, decode
from stages.preprocessing import Preprocessing
from stages.readers import SourceSplit
from stages.stored_images import Indices, StoredImages


@dataclass(frozen=True)
class Collected:
    """The images of a source split, and which of its pictures each was, (N,)."""

    split: SourceSplit
    images: StoredImages
    items: Indices

    def name(self, index: int) -> str:
        """Which picture image `index` was."""
        pictures = self.split.pictures
        return pictures.name_of(pictures.items[self.items[index]])


def collect(
    split: SourceSplit,
    preprocessing: Preprocessing,
    scratch: Path,
    leave_out: Callable[[Unreadable], None],
) -> Collected:
    """Decode a source split into a file in the folder `scratch`, where it has no name.

    Images that lie in a file already, and need not change, are not copied. `leave_out` gets each
    picture that cannot be read, and may raise. Raises ValueError if the pictures differ in size
    while none is set, or if none is left.
    """
    pictures, stored = split.pictures, split.stored
    count = len(pictures.items)
    height_width = preprocessing.size
    if stored and stored.shape == (
        preprocessing.channels,
        *(height_width or stored.shape[1:]),
    ):
        return Collected(split, stored, np.arange(count))
    scratch.mkdir(parents=True, exist_ok=True)
    file = TemporaryFile(dir=scratch)  # noqa: SIM115  # closed when no split needs it any more
    labels, items, position = [], [], 0
    started = time.perf_counter()
    with tqdm(desc=split.name, total=count, unit="picture", disable=None, leave=False) as bar:
        for outcomes in decode(pictures, preprocessing):
            for outcome in outcomes:
                if isinstance(outcome, Unreadable):
                    leave_out(outcome)
                else:
                    height_width = height_width or outcome.size
                    _check_size(pictures.name_of(pictures.items[position]), outcome, height_width)
                    file.write(outcome.pixels)
                    labels.append(outcome.label)
                    items.append(position)
                position += 1
            bar.update(len(outcomes))
    if not labels or not height_width:
        raise ValueError(f"{split.name}: no picture that can be read; expected at least one")
    seconds = time.perf_counter() - started
    print(f"{split.name}: {count} pictures, {count / seconds:.0f} a second")
    return Collected(
        split,
        StoredImages(
            file, 0, (preprocessing.channels, *height_width), np.array(labels, dtype=np.int64)
        ),
        np.array(items, dtype=np.int64),
    )


def _check_size(name: str, picture: Decoded, expected: tuple[int, int]) -> None:
    if picture.size != expected:
        (height, width), (h, w) = picture.size, expected
        raise ValueError(
            f"{name}: {height} x {width} pixels, but those before it have {h} x {w};"
            " set tensorize.size, to which all are brought"
        )
