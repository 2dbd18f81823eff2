"""Images with captions -> one SVG, whose bytes depend on the content alone.

An SVG leaves rendering to the viewer, and an uncompressed PNG does not depend on the version of a
library, so the file is the same on every machine and its hash can be in `dvc.lock`.
"""

import base64
import re
import struct
import zlib
from collections.abc import Sequence
from html import escape
from math import cos, isqrt, pi, sin
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]
Pixels = NDArray[np.uint8]

SIDE, GAP, CAPTION, TITLE, FONT = 128, 12, 36, 56, 11  # SVG units
WIDTH = 560  # SVG units: wide enough for a line of the title
PIXELS = 2**20  # in all pictures of a figure: 4 MB, at three bytes each in base64
STROKE_CELL, STROKE, STROKE_LEVELS = 16, 7, 8  # units per cell and per half stroke; levels
BLUE, ORANGE = (31, 86, 196), (188, 71, 8)  # right, or speaks for; wrong, or speaks against
# Characters that XML 1.0 (2.2) does not allow, and the control characters that it does allow.
NOT_IN_XML = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def fitted(images: Numbers) -> NDArray[np.float64]:
    """(N, C, H, W) numbers -> (N, C, h, w) float64: as many pixels as a figure has room for.

    Each pixel is the mean of a square box of pixels, of a single one if all fit; boxes at the right
    and lower edges may hold fewer. Sums of uint8 are exact, and so the same everywhere.
    """
    number, _, height, width = images.shape
    return box_means(images, -(-max(height, width) // min(SIDE, isqrt(PIXELS // max(1, number)))))


def box_means(images: Numbers, box: int) -> NDArray[np.float64]:
    """(N, C, H, W) numbers -> (N, C, h, w) float64: the means of square boxes of `box` pixels."""
    height, width = images.shape[2:]
    rows, columns = np.arange(0, height, box), np.arange(0, width, box)
    counts = np.outer(np.diff(rows, append=height), np.diff(columns, append=width))
    sums = np.add.reduceat(images, rows, axis=2, dtype=np.float64)
    means: NDArray[np.float64] = np.add.reduceat(sums, columns, axis=3) / counts
    return means


def diverging(values: Numbers) -> Pixels:
    """(N, H, W) numbers -> (N, H, W, 3) uint8: orange below zero, white at zero, blue above.

    One scale for all: the largest magnitude takes the full colour.
    """
    strength = on_one_scale(values)[..., None]  # (N, H, W, 1) in [-1, 1]
    return blend(np.where(strength < 0, ORANGE, BLUE), np.abs(strength))


def blend(colour: Numbers, strength: Numbers) -> Pixels:
    """White at strength 0, `colour` (..., 3) at strength 1, (..., 1) -> (..., 3) uint8."""
    return np.rint(255 + (colour - 255.0) * strength).astype(np.uint8)


def templates(values: Numbers) -> Pixels:
    """(N, 3, H, W) numbers -> (N, H, W, 3) uint8: each channel grey at zero, brighter above.

    One scale for all: the largest magnitude is 0 or 255.
    """
    return rgb(127.5 + 127.5 * on_one_scale(values))


def on_one_scale(values: Numbers) -> NDArray[np.float64]:
    """Numbers divided by their largest magnitude, which becomes 1 or -1."""
    scaled: NDArray[np.float64] = values / max(np.abs(values).max(), np.finfo(np.float64).tiny)
    return scaled


def rgb(images: Numbers) -> Pixels:
    """(N, C, H, W) in 0 to 255 with one or three channels -> (N, H, W, 3) uint8."""
    pixels = np.rint(images).astype(np.uint8).transpose(0, 2, 3, 1)
    return np.broadcast_to(pixels, (*pixels.shape[:3], 3))


def breadth(text: str) -> int:
    """The width of a line of text, in hundredths of the font's size.

    A letter counts as wide as in the widest of the usual fonts, or a little wider: fonts differ
    between machines. The widths are integers, so that the place where a line is cut does not.
    """
    # from U+1100 on: Chinese, Japanese, Korean, emoji
    return sum(
        100 if letter >= "\u1100" or letter in "mwMW@%" else 75 if "A" <= letter <= "Z" else 60
        for letter in text
    )


def shortened(text: str, room: int) -> str:
    """`text`, with an ellipsis in the middle if its breadth is more than `room`, 100 or more.

    Both ends stay, because classes that are confused often have names that begin alike. Characters
    that XML does not allow become the replacement character.
    """
    text = NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text)
    if breadth(text) <= room:
        return text
    start, end = text[: len(text) // 2], text[len(text) // 2 :]
    while breadth(start) + breadth("\N{HORIZONTAL ELLIPSIS}") + breadth(end) > room:
        start, end = (start[:-1], end) if len(start) > len(end) else (start, end[1:])
    return start.rstrip() + "\N{HORIZONTAL ELLIPSIS}" + end.lstrip()


def named(text: str, room: int) -> str:
    """The inside of an SVG's <text>: `text` shortened, with the full text as a tooltip."""
    short = shortened(text, room)
    whole = NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text)
    return escape(short) + (f"<title>{escape(whole)}</title>" if short != whole else "")


def figure(
    title: str,
    subtitle: str,
    drawings: Sequence[str],
    captions: Sequence[Sequence[str]],
    columns: int,
) -> str:
    """A grid of drawings, N SVG fragments SIDE wide and high, each above one or two caption lines.

    A line that is too long is shortened, with the full text as a tooltip.
    """
    rows = -(-len(captions) // columns)
    width = columns * (SIDE + GAP) + GAP
    height = TITLE + rows * (SIDE + CAPTION + GAP) + GAP
    cells = "\n".join(
        _cell(content, caption, *divmod(index, columns))
        for index, (content, caption) in enumerate(zip(drawings, captions, strict=True))
    )
    return drawing(width, height, title, subtitle, cells)


def drawing(width: int, height: int, title: str, subtitle: str, content: str) -> str:
    """An SVG with two lines of title, TITLE high, above the content; at least WIDTH wide."""
    margin = max(0, WIDTH - width) // 2
    wide = width + 2 * margin
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{height}"
 viewBox="{-margin} 0 {wide} {height}" font-family="sans-serif" font-size="{FONT}"
 text-anchor="middle">
<rect x="{-margin}" width="{wide}" height="{height}" fill="white"/>
<text x="{width // 2}" y="24" font-size="16" font-weight="bold">{escape(title)}</text>
<text x="{width // 2}" y="44" fill="#555">{escape(subtitle)}</text>
{content}
</svg>
"""


def images(pictures: Pixels) -> list[str]:
    """Pictures, (N, H, W, 3) uint8, as drawings for a figure."""
    return [image(picture, 0, 0, SIDE, SIDE) for picture in pictures]


def strokes(strength: NDArray[np.float64]) -> str:
    """Edges in a grid of cells as a drawing for a figure: blue above zero, orange below.

    strength: (B, G, G) in [-1, 1], for B edge directions in equal steps of half a turn, the first
    one upright. The colour grows with the square root of the strength, in a few steps, so that weak
    edges can be seen and the bytes do not depend on the last bits of a float.
    """
    directions, grid, _ = strength.shape
    visible = np.sign(strength) * np.sqrt(np.abs(strength))
    levels = np.rint(STROKE_LEVELS * visible).astype(np.int64)
    paths = []
    for level in np.unique(levels[levels != 0]).tolist():
        path = ""
        for direction, y, x in np.argwhere(levels == level).tolist():
            angle = pi * direction / directions
            dx, dy = round(-STROKE * sin(angle)), round(STROKE * cos(angle))
            middle_x, middle_y = (
                STROKE_CELL * x + STROKE_CELL // 2,
                STROKE_CELL * y + STROKE_CELL // 2,
            )
            path += f"M{middle_x - dx} {middle_y - dy}l{2 * dx} {2 * dy}"
        share = abs(level) / STROKE_LEVELS
        colour = "#%02x%02x%02x" % (BLUE if level > 0 else ORANGE)
        paths.append(
            f'<path d="{path}" stroke="{colour}" stroke-opacity="{share:.2f}"'
            f' stroke-width="{1 + 4 * share:.2f}"/>'
        )
    size = grid * STROKE_CELL
    return f'<svg width="{SIDE}" height="{SIDE}" viewBox="0 0 {size} {size}">{"".join(paths)}</svg>'


def image(picture: Pixels, x: int, y: int, width: int, height: int) -> str:
    """A picture, (H, W, 3) uint8, as large as fits into a box of an SVG, with sharp pixels."""
    source = base64.b64encode(png(picture)).decode()
    return (
        f'<image x="{x}" y="{y}" width="{width}" height="{height}" image-rendering="pixelated"'
        f' href="data:image/png;base64,{source}"/>'
    )


def _cell(content: str, caption: Sequence[str], row: int, column: int) -> str:
    x = GAP + column * (SIDE + GAP)
    y = TITLE + GAP + row * (SIDE + CAPTION + GAP)
    lines = "".join(
        f'<text x="{x + SIDE // 2}" y="{y + SIDE + 15 * number}">'
        f"{named(line, (SIDE + GAP // 2) * 100 // FONT)}</text>"
        for number, line in enumerate(caption, start=1)
    )
    return (
        f'<g transform="translate({x} {y})">{content}</g>'
        f'<rect x="{x}" y="{y}" width="{SIDE}" height="{SIDE}" fill="none" stroke="#ccc"/>{lines}'
    )


def png(picture: Pixels) -> bytes:
    """(H, W, 3) uint8 -> a PNG of stored, not compressed, pixels (RFC 2083; RFC 1951, 3.2.4)."""
    height, width, _ = picture.shape
    filters = np.zeros((height, 1), np.uint8)  # one per row: 0, no filter
    rows = np.hstack([filters, picture.reshape(height, 3 * width)]).tobytes()
    blocks = [rows[start : start + 65535] for start in range(0, len(rows), 65535)]
    stored = b"".join(
        struct.pack("<BHH", block is blocks[-1], len(block), len(block) ^ 0xFFFF) + block
        for block in blocks
    )
    stream = b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(rows))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", stream), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
