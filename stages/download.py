"""Fetch a data set by its name, or copy the user's own pictures.

Out: a folder with the files, checked, and dataset.json, which says how to read them:
- {"format": "idx", "classes": [...]}: the four IDX files of a data set in `known_datasets`;
- {"format": "torchvision", "class": ..., "train": {...}, "test": {...}}: the files that this class
  in torchvision.datasets reads, with its arguments for each split;
- {"format": "pictures"}: the folders train/CLASS and perhaps test/CLASS.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field, field_validator
from typer import Option

from stages.base.canonical_text import json_text
from stages.base.command import run
from stages.base.params import Params
from stages.base.whole_files import real_path, whole_folder, write_text
from stages.sources.known_datasets import DATASETS, fetch
from stages.sources.own_pictures import copy_pictures
from stages.sources.torchvision_datasets import (
    TORCHVISION_DATASETS,
    UNUSABLE,
    listing,
    similar_names,
)
from stages.sources.torchvision_downloads import fetch_torchvision_dataset

DESCRIPTION = "dataset.json"
PICTURES = "a folder, zip or tar of pictures with one sub-folder per class"


class DownloadParams(Params):
    """Section `download` of params.yaml."""

    dataset: str = Field(description=f"a data set's name (see --list), or the path of {PICTURES}")

    @field_validator("dataset")
    @classmethod
    def _exists(cls, dataset: str) -> str:
        if reason := UNUSABLE.get(dataset):
            raise ValueError(
                f"a usable data set (`python -m stages.download --list`); not usable: {reason}"
            )
        if dataset in TORCHVISION_DATASETS or _exists(_path(dataset)):
            return dataset
        similar = ", ".join(similar_names(dataset))
        raise ValueError(
            "a data set's name (`python -m stages.download --list`), or the path of a folder, zip"
            f" or tar of pictures{f'; did you mean {similar}?' if similar else ''}"
        )


def download(params: DownloadParams, watched: Path, raw: Path) -> None:
    """Put the data set into the folder `raw`, replacing what is there once it is complete.

    A name that is both a data set's and a folder's means the data set; `./` before it means the
    folder. For pictures outside `watched`, a note says that DVC does not notice their changes.
    """
    name, mirror = params.dataset, os.environ.get("DATASET_MIRROR")
    _check_replaceable(raw)
    if known := DATASETS.get(name):
        with whole_folder(raw) as part:
            for file in known.files:
                if (raw / file).is_file():
                    shutil.copyfile(raw / file, part / file)  # kept if its content is right
            fetch(name, part, mirror)
            _describe(part, name, {"classes": known.classes, "format": "idx"})
    elif dataset := TORCHVISION_DATASETS.get(name):
        with whole_folder(raw) as part:
            fetch_torchvision_dataset(dataset, part, mirror)
            splits = {"train": dataset.train, "test": dataset.test}
            description = {"class": dataset.class_name, "format": "torchvision", **splits}
            _describe(part, name, description)
    else:
        source = _path(name)
        inner, outer = real_path(raw), real_path(source)
        if inner.is_relative_to(outer) or outer.is_relative_to(inner):
            raise ValueError(f"{name}: overlaps with {raw}; expected pictures outside of it")
        with whole_folder(raw) as part:
            copy_pictures(source, part)
            title = outer.name if outer.is_dir() else outer.name.partition(".")[0]
            _describe(part, title, {"format": "pictures"})
        if not outer.is_relative_to(real_path(watched)):
            print(
                f"note: {name} is outside of {watched}, so DVC does not notice changes to it;"
                " after one, run `dvc repro -f -s download`, then `dvc repro`"
            )


def _path(dataset: str) -> Path:
    return Path(os.path.expanduser(dataset))  # noqa: PTH111  # Path's own raises for unknown users


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long a name, for one
        return False


def _check_replaceable(raw: Path) -> None:
    """Raise ValueError if `raw` is there and was not left by this stage: it would be lost."""
    if not raw.exists() or (raw.is_dir() and (raw / DESCRIPTION).exists()):
        return
    idx_files = {file for known in DATASETS.values() for file in known.files}
    if not raw.is_dir() or not {path.name for path in raw.iterdir()} <= idx_files:
        raise ValueError(
            f"{raw}: found something other than a data set, which would be lost; move it away"
        )


def _describe(folder: Path, name: str, description: Mapping[str, Any]) -> None:
    published = TORCHVISION_DATASETS.get(name)
    origin = {
        "licence": published.licence if published else None,
        "name": name,
        "source": published.source if published else None,
    }
    write_text(folder / DESCRIPTION, json_text({**description, **origin}))


def _list(wanted: bool) -> None:
    if wanted:
        print(f"{listing()}\n\nOr the path of {PICTURES},")
        print("with or without folders train and test around these.")
        raise typer.Exit


def main(
    params: Annotated[Path, Option(help="in: the file with the section `download`")],
    watched: Annotated[Path, Option(help="in: the folder of pictures that DVC watches")],
    raw: Annotated[Path, Option(help="out: the folder for the data set's files")],
    _: Annotated[
        bool, Option("--list", help="list the data sets and exit", is_eager=True, callback=_list)
    ] = False,
) -> None:
    """Fetch a data set and check its content, or copy your own pictures.

    The environment variable DATASET_MIRROR names a mirror of your own, which is tried first: a
    folder or an http(s) URL that holds the files (for MNIST and FashionMNIST plain or gzipped).
    """
    download(DownloadParams.load(params, "download"), watched, raw)


if __name__ == "__main__":
    run(main, DownloadParams)
