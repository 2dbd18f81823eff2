"""The user's own pictures, from a folder or an archive -> the folders train/CLASS and test/CLASS.

In: one sub-folder per class, with pictures at any depth; or `train` and `test` with such
sub-folders each. An outer folder that holds nothing else is skipped.
Out: copies whose names are in Unicode's composed form (NFC), the same on every system. Without a
test split everything goes to train.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from tqdm import tqdm

from stages.images.folders import SUFFIXES, is_picture, pictures_by_class, pictures_in, visible
from stages.sources.archives import is_archive, unpack
from stages.sources.portable_names import check_names, composed

SPLITS = ("train", "test")
MAX_NAMED = 3  # files that a message names


@dataclass(frozen=True)
class Layout:
    """Where the pictures of a folder are.

    folder: which one.  classes: `train`, and `test` if there is one -> the folder in it that holds
    a sub-folder per class, such as `animals/Test`, or `.`.  origins: the path of each picture as it
    is stored, `train/CLASS/...` -> as it is in the folder.  others: files that are no pictures.
    """

    folder: Path
    classes: Mapping[str, PurePath]
    origins: Mapping[str, PurePath]
    others: Sequence[str]


@contextmanager
def opened(source: Path, scratch: Path) -> Iterator[Layout]:
    """Yield the layout of the folder or archive `source`; an archive is unpacked below `scratch`.

    What was unpacked exists until the block ends. Raises ValueError if `source` has another layout
    than expected, or is an archive that `unpack` refuses.
    """
    if source.is_dir():
        yield _layout(source, source)
    elif source.is_file() and is_archive(source):
        with tempfile.TemporaryDirectory(
            prefix=".unpacked.", suffix=".part", dir=scratch
        ) as folder:
            unpack(source, Path(folder))
            yield _layout(source, Path(folder))
    else:
        raise ValueError(f"{source}: expected a folder, or a zip or tar archive, of pictures")


def copy_pictures(
    source: Path, raw: Path, place: Callable[[Path, Path], Any] = shutil.copyfile
) -> Mapping[str, PurePath]:
    """Put the pictures of the folder or archive `source` into `raw`/train and `raw`/test.

    `place` copies or moves a file of a folder: place(from, to). Returns which folder in `source`
    held the classes of each split. Links are followed. Raises ValueError as `opened` does.
    """
    with opened(source, raw) as layout:
        put = place if layout.folder == source else Path.rename
        progress = tqdm(layout.origins.items(), desc=str(source), disable=None, leave=False)
        for path, origin in progress:
            target = raw / composed(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            put(layout.folder / origin, target)
    if layout.others:
        suffixes = ", ".join(sorted(SUFFIXES))
        number = len(layout.others)
        print(f"{source}: skipped {number} not ending in {suffixes}: {_some(layout.others)}")
    for split in layout.classes:
        pictures = [path.split("/")[1] for path in layout.origins if path.startswith(f"{split}/")]
        print(f"{source}: {split}: {len(pictures)} pictures in {len(set(pictures))} classes")
    return layout.classes


def _layout(source: Path, folder: Path) -> Layout:
    """Check the layout of `folder`, which is `source` or unpacked from it."""
    try:
        others = pictures_in(folder)[1]
        splits = _splits(_innermost(folder))
        classes = {split: _classes(top, folder) for split, top in splits.items()}
        _check_same_classes(classes)
        within = {split: top.relative_to(folder) for split, top in splits.items()}
        origins = {
            f"{split}/{path}": within[split] / path
            for split, pictures in classes.items()
            for paths in pictures.values()
            for path in paths
        }
        check_names(origins)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    return Layout(folder, within, origins, others)


def _some(names: Sequence[str]) -> str:
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
