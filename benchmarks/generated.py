"""Generated pictures: smooth noise, as large on disk as photographs of the same size."""

import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 10


def photographs(raw: Path, number: int) -> None:
    """Fill `raw`, as `download` would, with JPEG pictures of 128 x 96 pixels in ten classes."""
    prepare(raw)
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        list(pool.map(partial(photograph, raw), range(number), chunksize=500))


def photograph(raw: Path, i: int) -> None:
    """Write photograph `i`, about 3 kB."""
    colours = np.random.default_rng(i).integers(0, 256, (8, 10, 3), np.uint8)
    picture = Image.fromarray(colours).resize((128, 96), Image.Resampling.BICUBIC)
    picture.save(raw / place(i), quality=90)


def first_photographs(raw: Path, number: int, other: Path) -> None:
    """Fill `other` with links to the first photographs of `raw`."""
    prepare(other)
    for i in range(number):
        os.link(raw / place(i), other / place(i))


def prepare(raw: Path) -> None:
    """Make a folder per class, and the file that says what they hold."""
    for i in range(CLASSES):
        (raw / place(i)).parent.mkdir(parents=True)
    (raw / "dataset.json").write_text('{"format": "pictures"}\n')


def place(i: int) -> str:
    """The path of photograph `i` in its data set."""
    return f"train/{i % CLASSES}/{i:06}.jpg"


def digits(folder: Path, number: int) -> None:
    """Fill `folder` with grey PNG pictures of 28 x 28 pixels."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(number):
        strokes = random.integers(0, 256, (7, 7), np.uint8)
        picture = Image.fromarray(strokes).resize((28, 28), Image.Resampling.BICUBIC)
        picture.save(folder / f"{i:06}.png")
