"""More training images from those there are: copies moved by a few pixels."""

from collections.abc import Iterator

import numpy as np

from stages.formats.split_file import Images
from stages.images.stored_images import StoredImages

Move = tuple[int, int]  # pixels down and to the right; negative ones go up and to the left


def moves_by(shift: int) -> list[Move]:
    """No move at all and, unless `shift` is 0, moves by that many pixels up, down and sideways."""
    if shift == 0:
        return [(0, 0)]
    return [(0, 0), (-shift, 0), (shift, 0), (0, -shift), (0, shift)]


def moved(images: Images, move: Move) -> Images:
    """Images (N, C, H, W) moved, with 0 where nothing was."""
    height, width = images.shape[2:]
    margin = max(map(abs, move))
    padded = np.pad(images, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
    top, left = margin - move[0], margin - move[1]
    return padded[:, :, top : top + height, left : left + width]


def moved_chunks(images: StoredImages, move: Move) -> Iterator[Images]:
    """The images that are held, moved, a few at a time."""
    for chunk in images.chunks():
        yield moved(chunk, move)
