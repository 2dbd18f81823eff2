"""The names of files that are the same files on every system."""

import unicodedata
from collections.abc import Iterable

LONGEST = 1024  # characters: what macOS allows a whole path


def check_names(paths: Iterable[str]) -> None:
    """Check relative paths with "/", those of the files that a folder is to hold.

    Raises ValueError, with the path, for one that is too long, that cannot be printed or is no
    Unicode, that stands there twice, or leads through a file; and for two that differ in upper and
    lower case alone or in how their letters are composed: on some systems these are one file.
    """
    spelt: dict[str, str] = {}  # what all spellings of a path have in common -> this spelling
    files: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        if len(path) > LONGEST:
            raise ValueError(
                f"{path[:80]}...: a path of {len(path)} characters; allowed: {LONGEST}"
            )
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in path):
            raise ValueError(f"{path!a}: not printable Unicode; rename it")
        if path in files:
            raise ValueError(f"{path}: twice; expected one file of a name")
        if path in folders:
            raise ValueError(f"{path}: a file and a folder; expected one of them")
        _spell(path, spelt)
        files.add(path)
        end = path.rfind("/")
        while end > 0 and path[:end] not in folders:
            if path[:end] in files:
                raise ValueError(f"{path}: leads through the file {path[:end]}")
            _spell(path[:end], spelt)
            folders.add(path[:end])
            end = path.rfind("/", 0, end)


def _spell(path: str, spelt: dict[str, str]) -> None:
    first = spelt.setdefault(composed(composed(path).casefold()), path)
    if first != path:
        how = "letters composed" if composed(first) == composed(path) else "upper and lower case"
        raise ValueError(
            f"{path}: differs from {first} in {how} alone, and is the same on some systems;"
            " rename one"
        )


def composed(name: str) -> str:
    """`name` with its letters composed (NFC), however a system stores them."""
    return unicodedata.normalize("NFC", name)
