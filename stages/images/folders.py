"""Folders of pictures: which files are pictures, and which class a picture is of.

Hidden files and folders (with a leading dot) and `__MACOSX` are ignored. Links are followed; a
dangling link counts as a file.
"""

import os
from pathlib import Path

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".pbm", ".pgm", ".ppm"}
)
_Identity = tuple[int, int]
MAX_DEPTH = 50  # folders in folders
MAX_REPEATS = 10_000  # of folders, which links can multiply


def pictures_in(folder: Path) -> tuple[list[str], list[str]]:
    """The paths of the pictures and of the other files below `folder`, relative to it, with "/".

    Pictures are recognised by their suffix, in upper or lower case. Both lists are sorted by
    code point, the same on every system. Raises ValueError for a link to a folder that holds the
    link, for too many links, and for folders nested too deeply.
    """
    pictures: list[str] = []
    others: list[str] = []
    todo: list[tuple[Path, str, tuple[_Identity, ...]]] = [(folder, "", (_identity(folder),))]
    seen: set[_Identity] = set()
    repeats = 0
    while todo:
        current, prefix, path_to = todo.pop()
        repeats += path_to[-1] in seen
        seen.add(path_to[-1])
        if repeats > MAX_REPEATS:
            raise ValueError(
                f"{folder}: found links that lead to the same folders more than {MAX_REPEATS:,}"
                " times; expected fewer; remove them"
            )
        for entry in visible(current):
            path = prefix + entry.name
            if entry.is_dir():
                inside = Path(entry.path)
                identity = _identity(entry.path)
                if identity in path_to:
                    raise ValueError(f"{inside}: a link to a folder that holds it; remove the link")
                if len(path_to) > MAX_DEPTH:
                    raise ValueError(
                        f"{folder}: found folders more than {MAX_DEPTH} deep, in"
                        f" {path.partition('/')[0]}; expected fewer levels; move the pictures up"
                    )
                todo.append((inside, f"{path}/", (*path_to, identity)))
            elif is_picture(entry.name) and (entry.is_file() or not Path(entry.path).exists()):
                pictures.append(path)
            else:
                others.append(path)
    return sorted(pictures), sorted(others)


def _identity(folder: str | Path) -> _Identity:
    """The same for every path to a folder."""
    status = os.stat(folder)  # noqa: PTH116  # twice as fast as Path
    return status.st_dev, status.st_ino


def pictures_by_class(folder: Path) -> dict[str, list[str]]:
    """The name of each folder in `folder` -> the paths of its pictures, "CLASS/...".

    Classes and paths are sorted by code point. A folder without pictures is an empty class.
    """
    classes = sorted(entry.name for entry in visible(folder) if entry.is_dir())
    return {name: [f"{name}/{path}" for path in pictures_in(folder / name)[0]] for name in classes}


def visible(folder: Path) -> "list[os.DirEntry[str]]":
    """The entries of `folder` that are not hidden."""
    with os.scandir(folder) as entries:
        return [e for e in entries if not is_hidden(e.name)]


def is_hidden(name: str) -> bool:
    """Whether files and folders of this name are ignored."""
    return name.startswith(".") or name == "__MACOSX"


def is_picture(name: str) -> bool:
    """Whether a file of this name is a picture."""
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122  # ten times as fast as Path
