"""The user's own pictures, from a folder or an archive -> the folders train/CLASS and test/CLASS.

In: one sub-folder per class, with pictures at any depth; or `train` and `test` with such
sub-folders each. An outer folder that holds nothing else is skipped.
Out: copies whose names are in Unicode's composed form (NFC), the same on every system. Without a
test split everything goes to train.
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
MAX_NAMED = 3  # files that a message names


def copy_pictures(
    source: Path, raw: Path, place: Callable[[Path, Path], Any] = shutil.copyfile
) -> None:
    """Put the pictures of the folder or archive `source` into `raw`/train and `raw`/test.

    `place` copies or moves a file of a folder: place(from, to). Links are followed. Raises
    ValueError if `source` has another layout than expected, or is an archive that `unpack` refuses.
    """
    if source.is_dir():
        _place(source, source, raw, place)
    elif source.is_file() and is_archive(source):
        with tempfile.TemporaryDirectory(prefix=".unpacked.", suffix=".part", dir=raw) as scratch:
            unpack(source, Path(scratch))
            _place(source, Path(scratch), raw, Path.rename)
    else:
        raise ValueError(f"{source}: expected a folder, or a zip or tar archive, of pictures")


def _place(source: Path, folder: Path, raw: Path, place: Callable[[Path, Path], Any]) -> None:
    """Check the layout of `folder`, which is `source` or unpacked from it, then fill `raw`."""
    try:
        others = pictures_in(folder)[1]
        splits = pictures_by_split(folder)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    origins = [item for pictures in splits.values() for item in pictures.items()]
    for path, origin in tqdm(origins, desc=str(source), disable=None, leave=False):
        target = raw / composed(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        place(origin, target)
    if others:
        suffixes = ", ".join(sorted(SUFFIXES))
        print(f"{source}: skipped {len(others)} not ending in {suffixes}: {_some(others)}")
    for split, pictures in splits.items():
        classes = {path.split("/")[1] for path in pictures}
        print(f"{source}: {split}: {len(pictures)} pictures in {len(classes)} classes")


def pictures_by_split(folder: Path) -> dict[str, dict[str, Path]]:
    """`train`, and `test` if there is one -> its pictures, "SPLIT/CLASS/...", and where they are.

    In order of class and path. Raises ValueError if `folder` has another layout than expected.
    """
    splits = _splits(_innermost(folder))
    classes = {split: _classes(top, folder) for split, top in splits.items()}
    _check_same_classes(classes)
    origins = {
        split: {
            f"{split}/{path}": splits[split] / path for paths in pictures.values() for path in paths
        }
        for split, pictures in classes.items()
    }
    check_names(path for pictures in origins.values() for path in pictures)
    return origins


def _some(names: list[str]) -> str:
    return ", ".join(names[:MAX_NAMED]) + (", ..." if len(names) > MAX_NAMED else "")


def _innermost(folder: Path) -> Path:
    """The folder that holds the classes or splits: `folder`, or the only one in it, and so on."""
    folders = [Path(entry.path) for entry in visible(folder) if entry.is_dir()]
    is_outer = len(folders) == 1 and not _loose_pictures(folder)
    if is_outer and any(entry.is_dir() for entry in visible(folders[0])):
        return _innermost(folders[0])
    return folder


def _loose_pictures(folder: Path) -> list[str]:
    return sorted(e.name for e in visible(folder) if not e.is_dir() and is_picture(e.name))


def _splits(folder: Path) -> dict[str, Path]:
    """`train`, and `test` if there is one -> the folder that holds its classes."""
    folders: dict[str, Path] = {}
    for path in (Path(entry.path) for entry in visible(folder) if entry.is_dir()):
        same = folders.setdefault(path.name.casefold(), path)
        if same != path:
            both = " and ".join(sorted((same.name, path.name)))
            raise ValueError(f"{both}: differ only in case; rename one")
    if folders.keys() >= set(SPLITS):
        if extra := sorted(path.name for name, path in folders.items() if name not in SPLITS):
            raise ValueError(
                f"found {_some(extra)} beside train and test; expected these two alone: a"
                " validation split is taken from train, see tensorize.validation"
            )
        return {split: folders[split] for split in SPLITS}
    for split in SPLITS:
        if split in folders and not _loose_pictures(folders[split]):
            found = sorted(path.name for path in folders.values())
            raise ValueError(
                f"found {_some(found)}; expected train and test, or classes alone; rename the"
                " folder to test on to test"
            )
    return {"train": folder}


def _classes(folder: Path, top: Path) -> dict[str, list[str]]:
    """The classes in `folder`, which is `top` or in it -> the paths of their pictures."""
    prefix = "" if folder == top else f"{folder.relative_to(top)}: "
    classes = pictures_by_class(folder)
    if not classes:
        raise ValueError(f"{prefix}found no sub-folders; expected one per class, with its pictures")
    if loose := _loose_pictures(folder):
        raise ValueError(
            f"{prefix}found pictures beside the class folders: {_some(loose)}; expected each in the"
            " folder of its class"
        )
    if empty := [name for name, pictures in classes.items() if not pictures]:
        raise ValueError(
            f"{prefix}found no pictures in {_some(empty)}; expected at least one per class"
        )
    if len(classes) < 2:
        raise ValueError(f"{prefix}found one class, {next(iter(classes))}; expected two or more")
    return classes


def _check_same_classes(classes: dict[str, dict[str, list[str]]]) -> None:
    names = {split: set(map(composed, pictures)) for split, pictures in classes.items()}
    for split, own in names.items():
        for other, theirs in names.items():
            if only := sorted(own - theirs):
                raise ValueError(
                    f"found {_some(only)} in {split} but not in {other}; expected the same classes"
                    " in both"
                )
