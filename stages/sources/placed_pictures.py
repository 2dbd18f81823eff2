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


def place_for(source: Path, watched: Path) -> Path:
    """Where the pictures of `source` belong: `watched`/NAME, or `source` if it is in `watched`.

    Raises ValueError if `source` is `watched`, holds it, or is in the same repository, where git
    would commit its pictures; FileNotFoundError if there is no `source`.
    """
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such file or folder; expected one of pictures")
    here, real = Path.cwd(), source.resolve()
    if real.is_relative_to(watched.resolve()) and real != watched.resolve():
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
    name = name.strip()  # git reads no space at the end of a line of .gitignore
    if not name or is_hidden(name) or name.endswith((".dvc", ".part")) or name == "README.md":
        raise ValueError(
            f"{source}: found the name {name!r}, unfit for one in {watched}; rename it"
        )
    try:
        check_names([name])
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    return watched / name


def originals(layout: Layout) -> Mapping[str, Path]:
    """The path of each picture as it is placed -> the file. Raises ValueError for a dead link."""
    files = {composed(str(origin)): layout.folder / origin for origin in layout.origins.values()}
    for file in files.values():
        if not file.exists():
            raise ValueError(f"{file}: a link that leads nowhere; remove it")
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
