"""Files and folders that are written whole or not at all."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`, renamed to `path` when the block ends without error.

    Parent folders are created as needed. An older file at `path` stays until then, and for good if
    the block raises. A killed process leaves a `.part` file behind, which git and DVC ignore.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder next to `path`, renamed to `path` when the block succeeds.

    An older folder at `path`, or where the link `path` leads, stays until then, and for good if the
    block raises. Two processes may do this at once: each folder replaces the one before, whole. A
    killed process leaves its `.part` folder behind, which git and DVC ignore.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    part = scratch / "new"
    part.mkdir()
    try:
        yield part
        _put_in_place(part, path, scratch)
    finally:
        shutil.rmtree(scratch)


def _put_in_place(part: Path, path: Path, scratch: Path) -> None:
    """Rename the folder `part` to `path`; what is there already moves into `scratch`."""
    for number in itertools.count():
        old = scratch / f"old{number}"
        with suppress(FileNotFoundError):  # nothing is there, or another process has moved it
            path.rename(old)
        try:
            part.rename(path)
            return
        except OSError:
            if path.exists():  # another process was quicker
                continue
            if old.exists():
                old.rename(path)
            raise


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with line feeds, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content`, whole or not at all."""
    with whole_file(path) as part:
        part.write_bytes(content)
