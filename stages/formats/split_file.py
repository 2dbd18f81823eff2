"""LabelledImages: the contract between the stages; save, load.

Shapes, everywhere in this project: N examples, images of C channels, H rows and W columns,
D = C * H * W pixels, K classes.
"""

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stages.images.stored_images import Fit, write_split

NO_NAMES = torch.empty(0, dtype=torch.uint8)


@dataclass(frozen=True)
class LabelledImages:
    """One split of a data set; it may be empty, its classes may not.

    images: (N, C, H, W) uint8.  labels: (N,) int64, in [0, K).  classes: K distinct names.
    fit: how a picture of another shape came to (H, W).  names: of the pictures that they were, in
    UTF-8, each ended by a line feed, (M,) uint8; nothing if they have none.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    fit: Fit = "crop"
    names: Tensor = NO_NAMES

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(
                f"images: expected (N, C, H, W) uint8, found {tuple(images.shape)} {images.dtype}"
            )
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"labels: expected ({len(images)},) int64,"
                f" found {tuple(labels.shape)} {labels.dtype}"
            )
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes: expected distinct names, found {self.classes}")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.classes):
            raise ValueError(
                f"labels: expected 0 to {len(self.classes) - 1} ({len(self.classes)} classes),"
                f" found {int(labels.min())} to {int(labels.max())}"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def pictures(self) -> list[str]:
        """The names of the pictures, N; their numbers if they have none."""
        *names, _ = self.names.numpy().tobytes().decode().split("\n")
        return names or [str(index) for index in range(len(self))]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def subset(self, indices: Tensor) -> "LabelledImages":
        """The examples at `indices`, (M,) int64, in that order, without names."""
        return replace(
            self,
            images=self.images.index_select(0, indices),
            labels=self.labels.index_select(0, indices),
            names=NO_NAMES,
        )

    def batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All the images and labels in order, `batch_size` at a time, the last batch smaller."""
        for start in range(0, len(self), batch_size):
            yield self.images[start : start + batch_size], self.labels[start : start + batch_size]

    def save(self, path: Path) -> None:
        """Write the file that `load` reads."""
        images, labels = self.images.numpy(), self.labels.numpy()
        shape, names = self.image_shape, self.pictures
        write_split(path, [images], shape, labels, names, self.classes, self.fit)

    @classmethod
    def load(cls, path: Path) -> "LabelledImages":
        """Read a split's file; the tensors stay on disk, mapped, and must not be written to.

        Raises FileNotFoundError, or a ValueError if the file is not such a file.
        """
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; `dvc repro tensorize` makes it")
        try:
            with safe_open(path, framework="np") as file:  # checks the file
                about = json.loads(file.metadata()["split"])
            return cls(classes=tuple(about["classes"]), fit=about["fit"], **_mapped(path))
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: not labelled images ({error}); `dvc repro -f tensorize` makes it anew"
            ) from None


def _mapped(path: Path) -> dict[str, Tensor]:
    """The tensors of a split's file.

    safetensors would map it copy-on-write, which Linux refuses for a file larger than the memory.
    """
    with path.open("rb") as file:
        content = mmap(file.fileno(), 0, access=ACCESS_READ)
    start = 8 + int.from_bytes(content[:8], "little")
    tensors = {}
    for name, entry in json.loads(content[8:start]).items():
        if name != "__metadata__":
            dtype, shape = {"U8": "u1", "I64": "<i8"}[entry["dtype"]], entry["shape"]
            offset = start + entry["data_offsets"][0]
            array = np.frombuffer(content, dtype, prod(shape), offset).reshape(shape)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that nobody may write to it
                tensors[name] = torch.from_numpy(array)
    return tensors
