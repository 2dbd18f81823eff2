"""Made-up pictures to decode, apart from the tests so that other processes import little."""

import os
import signal
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from stages.images.preprocessing import open_picture


def of_number(item: int) -> tuple[Image.Image, int]:
    """A picture of one grey, `item`; every tenth is none."""
    if item % 10 == 9:
        raise ValueError(f"{item} is no picture")
    return Image.new("L", (3, 2), item % 256), item + 1000


def short_of_memory(item: int) -> tuple[Image.Image, int]:
    """Picture 3 is larger than the memory."""
    if item == 3:
        raise MemoryError
    return of_number(item)


def killed(item: int) -> tuple[Image.Image, int]:
    """The process that opens picture 150 is killed, as when memory is short."""
    if item == 150:
        os.kill(os.getpid(), signal.SIGKILL)
    return of_number(item)


def defect(item: int) -> tuple[Image.Image, int]:
    """An error of ours."""
    raise RuntimeError(f"a defect at {item}")


@dataclass(frozen=True)
class OpenFile:
    """Opens the picture of a name, of label 0."""

    folder: Path

    def __call__(self, name: str) -> tuple[Image.Image, int]:
        return open_picture(self.folder / name), 0


def png_of_size(width: int, height: int) -> bytes:
    """A PNG file that claims this size, and has hardly a pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(9)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")
