"""ShardIndex, the file that says where in its shards each picture of a split lies.

With it a picture is read by one seek, without walking through a tar, and nothing but `download`
needs to know how shards are laid out. The file is safetensors: places (N, 4) int64 and the
pictures' names, each followed by a line feed, as uint8; the shards and the classes are in its
metadata.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from stages.base.whole_files import whole_file
from stages.formats.lines import Lines
from stages.formats.metadata import class_names, metadata, valid
from stages.formats.tensor_file import create, mapped

NAME = "index.safetensors"  # beside the shards
DTYPES = {"places": "I64", "names": "U8"}


class ShardPicture(NamedTuple):
    """A picture in a shard: `size` bytes from byte `start` on; its label and its name."""

    shard: str
    start: int
    size: int
    label: int
    name: str


@dataclass(frozen=True)
class ShardIndex(Sequence[ShardPicture]):
    """The N pictures of a split, in order.

    places: (N, 4) int64: the shard's position in `shards`, start, size and label.
    """

    shards: tuple[str, ...]
    classes: tuple[str, ...]
    places: NDArray[np.int64]
    names: Lines

    def __post_init__(self) -> None:
        number = len(self.names)
        if self.places.shape != (number, 4) or self.places.dtype != np.int64:
            raise ValueError(
                f"places: found {self.places.shape} {self.places.dtype}; expected ({number}, 4)"
                " int64, one row per name"
            )
        shard, _, _, label = self.places.max(0, initial=-1)
        if (
            self.places.min(initial=0) < 0
            or shard >= len(self.shards)
            or label >= len(self.classes)
        ):
            raise ValueError("places: found one outside of the shards or classes")

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> ShardPicture: ...

    @overload
    def __getitem__(self, index: slice) -> list[ShardPicture]: ...

    def __getitem__(self, index: int | slice) -> ShardPicture | list[ShardPicture]:
        if isinstance(index, slice):
            places = self.places[index].tolist()
            return [*map(self._picture, places, self.names[index])]
        return self._picture(self.places[index].tolist(), self.names[index])

    def _picture(self, place: list[int], name: str) -> ShardPicture:
        shard, start, size, label = place
        return ShardPicture(self.shards[shard], start, size, label, name)

    def save(self, folder: Path) -> None:
        """Write the file that `load` reads, whole or not at all, into the shards' folder."""
        tensors: dict[str, NDArray[Any]] = {"places": self.places, "names": self.names.text}
        about = {"classes": self.classes, "shards": self.shards}
        with whole_file(folder / NAME) as part:
            create(
                part,
                {name: (DTYPES[name], array.shape) for name, array in tensors.items()},
                {"shards": json.dumps(about, ensure_ascii=False)},
                tensors,
            )

    @classmethod
    def load(cls, folder: Path) -> "ShardIndex":
        """Read a folder's index, whose arrays stay on disk.

        Raises FileNotFoundError, or ValueError if it is not valid.
        """
        path = folder / NAME
        with valid(path, "shard index", "download"):
            with safe_open(path, framework="np") as file:  # checks the file
                about = metadata(file, "shards", {"classes", "shards"})
            shards = class_names({"classes": about["shards"]})
            arrays = mapped(path, DTYPES)
            return cls(shards, class_names(about), arrays["places"], Lines(arrays["names"]))
