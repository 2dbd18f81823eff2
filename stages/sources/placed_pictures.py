"""The user's pictures, from a folder or an archive anywhere -> the folder that DVC watches."""

import filecmp
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from stages.base.whole_files import whole_folder
from stages.images.folders import is_hidden, pictures_in
from stages.sources.own_pictures import Layout
from stages.sources.portable_names import check_names, composed

LONGEST = 240  # bytes of a name: whole_folder adds 15, and file systems allow 255


def place_for(source: Path, watched: Path) -> Path:
    """Where the pictures of `source` belong: `watched`/NAME, or `source` if it is in `watched`.

    Raises ValueError if `source` is `watched`, holds it, or is in the same repository, where git
    would commit its pictures, or if its name will not do; FileNotFoundError if there is no
    `source`.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file or folder; expected one of pictures")
    here, real = Path.cwd(), source.resolve()
    if real.is_relative_to(watched.resolve()) and real != watched.resolve():
        for name in real.relative_to(watched.resolve()).parts:
            _check_name(source, name, watched)
        return Path(os.path.relpath(real, here.resolve()))
    if watched.resolve().is_relative_to(real):
        raise ValueError(f"{source}: found the folder of this pipeline; expected one of pictures")
    if real.is_relative_to(here.resolve()):
        raise ValueError(
            f"{source}: in this repository, where `git add .` would commit its pictures; move it to"
            f" {watched} or out of the repository"
        )
    name = composed(Path(os.path.abspath(source)).name)  # noqa: PTH100  # of a link, not its target
    name = name if source.is_dir() else name.partition(".")[0]
    name = name.strip(" ")
    _check_name(source, name, watched)
    place = watched / name
    if place.is_symlink():
        raise ValueError(f"{place}: found a link, which DVC does not follow; remove it")
    return place


def _check_name(source: Path, name: str, watched: Path) -> None:
    """Raise ValueError if git, DVC or the file system could not handle `name` in `watched`."""
    is_taken = is_hidden(name) or name.endswith((".dvc", ".part")) or name == "README.md"
    if not name or is_taken or name.endswith(" "):  # git ignores a space that ends a pattern
        raise ValueError(
            f"{source}: found the name {name!r}, unfit for one in {watched}; rename it"
        )
    if (length := len(os.fsencode(name))) > LONGEST:
        raise ValueError(
            f"{source}: found a name of {length} bytes; expected at most {LONGEST}; rename it"
        )
    try:
        check_names([name])
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def originals(layout: Layout) -> Mapping[str, Path]:
    """The path of each picture as it is placed -> the file.

    Raises ValueError for a dead link, and PermissionError for a file that cannot be copied.
    """
    files = {composed(str(origin)): layout.folder / origin for origin in layout.origins.values()}
    for file in files.values():
        if not file.exists():
            raise ValueError(f"{file}: a link that leads nowhere; remove it")
        if not os.access(file, os.R_OK):
            raise PermissionError(f"{file}: found no permission to read it; `chmod u+r` gives it")
    return files


def holds(folder: Path, files: Mapping[str, Path]) -> bool:
    """Whether the pictures in `folder` are `files`, byte for byte."""
    there = {composed(path): folder / path for path in pictures_in(folder)[0]}
    return there.keys() == files.keys() and all(
        filecmp.cmp(there[path], file, shallow=False) for path, file in files.items()
    )


def place(files: Mapping[str, Path], folder: Path) -> None:
    """Copy `files` into `folder`, which they replace, whole or not at all.

    Copies, since DVC makes the pictures in `folder` links into its cache: were they links to the
    originals too, an edit of those would change the cache.
    """
    with whole_folder(folder) as part:
        for path, file in tqdm(files.items(), desc=str(folder), disable=None, leave=False):
            (part / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, part / path)
