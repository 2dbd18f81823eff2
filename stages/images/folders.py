"""Folders of pictures: which files are pictures, and which class a picture is of.

Hidden files and folders (a leading dot) and `__MACOSX` are not seen. A link counts as what it leads
to; one that leads to nothing counts as a file.
"""

import os
from pathlib import Path

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".pbm", ".pgm", ".ppm"}
)


def pictures_in(folder: Path) -> tuple[list[str], list[str]]:
    """The pictures in `folder`, at any depth, and the other files: their paths in it, with "/".

    The suffix tells, in either case. Both are sorted by code point, the same on every system.
    Raises ValueError for a link to a folder that holds the link.
    """
    pictures: list[str] = []
    others: list[str] = []
    todo = [(folder, "", frozenset({folder.resolve()}))]
    while todo:
        current, prefix, above = todo.pop()
        for entry in visible(current):
            path = prefix + entry.name
            if entry.is_dir():
                inside = Path(entry.path)
                real = inside.resolve() if entry.is_symlink() else None
                if real in above:
                    raise ValueError(f"{inside}: a link to a folder that holds it; remove the link")
                todo.append((inside, f"{path}/", above | {real or inside.resolve()}))
            elif is_picture(entry.name) and (entry.is_file() or not Path(entry.path).exists()):
                pictures.append(path)
            else:
                others.append(path)
    return sorted(pictures), sorted(others)


def pictures_by_class(folder: Path) -> dict[str, list[str]]:
    """The name of each folder in `folder` -> the paths of its pictures, "CLASS/...".

    Classes and paths are sorted by code point. A folder without a picture is a class with none.
    """
    classes = sorted(entry.name for entry in visible(folder) if entry.is_dir())
    return {name: [f"{name}/{path}" for path in pictures_in(folder / name)[0]] for name in classes}


def visible(folder: Path) -> "list[os.DirEntry[str]]":
    """The entries of `folder` that count."""
    with os.scandir(folder) as entries:
        return [e for e in entries if not is_hidden(e.name)]


def is_hidden(name: str) -> bool:
    """Whether files and folders of this name do not count."""
    return name.startswith(".") or name == "__MACOSX"


def is_picture(name: str) -> bool:
    """Whether a file of this name is a picture."""
    return os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122  # ten times as fast as Path
