"""File names that name the same distinct files on every operating system."""

import unicodedata
from collections.abc import Iterable

MAX_LENGTH = 1024  # characters; macOS allows a path no more


def check_names(paths: Iterable[str]) -> None:
    """Check the paths of the files that a folder is to hold: relative, with "/".

    Raises ValueError, naming the path, if it is too long, is not printable Unicode, occurs twice
    or leads through another file. Also if two paths differ only in case or in Unicode
    normalization: some systems take them for one file.
    """
    originals: dict[str, str] = {}  # a path as the least discerning system sees it -> the path
    files: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        check_printable(path)
        if path in files:
            raise ValueError(f"{path}: found twice; expected one file of that name")
        if path in folders:
            raise ValueError(f"{path}: both a file and a folder; rename one")
        _check_distinct(path, originals)
        files.add(path)
        end = path.rfind("/")
        while end > 0 and path[:end] not in folders:
            if path[:end] in files:
                raise ValueError(f"{path}: leads through the file {path[:end]}; rename one")
            _check_distinct(path[:end], originals)
            folders.add(path[:end])
            end = path.rfind("/", 0, end)


def check_printable(path: str) -> None:
    """Raise ValueError, naming the path, if it is too long or not printable Unicode."""
    if len(path) > MAX_LENGTH:
        raise ValueError(
            f"{path[:80]}...: found a path of {len(path)} characters; expected at most {MAX_LENGTH}"
        )
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in path):
        raise ValueError(f"{path!a}: not printable Unicode; rename it")


def _check_distinct(path: str, originals: dict[str, str]) -> None:
    first = originals.setdefault(composed(composed(path).casefold()), path)
    if first != path:
        only = "Unicode normalization" if composed(first) == composed(path) else "case"
        raise ValueError(
            f"{path}: differs from {first} only in {only}, which some systems ignore; rename one"
        )


def composed(name: str) -> str:
    """`name` in Unicode's composed form (NFC), whichever form the file system uses."""
    return unicodedata.normalize("NFC", name)
