"""The name of a data set -> its files, uncompressed and checked.

Out: a folder with the data set's files. Their checksums and sources stand in `sources`.
"""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from typer import Option

from stages.command import run
from stages.params import Params
from stages.sources import fetch


class DownloadParams(Params):
    """Section `download` of params.yaml."""

    dataset: Literal["MNIST"] = Field(description="the data set's name: MNIST")


def download(params: DownloadParams, raw: Path) -> None:
    """Put the data set's files into the folder `raw`."""
    fetch(params.dataset, raw, mirror=os.environ.get("DATASET_MIRROR"))


def main(
    params: Annotated[Path, Option(help="in: the file with the section `download`")],
    raw: Annotated[Path, Option(help="out: the folder for the data set's files")],
) -> None:
    """Fetch a data set and check its content.

    The environment variable DATASET_MIRROR names a mirror of yours, a folder or an http(s) URL
    that holds the files plain or gzipped; it is tried before the public ones.
    """
    download(DownloadParams.load(params, "download"), raw)


if __name__ == "__main__":
    run(main, DownloadParams)
