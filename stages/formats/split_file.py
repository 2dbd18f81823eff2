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


@dataclass(frozen=True)
class LabelledImages:
    """One split of a data set; it may be empty, its classes may not.

    images: (N, C, H, W) uint8.  labels: (N,) int64, in [0, K).  classes: K distinct names.
    fit: how a picture of another shape was brought to (H, W).  names: the pictures' names in UTF-8,
    each ended by a line feed, (M,) uint8; empty if they have none.
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
        if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"labels: found {labels.shape} {labels.dtype}; expected ({len(images)},) int64"
            )
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes: found {self.classes}; expected distinct names")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.classes):
            raise ValueError(
                f"labels: found {labels.min()} to {labels.max()};"
                f" expected 0 to {len(self.classes) - 1}, for {len(self.classes)} classes"
            )
        if len(self.names) and len(self.pictures) != len(images):
            raise ValueError(f"names: found {len(self.pictures)}; expected {len(images)}")

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
                about = json.loads(file.metadata()["split"])
            return cls(classes=tuple(about["classes"]), fit=about["fit"], **_mapped(path))
        except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{path}: not labelled images ({error}); `dvc repro -f tensorize` regenerates it"
            ) from None


def _mapped(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a split's file.

    safetensors would map it copy-on-write, which Linux refuses for a file larger than the memory.
    """
    with path.open("rb") as file:
        content = mmap(file.fileno(), 0, access=ACCESS_READ)
    start = 8 + int.from_bytes(content[:8], "little")
    arrays = {}
    for name, entry in json.loads(content[8:start]).items():
        if name != "__metadata__":
            dtype, shape = {"U8": "u1", "I64": "<i8"}[entry["dtype"]], entry["shape"]
            offset = start + entry["data_offsets"][0]
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
