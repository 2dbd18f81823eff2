"""A look at some pictures of a split -> the channels and the size that suit them all."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median_low
from typing import Literal

import numpy as np
from PIL import Image

from stages.base.process_count import processes_asked_for
from stages.images.decoding import cpus
from stages.images.preprocessing import Preprocessing, bombs_refused
from stages.images.readers import RawSplit

SAMPLE = 300  # pictures, evenly spread over the split
LARGEST = 64  # pixels per side; a picture has 14 x 14 cells, which more pixels hardly change
SMALLEST = 32  # pixels per side, where pictures differ in size
STEP = 16  # pixels: a picture more or less rarely changes the size
GREY_MODES = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F"}

Size = tuple[int, int]  # (H, W), pixels


@dataclass(frozen=True)
class Survey:
    """How many of the pictures looked at have which size and which of Pillow's modes.

    has_colour: whether any of their pixels, transparent ones laid on white, has another red, green
    or blue than the other two.
    """

    sizes: Counter[Size]
    modes: Counter[str]
    has_colour: bool

    @property
    def channels(self) -> Literal[1, 3]:
        """3 if any picture has colour, else 1."""
        return 3 if self.has_colour else 1

    @property
    def size(self) -> Size:
        """The pictures' own size if they have one in common, at most 64 pixels on its longer side.

        Where sizes differ, a square: of 64 x 64 pixels, or of 48 x 48 or 32 x 32 if the shorter
        side of half of the pictures is less.
        """
        if len(self.sizes) == 1:
            (size,) = self.sizes
            longest = max(size)
            height, width = (max(1, round(side * LARGEST / longest)) for side in size)
            return size if longest <= LARGEST else (height, width)
        shorter = median_low(map(min, self.sizes.elements())) if self.sizes else 0
        side = min(LARGEST, max(SMALLEST, shorter // STEP * STEP))
        return side, side


def survey(split: RawSplit) -> Survey:
    """Look at up to 300 pictures of a split; the unreadable ones do not count."""
    if split.stored:
        size, number = split.stored.shape[1:], len(split.stored)
        return Survey(Counter({size: number}), Counter(L=number), has_colour=False)
    pictures = split.pictures
    number = len(pictures.items)
    looked_at = min(SAMPLE, number)
    items = [pictures.items[i * number // looked_at] for i in range(looked_at)]

    def look(item: object) -> tuple[Size, str, bool] | None:
        try:
            image, _ = pictures.open_item(item)
            return image.size[::-1], image.mode, _has_colour(image)
        except (ValueError, MemoryError):
            return None

    with bombs_refused(), ThreadPoolExecutor(processes_asked_for() or cpus()) as threads:
        found = [looked for looked in threads.map(look, items) if looked]
    return Survey(
        Counter(size for size, _, _ in found),
        Counter(mode for _, mode, _ in found),
        any(colour for _, _, colour in found),
    )


def _has_colour(image: Image.Image) -> bool:
    if image.mode in GREY_MODES:
        return False
    pixels = np.asarray(Preprocessing(3, None, "crop")(image))
    return bool((pixels != pixels[..., :1]).any())
