"""Split, the contract between the stages, and the file that holds one.

Shapes, everywhere in this project: N examples, images of C channels, H rows and W columns,
D features, K classes.

The file is safetensors: labels (N,) int64, features (N, D) uint8, optionally images (N, C, H, W)
uint8, and the pictures' names, each followed by a line feed, as uint8. The classes, the input spec
and the origin are in its metadata.
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
from safetensors import safe_open

from stages.base.whole_files import whole_file
from stages.formats.input_spec import InputSpec
from stages.formats.metadata import class_names, metadata, valid
from stages.formats.origin import UNKNOWN, Origin

Images = NDArray[np.uint8]  # (N, C, H, W)
Features = NDArray[np.uint8]  # (N, D)
Labels = NDArray[np.int64]  # (N,)

DTYPES = {"features": "U8", "images": "U8", "labels": "I64", "names": "U8"}  # as in the file
REQUIRED = DTYPES.keys() - {"images"}


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
        if names[-1] != ord("\n"):
            raise ValueError("names: found no line feed at the end; expected one after each name")
        try:
            number = len(self.pictures)
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
            write_split(
                part,
                [(self.features, self.features if images is None else images)],
                self.labels,
                self.pictures if len(self.names) else (),
                self.classes,
                self.spec,
                self.features.shape[1],
                images is not None,
                self.origin,
            )

    @classmethod
    def load(cls, path: Path) -> "Split":
        """Read a split's file; the arrays stay on disk, mapped, and cannot be written to.

        Raises FileNotFoundError, or ValueError if the file is not a valid split.
        """
        with valid(path, "split", "tensorize"):
            with safe_open(path, framework="np") as file:  # checks the file
                about = metadata(file, "split", {"classes", "input", "origin"})
            arrays = _mapped(path)
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


def _mapped(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays in a split's file; raises ValueError if they are not those of a split.

    safetensors maps a file copy-on-write, which Linux refuses if it is larger than the memory.
    """
    with path.open("rb") as file:
        content = mmap(file.fileno(), 0, access=ACCESS_READ)
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    del header["__metadata__"]
    found = {name: entry["dtype"] for name, entry in header.items()}
    if found != {name: kind for name, kind in DTYPES.items() if name in {*header, *REQUIRED}}:
        raise ValueError(f"found tensors {found!r:.200}; expected {DTYPES}, images optional")
    arrays = {}
    for name, entry in header.items():
        dtype, shape = {"U8": "u1", "I64": "<i8"}[entry["dtype"]], entry["shape"]
        offset = start + entry["data_offsets"][0]
        arrays[name] = np.frombuffer(content, dtype, prod(shape), offset).reshape(shape)
    return arrays


def write_split(
    path: Path,
    chunks: Iterable[tuple[Features, Images]],
    labels: Labels,
    names: Sequence[str],
    classes: Sequence[str],
    spec: InputSpec,
    feature_count: int,
    with_images: bool,
    origin: Origin = UNKNOWN,
) -> None:
    """Write a split's file: features and their images, chunk by chunk.

    The images are written only if `with_images`. The bytes depend on the content alone. They are
    those that safetensors itself would write (github.com/huggingface/safetensors, "Format"), but
    safetensors needs the whole file in memory.
    """
    number = len(labels)
    lines = "".join(f"{name}\n" for name in names).encode()
    shapes: dict[str, tuple[int, ...]] = {"labels": (number,), "features": (number, feature_count)}
    if with_images:
        shapes["images"] = (number, *spec.image_shape)
    shapes["names"] = (len(lines),)

    about = {"classes": classes, "input": spec.to_json(), "origin": origin.to_json()}
    header: dict[str, Any] = {"__metadata__": {"split": json.dumps(about, ensure_ascii=False)}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + prod(shape) * (8 if name == "labels" else 1)
        dtype = "I64" if name == "labels" else "U8"
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": (start, end)}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    at = {name: 8 + len(text) + header[name]["data_offsets"][0] for name in shapes}

    with path.open("wb") as file:

        def write(name: str, content: bytes) -> None:
            file.seek(at[name])
            at[name] += file.write(content)

        file.write(len(text).to_bytes(8, "little") + text)
        write("labels", labels.astype("<i8").tobytes())
        for features, images in chunks:
            write("features", features.tobytes())
            if with_images:
                write("images", images.tobytes())
        write("names", lines)
