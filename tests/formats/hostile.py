"""Safetensors files as an attacker or a bug would write them."""

import json
import random
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

NESTED = "[" * 100_000 + "]" * 100_000  # JSON beyond Python's recursion limit


def short(value: object) -> str | None:
    """The part of a test's name that a parameter contributes."""
    return value[:50] if isinstance(value, str) else None


def write(
    path: Path, tensors: Mapping[str, NDArray[Any]], entry: str, about: object | None
) -> None:
    """A file with these tensors and one metadata entry: text, JSON or none."""
    text = about if isinstance(about, str) else json.dumps(about)
    whole = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    path.write_bytes(save(whole, None if about is None else {entry: text}))


def damaged(content: bytes) -> Iterator[bytes]:
    """A file truncated, and with its header edited in many ways."""
    for length in (0, 1, 7, 8, 9, 40, len(content) // 2, len(content) - 1):
        yield content[:length]
    yield content + b"\0"
    yield b"\0" * 100
    yield b"\xff" * 100
    (size,) = struct.unpack("<Q", content[:8])
    header, data = content[8 : 8 + size].decode(), content[8 + size :]
    for kind in ("BOOL", "U8", "I8", "BF16", "F16", "F64", "I64", "U64", "F8_E4M3", "C64", "F128"):
        for old in ("U8", "I64", "F32"):
            if kind != old and f'"{old}"' in header:
                text = header.replace(f'"{old}"', f'"{kind}"').encode()
                yield struct.pack("<Q", len(text)) + text + data
    chance = random.Random(0)  # noqa: S311  # not for secrets
    for _ in range(300):
        place = chance.randrange(size)
        text = (header[:place] + chance.choice('0[]{}":,-') + header[place + 1 :]).encode()
        yield struct.pack("<Q", len(text)) + text + data
