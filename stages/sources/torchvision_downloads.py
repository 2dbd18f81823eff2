"""Data sets that torchvision knows how to fetch and check, fetched with timeouts and retries.

torchvision's classes know the URLs, the files' MD5s and how to unpack them. Its own download waits
for ever, asks in plain http where https fails and tries no mirror of the user's: while a class
downloads here, ours stands in its place. Each file is looked for
1. on the user's own mirror, under the name that torchvision gives it;
2. where torchvision says.
"""

import hashlib
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.error import URLError

from stages.base.whole_files import whole_file
from stages.sources.archives import MOST_BYTES, check, is_archive
from stages.sources.checked_files import WrongContent
from stages.sources.mirrors import download_patiently


@dataclass(frozen=True)
class Published:
    """A class in torchvision.datasets, and its arguments for each split."""

    torchvision_class: str
    train: Mapping[str, str | bool]
    test: Mapping[str, str | bool]


def fetch_published(dataset: Published, folder: Path, mirror: str | None) -> None:
    """Put both splits' files into `folder`, as the data set's class reads them.

    Raises WrongContent if the user's `mirror` holds other bytes, and an OSError that tells what was
    tried if a file is nowhere to be had.
    """
    from torchvision import datasets

    failures: list[str] = []
    with downloading_with(partial(_download_url, mirror, failures)):
        try:
            for split in (dataset.train, dataset.test):
                getattr(datasets, dataset.torchvision_class)(str(folder), download=True, **split)
        except (OSError, RuntimeError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the system's own
                raise
            reason = f"tried {'; '.join(failures)}" if failures else " ".join(str(error).split())
            raise OSError(
                f"{dataset.torchvision_class}: {reason}; set DATASET_MIRROR to a folder or a URL"
                " that holds the files"
            ) from None


@contextmanager
def downloading_with(download_url: Callable[..., None]) -> Iterator[None]:
    """Within the block, torchvision's data sets download by calling `download_url`.

    It is given (url, root, filename=None, md5=None), and raises URLError where a class may know
    another URL. What is on Google Drive has none, and raises ValueError.
    """
    ours = {"download_url": download_url, "download_file_from_google_drive": _refuse_google_drive}
    theirs = [
        (module, name, getattr(module, name))
        for module_name, module in list(sys.modules.items())
        if module_name.startswith("torchvision.datasets.")
        for name in ours
        if hasattr(module, name)
    ]
    for module, name, _ in theirs:
        setattr(module, name, ours[name])
    try:
        yield
    finally:
        for module, name, function in theirs:
            setattr(module, name, function)


def _refuse_google_drive(*_: object, **__: object) -> None:
    raise ValueError("it is on Google Drive, which takes the package gdown; fetch it by hand")


def _download_url(
    mirror: str | None,
    failures: list[str],
    url: str,
    root: str | Path,
    filename: str | Path | None = None,
    md5: str | None = None,
) -> None:
    """Put the file of `url` into the folder `root` unless it is there; note each failure."""
    path = Path(root).expanduser() / (filename or url.rpartition("/")[2])
    if path.is_file() and _is_right(path, md5):
        return
    if mirror:
        try:
            _fetch(f"{mirror.rstrip('/')}/{path.name}", path, md5)
            return
        except WrongContent as error:
            raise WrongContent(f"{error}; mend DATASET_MIRROR or unset it") from None
        except OSError as error:
            _note(error, failures)
    try:
        _fetch(url, path, md5)
    except (OSError, ValueError) as error:
        _note(error, failures)
        raise URLError(str(error)) from None


def _note(error: OSError | ValueError, failures: list[str]) -> None:
    if isinstance(error, OSError) and error.errno is not None:  # a full disk is no source's fault
        raise error
    print(error, file=sys.stderr, flush=True)
    failures.append(str(error))


def _fetch(origin: str, path: Path, md5: str | None) -> None:
    """Copy or download `origin` to `path`. No size is known: no more than an archive may hold.

    Raises WrongContent if its MD5 is another or, where torchvision knows none, if it is an archive
    that is not to be trusted; FileNotFoundError and other OSErrors if it cannot be had.
    """
    print(f"fetching {path.name} from {origin}", flush=True)
    with whole_file(path) as part:
        if origin.startswith(("http://", "https://")):
            with part.open("w+b") as file:
                download_patiently(origin, file, MOST_BYTES, decode=False)
        elif not Path(origin).expanduser().is_file():
            raise FileNotFoundError(f"{origin}: no such file")
        else:
            shutil.copyfile(Path(origin).expanduser(), part)
        if not _is_right(part, md5):
            raise WrongContent(f"{origin}: wrong content: expected the MD5 {md5}")
        if md5 is None and is_archive(part):
            try:
                check(part)
            except ValueError as error:
                raise WrongContent(f"{origin}: wrong content: {error}") from None


def _is_right(path: Path, md5: str | None) -> bool:
    if md5 is None:
        return True
    with path.open("rb") as file:  # what torchvision knows; it keeps out accidents, not attackers
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return digest.hexdigest() == md5
