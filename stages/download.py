"""The name of a data set, or the path of pictures -> a folder that holds and describes them.

Out: a folder with the files, checked, and dataset.json, which tells how to read them:
- {"format": "idx", "classes": [...]}: four IDX files; `sources` tells whence;
- {"format": "torchvision", "class": ..., "train": {...}, "test": {...}}: what that class in
  torchvision.datasets reads, with its arguments for each split; `published` tells whence;
- {"format": "pictures"}: train/CLASS/... and perhaps test/CLASS/...; `layout` tells from what.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field, field_validator
from typer import Option

from stages.base.command import run
from stages.base.params import Params
from stages.base.whole_files import whole_folder, write_text
from stages.sources.known_datasets import DATASETS, fetch
from stages.sources.own_pictures import take_pictures
from stages.sources.torchvision_datasets import closest, is_name, published, table
from stages.sources.torchvision_downloads import fetch_published

ABOUT = "dataset.json"


class DownloadParams(Params):
    """Section `download` of params.yaml."""

    dataset: str = Field(
        description="a data set's name (--list names all), or the path of a folder, zip or tar of"
        " pictures with a sub-folder a class"
    )

    @field_validator("dataset")
    @classmethod
    def _exists(cls, dataset: str) -> str:
        if is_name(dataset) or _path(dataset).exists():
            return dataset
        close = closest(dataset)
        raise ValueError(
            "a data set's name (`python -m stages.download --list`), or the path of a folder, zip"
            f" or tar of pictures{f'; did you mean {close}?' if close else ''}"
        )


def download(params: DownloadParams, watched: Path, raw: Path) -> None:
    """Put the data set into the folder `raw`, in place of what stands there, once it is complete.

    A name that is a data set's is one; a folder that is called the same is named with `./`. For
    pictures from outside of `watched` there is a note that DVC does not see them change.
    """
    name, mirror = params.dataset, os.environ.get("DATASET_MIRROR")
    _check_replaceable(raw)
    if name in DATASETS:
        with whole_folder(raw) as part:
            for file in DATASETS[name].files:
                if (raw / file).is_file():
                    shutil.copyfile(raw / file, part / file)  # it stays if its content is right
            fetch(name, part, mirror)
            _describe(part, {"classes": DATASETS[name].classes, "format": "idx"})
    elif is_name(name):
        dataset = published(name)
        with whole_folder(raw) as part:
            fetch_published(dataset, part, mirror)
            _describe(
                part,
                {
                    "class": dataset.torchvision_class,
                    "format": "torchvision",
                    "train": dataset.train,
                    "test": dataset.test,
                },
            )
    else:
        source = _path(name)
        inner, outer = raw.resolve(), source.resolve()
        if inner.is_relative_to(outer) or outer.is_relative_to(inner):
            raise ValueError(f"{name}: holds {raw}, or lies in it; expected a place apart from it")
        with whole_folder(raw) as part:
            take_pictures(source, part)
            _describe(part, {"format": "pictures"})
        if not outer.is_relative_to(watched.resolve()):
            print(
                f"note: {name} is not in {watched}: DVC does not see it change;"
                " `dvc repro -f download`, then `dvc repro`, take it anew"
            )


def _path(dataset: str) -> Path:
    try:
        return Path(dataset).expanduser()
    except RuntimeError:  # there is no such user
        return Path(dataset)


def _check_replaceable(raw: Path) -> None:
    """Raise ValueError if `raw` holds what no data set left there: it would be lost."""
    if not raw.exists() or (raw.is_dir() and (raw / ABOUT).exists()):
        return
    known = {file for dataset in DATASETS.values() for file in dataset.files}
    if not raw.is_dir() or not {path.name for path in raw.iterdir()} <= known:
        raise ValueError(
            f"{raw}: holds something else than a data set, which would be lost; move it away"
        )


def _describe(folder: Path, about: dict[str, Any]) -> None:
    text = json.dumps(about, ensure_ascii=False, indent=2, sort_keys=True)
    write_text(folder / ABOUT, f"{text}\n")


def _list(wanted: bool) -> None:
    if wanted:
        print(table())
        raise typer.Exit


def main(
    params: Annotated[Path, Option(help="in: the file with the section `download`")],
    watched: Annotated[Path, Option(help="in: the folder for pictures, which DVC watches")],
    raw: Annotated[Path, Option(help="out: the folder for the data set's files")],
    _: Annotated[
        bool,
        Option("--list", help="name the data sets, then exit", is_eager=True, callback=_list),
    ] = False,
) -> None:
    """Fetch a data set and check its content, or take pictures of your own.

    The environment variable DATASET_MIRROR names a mirror of yours, a folder or an http(s) URL
    that holds the files, those of MNIST and FashionMNIST plain or gzipped; it is tried before the
    public ones.
    """
    download(DownloadParams.load(params, "download"), watched, raw)


if __name__ == "__main__":
    run(main, DownloadParams)
