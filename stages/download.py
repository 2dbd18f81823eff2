"""Fetch a data set by its name, or copy the user's own pictures.

Out: a folder with the files, checked, and dataset.json, which says how to read them:
- {"format": "idx", "classes": [...]}: the four IDX files of a data set in `known_datasets`;
- {"format": "torchvision", "class": ..., "train": {...}, "test": {...}}: the files that this class
  in torchvision.datasets reads, with its arguments for each split;
- {"format": "pictures", "folders": {"train": ...}}: the folders train/CLASS and perhaps test/CLASS,
  and which of the user's folders each was;
- {"format": "shards", "folders": ...}: tar files in the folders train and perhaps test, each with
  an index.
What came from a URL has "objects" too, the SHA-256 of each file there.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from pydantic import Field, field_validator
from typer import Option

from stages.base.canonical_text import json_text
from stages.base.command import run
from stages.base.params import Params
from stages.base.whole_files import real_path, whole_folder, write_text
from stages.sources.archives import is_archive
from stages.sources.known_datasets import DATASETS, fetch
from stages.sources.own_pictures import copy_pictures
from stages.sources.remote_folders import fetch_folder, is_url, title
from stages.sources.shards import copy_shards, shards_in
from stages.sources.torchvision_datasets import (
    TORCHVISION_DATASETS,
    UNUSABLE,
    listing,
    similar_names,
)
from stages.sources.torchvision_downloads import fetch_torchvision_dataset

DESCRIPTION = "dataset.json"
PICTURES = "a folder, zip or tar of pictures with one sub-folder per class"
AFTER_A_CHANGE = "after one, run `dvc repro -f -s download`, then `dvc repro`"


class DownloadParams(Params):
    """Section `download` of params.yaml."""

    dataset: str = Field(
        description=f"a data set's name (see --list), the path or URL of shards or of {PICTURES}"
    )

    @field_validator("dataset")
    @classmethod
    def _exists(cls, dataset: str) -> str:
        if reason := UNUSABLE.get(dataset):
            raise ValueError(
                f"a usable data set (`python -m stages.download --list`); not usable: {reason}"
            )
        if dataset in TORCHVISION_DATASETS or is_url(dataset) or _exists(_path(dataset)):
            return dataset
        if _exists(_path(f"{dataset}.dvc")):
            raise ValueError(f"pictures that are here: `dvc pull {dataset}.dvc` fetches them")
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
    elif is_url(name):
        with whole_folder(raw) as part:
            with TemporaryDirectory(prefix=".fetched.", suffix=".part", dir=part) as scratch:
                objects = fetch_folder(name, Path(scratch))
                form = _copy_fetched(Path(scratch), name, part)
            _describe(part, title(name), {**form, "objects": objects})
        print(f"note: DVC does not notice changes to {name}; {AFTER_A_CHANGE}")
    else:
        source = _path(name)
        inner, outer = real_path(raw), real_path(source)
        if inner.is_relative_to(outer) or outer.is_relative_to(inner):
            raise ValueError(f"{name}: overlaps with {raw}; expected pictures outside of it")
        with whole_folder(raw) as part:
            folder_name = outer.name if outer.is_dir() else outer.name.partition(".")[0]
            _describe(part, folder_name, _copy(source, part, str(PurePath(name)), shutil.copyfile))
        if not outer.is_relative_to(real_path(watched)):
            print(
                f"note: {name} is outside of {watched}, so DVC does not notice changes to it;"
                f" {AFTER_A_CHANGE}"
            )


def _copy(
    source: Path, raw: Path, shown: str, place: Callable[[Path, Path], Any]
) -> Mapping[str, Any]:
    """Put pictures or shards, which the user calls `shown`, into `raw`; return their format."""
    if source.is_dir() and shards_in(source):
        splits = copy_shards(source, raw, place)
        names = {split: f"{shown}/{split}" if len(splits) > 1 else shown for split in splits}
        return {"folders": names, "format": "shards"}
    folders = copy_pictures(source, raw, place)
    names = {
        split: f"{shown}/{folder}" if folder.parts else shown for split, folder in folders.items()
    }
    return {"folders": names, "format": "pictures"}


def _copy_fetched(folder: Path, url: str, raw: Path) -> Mapping[str, Any]:
    """Move what was fetched from `url`, a folder's content or an archive; return its format."""
    files = [path for path in folder.iterdir() if path.is_file()]
    is_alone = len(files) == len(list(folder.iterdir())) == 1
    source = files[0] if is_alone and is_archive(files[0]) else folder
    try:
        return _copy(source, raw, url.rstrip("/"), Path.rename)
    except ValueError as error:
        raise ValueError(str(error).replace(str(source), url)) from None


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
        "handwriting": published.handwriting if published else False,
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
    folder, or an http(s) or s3 URL, that holds the files (for MNIST and FashionMNIST plain or
    gzipped).
    """
    download(DownloadParams.load(params, "download"), watched, raw)


if __name__ == "__main__":
    run(main, DownloadParams)
