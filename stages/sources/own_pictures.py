"""A folder or an archive of pictures -> the folders train/CLASS and test/CLASS.

In: one sub-folder a class, or `train` and `test` above the classes; a single folder around all that
is seen through. A class is called as its sub-folder; its pictures may lie deeper in that.
Out: files, with the letters of their names composed (NFC), so that they are called the same on
every system. Without a test split everything goes under train.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stages.images.folders import SUFFIXES, is_picture, pictures_by_class, pictures_in, visible
from stages.sources.archives import is_archive, unpack
from stages.sources.portable_names import check_names, composed

SPLITS = ("train", "test")
NAMED = 3  # of the files that are left out


def take_pictures(source: Path, raw: Path) -> None:
    """Put the pictures of the folder or archive `source` under `raw`/train and `raw`/test.

    A link counts as what it leads to. Raises ValueError, with what was found and what was expected,
    if `source` is laid out otherwise or is an archive not to be trusted.
    """
    if source.is_dir():
        _place(source, source, raw, shutil.copyfile)
    elif is_archive(source):
        with tempfile.TemporaryDirectory(prefix=".unpacked.", suffix=".part", dir=raw) as scratch:
            unpack(source, Path(scratch))
            _place(source, Path(scratch), raw, Path.rename)
    else:
        raise ValueError(f"{source}: neither a folder nor a zip or tar archive of pictures")


def _place(source: Path, folder: Path, raw: Path, place: Callable[[Path, Path], Any]) -> None:
    """Bring the pictures of `folder`, which is `source` or came out of it, to where they belong."""
    try:
        others = pictures_in(folder)[1]
        splits = _splits(_see_through(folder))
        classes = {split: _classes(top, folder) for split, top in splits.items()}
        _check_splits(classes)
        where = {
            f"{split}/{path}": splits[split] / path
            for split, pictures in classes.items()
            for paths in pictures.values()
            for path in paths
        }
        check_names(where)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    for path, picture in tqdm(where.items(), desc=str(source), disable=None, leave=False):
        target = raw / composed(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        place(picture, target)
    if others:
        names = ", ".join(others[:NAMED]) + (", ..." if len(others) > NAMED else "")
        suffixes = ", ".join(sorted(SUFFIXES))
        print(f"{source}: left out {len(others)} that do not end in {suffixes}: {names}")
    for split, pictures in classes.items():
        count = sum(map(len, pictures.values()))
        print(f"{source}: {split}: {count} pictures of {len(pictures)} classes")


def _see_through(folder: Path) -> Path:
    """The folder with the classes or splits: `folder`, or the only one in it, and so on."""
    entries = visible(folder)
    folders = [Path(entry.path) for entry in entries if entry.is_dir()]
    loose = [entry for entry in entries if not entry.is_dir() and is_picture(entry.name)]
    if len(folders) == 1 and not loose and any(entry.is_dir() for entry in visible(folders[0])):
        return _see_through(folders[0])
    return folder


def _splits(folder: Path) -> dict[str, Path]:
    """`train`, and `test` if there is one -> the folder that holds its classes."""
    folders: dict[str, Path] = {}
    for path in (Path(entry.path) for entry in visible(folder) if entry.is_dir()):
        same = folders.setdefault(path.name.casefold(), path)
        if same != path:
            both = " and ".join(sorted((same.name, path.name)))
            raise ValueError(f"{both} differ in upper and lower case alone; rename one")
    if folders.keys() >= set(SPLITS):
        if extra := sorted(path.name for name, path in folders.items() if name not in SPLITS):
            raise ValueError(
                f"{', '.join(extra)} beside train and test; expected these two alone (what chooses"
                " params is held out of train by tensorize.validation)"
            )
        return {split: folders[split] for split in SPLITS}
    for split in SPLITS:
        if split in folders and not any(
            is_picture(entry.name) for entry in visible(folders[split])
        ):
            raise ValueError(
                f"found {', '.join(sorted(path.name for path in folders.values()))}; expected train"
                " and test, or the classes alone: rename what is to test on to test"
            )
    return {"train": folder}


def _classes(folder: Path, top: Path) -> dict[str, list[str]]:
    """The classes in `folder`, which lies in `top` or is it, and the paths of their pictures."""
    name = "" if folder == top else f"{folder.relative_to(top)}: "
    classes = pictures_by_class(folder)
    if not classes:
        raise ValueError(f"{name}no sub-folders; expected one a class, with its pictures")
    loose = sorted(e.name for e in visible(folder) if not e.is_dir() and is_picture(e.name))
    if loose:
        raise ValueError(
            f"{name}pictures beside the folders of the classes: {', '.join(loose[:NAMED])};"
            " expected each in the folder of its class"
        )
    if empty := [label for label, pictures in classes.items() if not pictures]:
        raise ValueError(f"{name}no picture in {', '.join(empty)}; expected one or more a class")
    if len(classes) < 2:
        raise ValueError(f"{name}only one class, {next(iter(classes))}; expected two or more")
    return classes


def _check_splits(classes: dict[str, dict[str, list[str]]]) -> None:
    """Check that the splits have the same classes."""
    names = {split: set(map(composed, pictures)) for split, pictures in classes.items()}
    for split, own in names.items():
        for other, theirs in names.items():
            if lacking := sorted(own - theirs):
                raise ValueError(
                    f"in {split} and not in {other}: {', '.join(lacking)}; expected the same"
                    " classes in both"
                )
