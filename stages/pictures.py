"""Images with captions -> one SVG, whose bytes depend on the content alone.

An SVG leaves drawing to whoever looks at it, and a PNG without compression leaves nothing to the
version of a library: so the file can stand in `dvc.lock` and be the same on every machine.
"""

import base64
import struct
import zlib
from collections.abc import Sequence
from html import escape

import torch
from torch import Tensor

SIDE, GAP, CAPTION, TITLE = 112, 12, 36, 56  # SVG units
BLUE, RED = (33, 102, 172), (178, 24, 43)


def diverging(values: Tensor) -> Tensor:
    """(N, H, W) numbers -> (N, H, W, 3) uint8: blue below zero, white at zero, red above.

    One scale for all: the largest magnitude takes the full colour.
    """
    values = values.to(torch.float64)
    largest = values.abs().max().clamp(min=torch.finfo(torch.float64).tiny)
    strength = (values / largest)[..., None]  # (N, H, W, 1) in [-1, 1]
    full = torch.where(strength < 0, torch.tensor(BLUE), torch.tensor(RED)).to(torch.float64)
    return (255 + (full - 255) * strength.abs()).round().to(torch.uint8)


def rgb(images: Tensor) -> Tensor:
    """(N, C, H, W) uint8 with one or three channels -> (N, H, W, 3) uint8."""
    return images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1)


def figure(
    title: str, subtitle: str, pictures: Tensor, captions: Sequence[str], columns: int
) -> str:
    """A grid of pictures, (N, H, W, 3) uint8, each above its caption of one or two lines."""
    rows = -(-len(captions) // columns)
    width = columns * (SIDE + GAP) + GAP
    height = TITLE + rows * (SIDE + CAPTION + GAP) + GAP
    cells = "\n".join(
        _cell(picture, caption, *divmod(index, columns))
        for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True))
    )
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"
 viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11" text-anchor="middle">
<rect width="100%" height="100%" fill="white"/>
<text x="{width // 2}" y="24" font-size="16" font-weight="bold">{escape(title)}</text>
<text x="{width // 2}" y="44" fill="#555">{escape(subtitle)}</text>
{cells}
</svg>
"""


def _cell(picture: Tensor, caption: str, row: int, column: int) -> str:
    x = GAP + column * (SIDE + GAP)
    y = TITLE + GAP + row * (SIDE + CAPTION + GAP)
    source = base64.b64encode(png(picture)).decode()
    lines = "".join(
        f'<text x="{x + SIDE // 2}" y="{y + SIDE + 15 * number}">{escape(line)}</text>'
        for number, line in enumerate(caption.splitlines(), start=1)
    )
    return (
        f'<image x="{x}" y="{y}" width="{SIDE}" height="{SIDE}" image-rendering="pixelated"'
        f' href="data:image/png;base64,{source}"/>'
        f'<rect x="{x}" y="{y}" width="{SIDE}" height="{SIDE}" fill="none" stroke="#ccc"/>{lines}'
    )


def png(picture: Tensor) -> bytes:
    """(H, W, 3) uint8 -> a PNG of stored, not compressed, pixels (RFC 2083; RFC 1951, 3.2.4)."""
    height, width, _ = picture.shape
    rows = b"".join(b"\0" + bytes(row.flatten().tolist()) for row in picture)
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
