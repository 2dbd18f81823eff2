"""Split, the contract between the stages, and the file that holds one.

Shapes, everywhere in this project: N examples, images of C channels, H rows and W columns,
D features, K classes.

The file is safetensors: labels (N,) int64, features (N, D) uint8, optionally images (N, C, H, W)
uint8, and the pictures' names, each followed by a line feed, as uint8. The classes, the input spec
and the origin are in its metadata.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from stages.base.whole_files import whole_file
from stages.formats.input_spec import InputSpec
from stages.formats.lines import Lines
from stages.formats.metadata import class_names, metadata, valid
from stages.formats.origin import UNKNOWN, Origin
from stages.formats.tensor_file import create, layout, mapped

Images = NDArray[np.uint8]  # (N, C, H, W)
Features = NDArray[np.uint8]  # (N, D)
Labels = NDArray[np.int64]  # (N,)

DTYPES = {"features": "U8", "images": "U8", "labels": "I64", "names": "U8"}  # as in the file
OPTIONAL = {"images"}


@dataclass(frozen=True)
class Split:
    """One split of a data set: labelled features. It may be empty, but its classes may not.

    features: (N, D) uint8.  labels: (N,) int64, in [0, K).  classes: K distinct names.
    spec: how the pictures were prepared.  names: the pictures' names in UTF-8, each followed by a
    line feed, (M,) uint8; empty if they have none.  stored_images: (N, C, H, W) uint8, in a test
    split whose features are not the images themselves.  origin: where the images come from.
    """

    features: Features
    labels: Labels
    classes: tuple[str, ...]
    spec: InputSpec
    names: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    stored_images: Images | None = None
    origin: Origin = UNKNOWN

    def __post_init__(self) -> None:
        number, shape = len(self.labels), self.spec.image_shape
        _expect("labels", self.labels, np.int64, (number,))
        _expect("features", self.features, np.uint8, (number, self.features.shape[-1]))
        if self.spec.features == "pixels":
            _expect("features", self.features, np.uint8, (number, prod(shape)))
        if self.stored_images is not None:
            _expect("images", self.stored_images, np.uint8, (number, *shape))
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes: found {self.classes!r:.200}; expected distinct names")
        if number and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise ValueError(
                f"labels: found {self.labels.min()} to {self.labels.max()};"
                f" expected 0 to {len(self.classes) - 1}, for {len(self.classes)} classes"
            )
        self._check_names()

    def _check_names(self) -> None:
        names = self.names
        if names.dtype != np.uint8 or names.ndim != 1:
            raise ValueError(f"names: found {names.shape} {names.dtype}; expected (M,) uint8")
        if not len(names):
            return
        try:
            number = len(Lines(names))
        except UnicodeDecodeError as error:
            raise ValueError(f"names: found {error.reason}; expected UTF-8") from None
        if number != len(self):
            raise ValueError(f"names: found {number}; expected {len(self)}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def pictures(self) -> list[str]:
        """The N pictures' names; their numbers if they have no names."""
        *names, _ = self.names.tobytes().decode().split("\n")
        return names or [str(index) for index in range(len(self))]

    @property
    def images(self) -> Images:
        """(N, C, H, W): the stored images, or else the features, if those are the pixels.

        Raises ValueError if the split has no images.
        """
        if self.stored_images is not None:
            return self.stored_images
        if not self.spec.shows_images:
            raise ValueError("found features but no images; expected both, as in a test split")
        return self.features.reshape(len(self), *self.spec.image_shape)

    def batches(self, batch_size: int) -> Iterator[tuple[Features, Labels]]:
        """The features and labels of all examples in order; the last batch may be smaller."""
        for start in range(0, len(self), batch_size):
            yield self.features[start : start + batch_size], self.labels[start : start + batch_size]

    def save(self, path: Path) -> None:
        """Write the file that `load` reads."""
        images = self.stored_images
        with whole_file(path) as part:
            create_split(
                part,
                self.labels,
                self.pictures if len(self.names) else (),
                self.classes,
                self.spec,
                self.features.shape[1],
                images is not None,
                self.origin,
            )
            write_rows(part, 0, [(self.features, self.features if images is None else images)])

    @classmethod
    def load(cls, path: Path) -> "Split":
        """Read a split's file; the arrays stay on disk, mapped, and cannot be written to.

        Raises FileNotFoundError, or ValueError if the file is not a valid split.
        """
        with valid(path, "split", "tensorize"):
            with safe_open(path, framework="np") as file:  # checks the file
                about = metadata(file, "split", {"classes", "input", "origin"})
            arrays = mapped(path, DTYPES, OPTIONAL)
            return cls(
                arrays["features"],
                arrays["labels"],
                class_names(about),
                InputSpec.from_json(about["input"]),
                arrays["names"],
                arrays.get("images"),
                Origin.from_json(about["origin"]),
            )


def _expect(name: str, array: NDArray[Any], dtype: Any, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(
            f"{name}: found {array.shape} {array.dtype}; expected {shape} {np.dtype(dtype)}"
        )


def create_split(
    path: Path,
    labels: Labels,
    names: Iterable[str],
    classes: Sequence[str],
    spec: InputSpec,
    feature_count: int,
    with_images: bool,
    origin: Origin = UNKNOWN,
) -> None:
    """Write a split's file but for its features and, if it is `with_images`, images.

    `write_rows` writes those. The file's bytes depend on the content alone.
    """
    number = len(labels)
    lines = np.frombuffer("".join(f"{name}\n" for name in names).encode(), np.uint8)
    shapes: dict[str, tuple[int, ...]] = {"labels": (number,), "features": (number, feature_count)}
    if with_images:
        shapes["images"] = (number, *spec.image_shape)
    shapes["names"] = lines.shape
    about = {"classes": classes, "input": spec.to_json(), "origin": origin.to_json()}
    create(
        path,
        {name: (DTYPES[name], shape) for name, shape in shapes.items()},
        {"split": json.dumps(about, ensure_ascii=False)},
        {"labels": labels, "names": lines},
    )


def write_rows(path: Path, first: int, chunks: Iterable[tuple[Features, Images]]) -> None:
    """Write features and images, chunk by chunk, from row `first` on, into a split's file.

    Several processes may do this at once, on several machines, each for rows of its own.
    """
    places = {}
    for name, (_, (_, *row), start) in layout(path).items():
        if name in ("features", "images"):
            places[name] = start + first * prod(row)
    # Write-only: what a client of NFS may read, it reads, and writes back in pages, over the rows
    # beside it that another machine has written since.
    with os.fdopen(os.open(path, os.O_WRONLY), "wb") as file:
        for features, images in chunks:
            for name, rows in (("features", features), ("images", images)):
                if name in places:
                    file.seek(places[name])
                    places[name] += file.write(np.ascontiguousarray(rows).data)
