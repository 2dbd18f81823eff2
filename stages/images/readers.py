"""The folder that `download` left -> pictures and their labels; the only place that knows formats.

The folder's file `dataset.json` names the format: `idx` (MNIST's), `pictures` (a sub-folder per
class), `shards` (tar files with an index) or `torchvision` (whatever one of its classes reads).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from io import BytesIO
from operator import add
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Field, RootModel, ValidationError

from stages.formats.idx import read_idx
from stages.formats.origin import UNKNOWN, Origin
from stages.formats.shard_index import ShardIndex, ShardPicture
from stages.images.decoding import Pictures
from stages.images.folders import pictures_by_class
from stages.images.preprocessing import open_picture, read_picture, reason
from stages.images.stored_images import StoredImages

REMEDY = "`dvc repro -f -s download` regenerates it"


@dataclass(frozen=True)
class RawSplit:
    """A split as it was downloaded; `stored` if the images need no decoding."""

    name: str
    pictures: Pictures
    stored: StoredImages | None = None


@dataclass(frozen=True)
class Dataset:
    """A data set as it was downloaded. `test` is None if it has no test split.

    Label i is the class `classes[i]`, unless that is None (see `name_classes`): then `label_names`
    has the names that torchvision gives to labels, if any. `folder` is where the user's own
    training pictures came from, with which their names begin.
    """

    classes: tuple[str, ...] | None
    train: RawSplit
    test: RawSplit | None
    label_names: tuple[str, ...] = ()
    origin: Origin = UNKNOWN
    handwriting: bool = False
    folder: str | None = None

    def key_of(self, name: str) -> str:
        """A training picture's name wherever its folder stands: moving it changes no split."""
        return name if self.folder is None else "train" + name.removeprefix(self.folder)


class _OriginDescription(BaseModel):
    name: str = "unnamed"
    licence: str | None = None
    source: str | None = None
    handwriting: bool = False


class _IdxDescription(_OriginDescription):
    format: Literal["idx"]
    classes: tuple[str, ...]


class _PicturesDescription(_OriginDescription):
    format: Literal["pictures"]
    folders: dict[str, str] = {}  # split -> the user's folder that its pictures came from


class _ShardsDescription(_OriginDescription):
    format: Literal["shards"]
    folders: dict[str, str] = {}  # the user's, by split


class _TorchvisionDescription(_OriginDescription):
    format: Literal["torchvision"]
    class_name: str = Field(alias="class")
    train: dict[str, Any]  # the arguments that select the split
    test: dict[str, Any]


class _Description(
    RootModel[
        Annotated[
            _IdxDescription | _PicturesDescription | _ShardsDescription | _TorchvisionDescription,
            Field(discriminator="format"),
        ]
    ]
):
    """What `dataset.json` holds."""


def read_dataset(raw: Path) -> Dataset:
    """Open the folder `raw`; nothing is decoded yet.

    Raises FileNotFoundError, or a ValueError that says what is wrong with the folder.
    """
    path = raw / "dataset.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {REMEDY}")
    try:
        about = _Description.model_validate_json(path.read_bytes()).root
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"][1:]))
        message = f"{where}: {problem['msg']}" if where else problem["msg"]
        raise ValueError(
            f"{path}: not the description of a data set ({message[:200]}); {REMEDY}"
        ) from None
    if isinstance(about, _IdxDescription):
        dataset = _idx(raw, about.classes)
    elif isinstance(about, _TorchvisionDescription):
        dataset = _torchvision(raw, about)
    elif isinstance(about, _ShardsDescription):
        dataset = _shards(raw, about.folders)
    else:
        splits = ("train", "test") if (raw / "test").is_dir() else ("train",)
        dataset = folder_dataset({split: raw / split for split in splits}, about.folders)
    origin = Origin(about.name, about.licence, about.source)
    return replace(dataset, origin=origin, handwriting=about.handwriting)


def folder_dataset(folders: Mapping[str, Path], shown: Mapping[str, str]) -> Dataset:
    """The pictures in the folder of `train`, and of `test` if there is one, by class.

    Their names begin with what `shown` has for their split, or else the split's name.
    """
    paths = {split: pictures_by_class(folder) for split, folder in folders.items()}
    classes = tuple(sorted(set().union(*paths.values())))
    labels = {name: label for label, name in enumerate(classes)}
    splits: dict[str, RawSplit] = {}
    for split, folder in folders.items():
        items = [path for name in classes for path in paths[split].get(name, ())]
        name_of = partial(add, f"{shown.get(split, split)}/")
        pictures = Pictures(items, _FolderOpener(str(folder), labels), name_of)
        splits[split] = RawSplit(split, pictures)
    return Dataset(classes, splits["train"], splits.get("test"), folder=shown.get("train"))


@dataclass(frozen=True)
class _FolderOpener:
    """Opens the path CLASS/... in `folder`."""

    folder: str
    labels: dict[str, int]

    def __call__(self, item: str) -> tuple[Image.Image, int]:
        return open_picture(f"{self.folder}/{item}"), self.labels[item.partition("/")[0]]


def _shards(raw: Path, shown: Mapping[str, str]) -> Dataset:
    train = ShardIndex.load(raw / "train")
    test = ShardIndex.load(raw / "test") if (raw / "test").is_dir() else None
    if test and test.classes != train.classes:
        raise ValueError(f"{raw}: found other classes in test than in train; {REMEDY}")
    return Dataset(
        train.classes,
        _shard_split(raw, "train", train, shown),
        _shard_split(raw, "test", test, shown) if test else None,
        folder=shown.get("train"),
    )


def _shard_split(raw: Path, split: str, index: ShardIndex, shown: Mapping[str, str]) -> RawSplit:
    opener = _ShardOpener(f"{raw}/{split}", shown.get(split, split))
    return RawSplit(split, Pictures(index, opener, opener.name_of))


@dataclass(frozen=True)
class _ShardOpener:
    """Opens pictures in the shards of `folder`; their names begin with `shown`."""

    folder: str
    shown: str

    def name_of(self, item: ShardPicture) -> str:
        return f"{self.shown}/{item.name}"

    def __call__(self, item: ShardPicture) -> tuple[Image.Image, int]:
        with open(f"{self.folder}/{item.shard}", "rb", buffering=0) as file:  # noqa: PTH123  # faster than Path
            file.seek(item.start)
            content = file.read(item.size)
        if len(content) < item.size:
            raise ValueError(f"{item.shard}: cut off; {REMEDY}")
        return read_picture(BytesIO(content)), item.label


def _idx(raw: Path, classes: tuple[str, ...]) -> Dataset:
    return Dataset(
        classes,
        _idx_split(raw, "train", "train", classes),
        _idx_split(raw, "test", "t10k", classes),
    )


def _idx_split(raw: Path, split: str, prefix: str, classes: Sequence[str]) -> RawSplit:
    images_path = raw / f"{prefix}-images-idx3-ubyte"
    labels_path = raw / f"{prefix}-labels-idx1-ubyte"
    images, labels = read_idx(images_path, dimensions=3), read_idx(labels_path, dimensions=1)
    if len(images) != len(labels):
        raise ValueError(
            f"{labels_path}: found {len(labels)} labels; expected {len(images)}, one per image of"
            f" {images_path}; {REMEDY}"
        )
    if len(labels) and labels.max() >= len(classes):
        raise ValueError(
            f"{labels_path}: found label {labels.max()}; expected less than {len(classes)}, the"
            f" number of classes; {REMEDY}"
        )
    items = range(len(images))
    pictures = Pictures(items, _IdxOpener(images_path, labels_path), f"{split}/{{}}".format)
    stored = StoredImages(
        images_path.open("rb"),
        images.offset,
        (1, *images.shape[1:]),
        np.arange(len(images)),
        labels.astype(np.int64),
        pictures.name_at,
    )
    return RawSplit(split, pictures, stored)


@dataclass(frozen=True)
class _Opener:
    """Other processes get its fields alone, not what this one has opened."""

    def __getstate__(self) -> Any:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class _IdxOpener(_Opener):
    """Opens image i; each process maps the files itself."""

    images_path: Path
    labels_path: Path

    @cached_property
    def _arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        return read_idx(self.images_path, 3), read_idx(self.labels_path, 1)

    def __call__(self, item: int) -> tuple[Image.Image, int]:
        images, labels = self._arrays
        return Image.fromarray(images[item]), int(labels[item])


def _torchvision(raw: Path, about: _TorchvisionDescription) -> Dataset:
    train, test = (
        _TorchvisionOpener(raw, about.class_name, tuple(arguments.items()))
        for arguments in (about.train, about.test)
    )
    return Dataset(None, train.split("train"), test.split("test"), train.label_names)


@dataclass(frozen=True)
class _TorchvisionOpener(_Opener):
    """Opens image i of a split of a torchvision data set, which each process reads itself."""

    raw: Path
    class_name: str
    arguments: tuple[tuple[str, Any], ...]

    @cached_property
    def dataset(self) -> Any:
        from torchvision import datasets  # slow to import, and rarely needed

        try:
            return getattr(datasets, self.class_name)(root=self.raw, **dict(self.arguments))
        except Exception as error:  # a missing, broken or unexpected file leads to any
            raise ValueError(f"{self.raw}: {self.class_name}: {reason(error)}; {REMEDY}") from None

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names that the class gives to labels, if any."""
        return tuple(map(str, getattr(self.dataset, "classes", ())))

    def split(self, name: str) -> RawSplit:
        """All its images."""
        in_memory = hasattr(self.dataset, "data")  # more processes would only hold copies
        processes = 1 if in_memory else None
        items = range(len(self.dataset))
        return RawSplit(name, Pictures(items, self, f"{name}/{{}}".format, processes))

    def __call__(self, item: int) -> tuple[Image.Image, int]:
        try:
            image, label = self.dataset[item]
        except Exception as error:  # a broken picture can make torchvision raise anything
            raise ValueError(reason(error)) from None
        return image, int(label)
