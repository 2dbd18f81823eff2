"""Download torchvision's data sets with timeouts, retries and a mirror of the user's own.

torchvision's classes know the URLs, the files' MD5s and how to unpack them. Their own download has
no timeout, falls back from https to http and knows no mirror, so it is replaced while a class
downloads. Each file is looked for
1. on the user's mirror, under the name that torchvision gives it;
2. at torchvision's URL.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.error import URLError

from stages.base.whole_files import whole_file
from stages.sources.archives import MAX_BYTES, check, is_archive
from stages.sources.checked_files import WrongContent
from stages.sources.mirrors import copy_or_download
from stages.sources.torchvision_datasets import TorchvisionDataset


def fetch_torchvision_dataset(
    dataset: TorchvisionDataset, folder: Path, mirror: str | None
) -> None:
    """Put the files of both splits into `folder`, as the data set's class reads them.

    Raises WrongContent if the user's `mirror` holds another file of that name, and an OSError that
    lists what was tried if a file cannot be had.
    """
    from torchvision import datasets

    failures: list[str] = []
    with downloading_with(partial(_download_url, mirror, failures)):
        try:
            for split in (dataset.train, dataset.test):
                getattr(datasets, dataset.class_name)(str(folder), download=True, **split)
        except (OSError, RuntimeError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the operating system's
                raise
            reason = f"tried {'; '.join(failures)}" if failures else " ".join(str(error).split())
            raise OSError(
                f"{dataset.class_name}: {reason}; set DATASET_MIRROR to a folder or a URL that"
                " holds the files"
            ) from None


@contextmanager
def downloading_with(download_url: Callable[..., None]) -> Iterator[None]:
    """Within the block, torchvision's data sets download by calling `download_url`.

    It is called with (url, root, filename=None, md5=None); if it raises URLError, a class that
    knows several URLs tries the next.
    """
    modules = [
        vars(module)
        for name, module in list(sys.modules.items())
        if name.startswith("torchvision.datasets.") and "download_url" in vars(module)
    ]
    originals = [module["download_url"] for module in modules]
    for module in modules:
        module["download_url"] = download_url
    try:
        yield
    finally:
        for module, original in zip(modules, originals, strict=True):
            module["download_url"] = original


def _download_url(
    mirror: str | None,
    failures: list[str],
    url: str,
    root: str | Path,
    filename: str | Path | None = None,
    md5: str | None = None,
) -> None:
    """Put the file at `url` into the folder `root` unless it is there; record each failure."""
    path = Path(root).expanduser() / (filename or url.rpartition("/")[2])
    if path.is_file() and _has_md5(path, md5):
        return
    if mirror:
        try:
            _fetch(f"{mirror.rstrip('/')}/{path.name}", path, md5)
            return
        except WrongContent as error:
            raise WrongContent(f"{error}; fix DATASET_MIRROR or unset it") from None
        except OSError as error:
            _record(error, failures)
    try:
        _fetch(url, path, md5)
    except (OSError, ValueError) as error:
        _record(error, failures)
        raise URLError(str(error)) from None


def _record(error: OSError | ValueError, failures: list[str]) -> None:
    if isinstance(error, OSError) and error.errno is not None:  # a full disk, not a failed source
        raise error
    print(error, file=sys.stderr, flush=True)
    failures.append(str(error))


def _fetch(origin: str, path: Path, md5: str | None) -> None:
    """Copy or download `origin` to `path`; its size is unknown, so an archive's bound applies.

    Raises WrongContent if its MD5 differs or, where torchvision has none, if it is an archive that
    `check` refuses; FileNotFoundError or another OSError if it cannot be had.
    """
    print(f"fetching {path.name} from {origin}", flush=True)
    with whole_file(path) as part:
        with part.open("w+b") as file:
            copy_or_download(origin, file, MAX_BYTES, decode=False)
        if not _has_md5(part, md5):
            raise WrongContent(f"{origin}: wrong content: found another MD5; expected {md5}")
        if md5 is None and is_archive(part):
            try:
                check(part)
            except ValueError as error:
                raise WrongContent(f"{origin}: wrong content: {error}") from None


def _has_md5(path: Path, md5: str | None) -> bool:
    """Whether the file has that MD5, or there is none to compare. It detects accidents only."""
    if md5 is None:
        return True
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return digest.hexdigest() == md5
