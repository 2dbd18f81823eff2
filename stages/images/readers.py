"""What `download` left -> pictures and their labels; the only place that knows formats.

The folder's file `dataset.json` names the format: `idx` (MNIST's), `pictures` (a sub-folder a
class) or `torchvision` (whatever its class reads).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stages.formats.idx import read_idx
from stages.images.decoding import Pictures
from stages.images.folders import pictures_by_class
from stages.images.preprocessing import open_picture, reason
from stages.images.stored_images import StoredImages

IDX_SPLITS = (("train", "train"), ("test", "t10k"))  # and how their files' names begin
REMEDY = "`dvc repro -f download` makes it anew"


@dataclass(frozen=True)
class SourceSplit:
    """One split as it was downloaded; `stored` if its images lie in a file as they are."""

    name: str
    pictures: Pictures
    stored: StoredImages | None = None


@dataclass(frozen=True)
class Source:
    """A data set as it was downloaded. Without a test split of its own, `test` is None.

    Label i is `classes[i]`; where that is None, it is those of `names` that occur.
    """

    classes: tuple[str, ...] | None
    train: SourceSplit
    test: SourceSplit | None
    names: tuple[str, ...] = ()


def read_source(raw: Path) -> Source:
    """Open the folder `raw`; nothing is decoded yet.

    Raises FileNotFoundError, or a ValueError that says what is wrong with the folder.
    """
    path = raw / "dataset.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {REMEDY}")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        read = {"idx": _idx, "pictures": _pictures, "torchvision": _torchvision}[about["format"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: does not name a known format ({error}); {REMEDY}") from None
    return read(raw, about)


def _pictures(raw: Path, _: Any) -> Source:
    train = pictures_by_class(raw / "train")
    test = pictures_by_class(raw / "test") if (raw / "test").is_dir() else None
    classes = tuple(sorted(set(train) | set(test or ())))
    return Source(
        classes,
        _folder_split(raw, "train", classes, train),
        _folder_split(raw, "test", classes, test) if test is not None else None,
    )


def _folder_split(
    raw: Path, name: str, classes: Sequence[str], paths: dict[str, list[str]]
) -> SourceSplit:
    items = [path for of in classes for path in paths.get(of, ())]
    opener = _FolderOpener(f"{raw}/{name}", {of: label for label, of in enumerate(classes)})
    return SourceSplit(name, Pictures(items, opener, f"{name}/{{}}".format))


@dataclass(frozen=True)
class _FolderOpener:
    """Opens the path CLASS/... in `folder`."""

    folder: str
    labels: dict[str, int]

    def __call__(self, item: str) -> tuple[Image.Image, int]:
        return open_picture(f"{self.folder}/{item}"), self.labels[item.partition("/")[0]]


def _idx(raw: Path, about: Any) -> Source:
    classes = tuple(about["classes"])
    train, test = (_idx_split(raw, *names, classes) for names in IDX_SPLITS)
    return Source(classes, train, test)


def _idx_split(raw: Path, name: str, files: str, classes: Sequence[str]) -> SourceSplit:
    images_path, labels_path = (
        raw / f"{files}-images-idx3-ubyte",
        raw / f"{files}-labels-idx1-ubyte",
    )
    images, labels = read_idx(images_path, dimensions=3), read_idx(labels_path, dimensions=1)
    if len(images) != len(labels):
        raise ValueError(
            f"{labels_path}: {len(labels)} labels for the {len(images)} images of {images_path};"
            f" {REMEDY}"
        )
    if len(labels) and labels.max() >= len(classes):
        raise ValueError(
            f"{labels_path}: label {labels.max()}, but there are {len(classes)} classes; {REMEDY}"
        )
    stored = StoredImages(
        images_path.open("rb"), images.offset, (1, *images.shape[1:]), labels.astype(np.int64)
    )
    pictures = Pictures(
        range(len(images)),
        _IdxOpener(images_path, labels_path),
        f"{name}/{{}}".format,
    )
    return SourceSplit(name, pictures, stored)


@dataclass(frozen=True)
class _Opener:
    """What a process has opened stays its own: what is sent to others are the fields alone."""

    def __getstate__(self) -> Any:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class _IdxOpener(_Opener):
    """Opens image i; each process maps the files for itself."""

    images_path: Path
    labels_path: Path

    @cached_property
    def _arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        return read_idx(self.images_path, 3), read_idx(self.labels_path, 1)

    def __call__(self, item: int) -> tuple[Image.Image, int]:
        images, labels = self._arrays
        return Image.fromarray(images[item]), int(labels[item])


def _torchvision(raw: Path, about: Any) -> Source:
    openers = {
        split: _TorchvisionOpener(raw, about["class"], tuple(about[split].items()))
        for split in ("train", "test")
    }
    train, test = (
        SourceSplit(
            split,
            Pictures(
                range(len(opener.dataset)),
                opener,
                f"{split}/{{}}".format,
                1 if opener.in_memory else None,
            ),
        )
        for split, opener in openers.items()
    )
    return Source(None, train, test, openers["train"].classes)


@dataclass(frozen=True)
class _TorchvisionOpener(_Opener):
    """Opens image i of a split of torchvision's data set; each process reads it for itself."""

    raw: Path
    class_name: str
    arguments: tuple[tuple[str, Any], ...]

    @cached_property
    def dataset(self) -> Any:
        from torchvision import datasets  # takes seconds to import, and is seldom needed

        try:
            return getattr(datasets, self.class_name)(root=self.raw, **dict(self.arguments))
        except RuntimeError as error:
            raise ValueError(f"{self.raw}: {self.class_name}: {error}; {REMEDY}") from None

    @property
    def in_memory(self) -> bool:
        """Whether there is nothing to decode, so that more processes would only hold copies."""
        return hasattr(self.dataset, "data")

    @property
    def classes(self) -> tuple[str, ...]:
        """The names that the class gives; none if it gives none."""
        return tuple(map(str, getattr(self.dataset, "classes", ())))

    def __call__(self, item: int) -> tuple[Image.Image, int]:
        try:
            image, label = self.dataset[item]
        except Exception as error:  # a broken file leads to any
            raise ValueError(reason(error)) from None
        return image, int(label)
