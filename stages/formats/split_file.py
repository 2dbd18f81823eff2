"""LabelledImages, the contract between the stages, and the file that holds one split of them.

Shapes, everywhere in this project: N examples, images of C channels, H rows and W columns,
D = C * H * W pixels, K classes.

The file is safetensors: labels (N,) int64, images (N, C, H, W) uint8, and the pictures' names, each
ended by a line feed, as uint8; the classes and the way pictures were fitted are its metadata.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from stages.base.whole_files import whole_file

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]

FITS = ("crop", "pad")
DTYPES = {"images": "U8", "labels": "I64", "names": "U8"}  # as safetensors writes them


@dataclass(frozen=True)
class LabelledImages:
    """One split of a data set; it may be empty, its classes may not.

    images: (N, C, H, W) uint8, C being 1 or 3.  labels: (N,) int64, in [0, K).  classes: K distinct
    names.  fit: crop or pad, how a picture of another shape was brought to (H, W).  names: the
    pictures' names in UTF-8, each ended by a line feed, (M,) uint8; empty if they have none.
    """

    images: Images
    labels: Labels
    classes: tuple[str, ...]
    fit: str = "crop"
    names: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(
                f"images: found {images.shape} {images.dtype}; expected (N, C, H, W) uint8"
            )
        if images.shape[1] not in (1, 3) or min(images.shape[1:]) < 1:
            raise ValueError(f"images: found {images.shape}; expected (N, 1 or 3, H, W)")
        if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"labels: found {labels.shape} {labels.dtype}; expected ({len(images)},) int64"
            )
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes: found {self.classes!r:.200}; expected distinct names")
        if self.fit not in FITS:
            raise ValueError(f"fit: found {self.fit!r:.200}; expected {' or '.join(FITS)}")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.classes):
            raise ValueError(
                f"labels: found {labels.min()} to {labels.max()};"
                f" expected 0 to {len(self.classes) - 1}, for {len(self.classes)} classes"
            )
        self._check_names()

    def _check_names(self) -> None:
        names = self.names
        if names.dtype != np.uint8 or names.ndim != 1:
            raise ValueError(f"names: found {names.shape} {names.dtype}; expected (M,) uint8")
        if not len(names):
            return
        if names[-1] != ord("\n"):
            raise ValueError("names: found no line feed at the end; expected one after each name")
        try:
            number = len(self.pictures)
        except UnicodeDecodeError as error:
            raise ValueError(f"names: found {error.reason}; expected UTF-8") from None
        if number != len(self):
            raise ValueError(f"names: found {number}; expected {len(self)}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def pictures(self) -> list[str]:
        """The pictures' names, N; their numbers if they have none."""
        *names, _ = self.names.tobytes().decode().split("\n")
        return names or [str(index) for index in range(len(self))]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def pixels(self) -> Images:
        """The images as rows, (N, D)."""
        return self.images.reshape(len(self), prod(self.image_shape))

    def batches(self, batch_size: int) -> Iterator[tuple[Images, Labels]]:
        """The pixels, (n, D), and labels of all images in order; the last batch may be smaller."""
        pixels = self.pixels
        for start in range(0, len(self), batch_size):
            yield pixels[start : start + batch_size], self.labels[start : start + batch_size]

    def save(self, path: Path) -> None:
        """Write the file that `load` reads."""
        names = self.pictures
        write_split(
            path, [self.images], self.image_shape, self.labels, names, self.classes, self.fit
        )

    @classmethod
    def load(cls, path: Path) -> "LabelledImages":
        """Read a split's file; the arrays stay on disk, mapped, and cannot be written to.

        Raises FileNotFoundError, or a ValueError if the file is not such a file.
        """
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; `dvc repro tensorize` makes it")
        try:
            with safe_open(path, framework="np") as file:  # checks the file
                about = metadata(file, "split", {"classes", "fit"})
            return cls(classes=class_names(about), fit=about["fit"], **_mapped(path))
        except (SafetensorError, ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{path}: not labelled images ({reason}); `dvc repro -f tensorize` regenerates it"
            ) from None


def metadata(file: Any, name: str, keys: set[str]) -> dict[str, Any]:
    """The JSON object `name` in the metadata of an open safetensors file.

    Raises ValueError, or RecursionError, if there is none that has the keys.
    """
    about = json.loads((file.metadata() or {}).get(name, "null"))
    if not isinstance(about, dict) or not keys <= about.keys():
        raise ValueError(
            f"metadata {name}: found {about!r:.200};"
            f" expected an object with the keys {', '.join(sorted(keys))}"
        )
    return about


def class_names(about: dict[str, Any]) -> tuple[str, ...]:
    """The classes in a file's metadata; raises ValueError if they are not a list of names."""
    classes = about["classes"]
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"classes: found {classes!r:.200}; expected a list of names")
    return tuple(classes)


def _mapped(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a split's file, once safetensors has checked its header and size.

    safetensors would map it copy-on-write, which Linux refuses for a file larger than the memory.
    """
    with path.open("rb") as file:
        content = mmap(file.fileno(), 0, access=ACCESS_READ)
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    found = {name: header[name]["dtype"] for name in sorted(header) if name != "__metadata__"}
    if found != DTYPES:
        raise ValueError(f"found tensors {found!r:.200}; expected {DTYPES}")
    arrays = {}
    for name, kind in DTYPES.items():
        dtype, shape = {"U8": "u1", "I64": "<i8"}[kind], header[name]["shape"]
        offset = start + header[name]["data_offsets"][0]
        arrays[name] = np.frombuffer(content, dtype, prod(shape), offset).reshape(shape)
    return arrays


def write_split(
    path: Path,
    images: Iterable[Images],
    shape: tuple[int, int, int],
    labels: Labels,
    names: Iterable[str],
    classes: Sequence[str],
    fit: str,
) -> None:
    """Write a split's file, whole or not at all: `images` in chunks, (n, C, H, W), N in all.

    Its bytes depend on the content alone, and are those that safetensors itself would write
    (github.com/huggingface/safetensors, "Format"), which wants all of it in memory.
    """
    number, lines = len(labels), bytearray()
    for name in names:
        lines += f"{name}\n".encode()
    end_of_labels = 8 * number
    end_of_images = end_of_labels + number * prod(shape)
    header: dict[str, Any] = {
        "__metadata__": {"split": json.dumps({"classes": classes, "fit": fit}, ensure_ascii=False)},
        "labels": {"dtype": "I64", "shape": [number], "data_offsets": [0, end_of_labels]},
        "images": {
            "dtype": "U8",
            "shape": [number, *shape],
            "data_offsets": [end_of_labels, end_of_images],
        },
        "names": {
            "dtype": "U8",
            "shape": [len(lines)],
            "data_offsets": [end_of_images, end_of_images + len(lines)],
        },
    }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with whole_file(path) as part, part.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.write(labels.astype("<i8").tobytes())
        for chunk in images:
            file.write(chunk.tobytes())
        file.write(lines)
