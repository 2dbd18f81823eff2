"""safetensors files that need not fit in memory: their header, and arrays mapped from disk.

The bytes are those that safetensors itself would write (github.com/huggingface/safetensors,
"Format"), but safetensors needs a whole file in memory to write it, and maps a file copy-on-write,
which Linux refuses if it is larger than the memory.
"""

import json
from collections.abc import Mapping, Set
from math import prod
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DTYPES = {"I64": "<i8", "U8": "u1"}  # safetensors' names; NumPy's

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]  # name -> dtype, a key of DTYPES, and shape


def create(
    path: Path,
    tensors: Tensors,
    metadata: Mapping[str, str],
    content: Mapping[str, NDArray[Any]],
) -> None:
    """Write a file: its header and the content of some tensors; the others are zeros at first.

    tensors: in the order in which safetensors has them, I64 before U8 and then by name.
    """
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + prod(shape) * np.dtype(DTYPES[dtype]).itemsize
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": (start, end)}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, array in content.items():
            file.seek(8 + len(text) + header[name]["data_offsets"][0])
            file.write(np.ascontiguousarray(array, DTYPES[tensors[name][0]]).data)
        file.truncate(8 + len(text) + end)


def layout(path: Path) -> dict[str, tuple[str, tuple[int, ...], int]]:
    """The dtype, the shape and the first byte of each tensor in a valid file, by name."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    return {
        name: (about["dtype"], tuple(about["shape"]), 8 + size + about["data_offsets"][0])
        for name, about in header.items()
    }


def mapped(
    path: Path, dtypes: Mapping[str, str], optional: Set[str] = frozenset()
) -> dict[str, NDArray[Any]]:
    """The tensors in a valid file, read-only; they stay on disk.

    Raises ValueError if they are not those that `dtypes` names, of which some are `optional`.
    """
    tensors = layout(path)
    found = {name: dtype for name, (dtype, *_) in tensors.items()}
    if not found.items() <= dtypes.items() or dtypes.keys() - found.keys() - optional:
        without = f", {', '.join(sorted(optional))} optional" if optional else ""
        raise ValueError(f"found tensors {found!r:.200}; expected {dict(dtypes)}{without}")
    with path.open("rb") as file:
        content = mmap(file.fileno(), 0, access=ACCESS_READ)
    return {
        name: np.frombuffer(content, DTYPES[dtype], prod(shape), start).reshape(shape)
        for name, (dtype, shape, start) in tensors.items()
    }
