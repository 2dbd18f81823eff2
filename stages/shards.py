"""A folder of pictures -> shards: few large files instead of many small ones.

In: a folder with one sub-folder per class, as `download` takes it.  Out: a folder of tar files in
the WebDataset convention, which `download` takes as well. A sample is numbered, because keys end at
the first dot; its JSON has the class and the picture's path.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from stages.base.command import run
from stages.base.whole_files import whole_folder
from stages.sources.own_pictures import opened
from stages.sources.portable_names import composed

SHARD_PICTURES = 10_000  # in each shard, or fewer, if these have more than:
SHARD_BYTES = 2**28


def write_shards(folder: Path, out: Path) -> None:
    """Write the pictures of `folder` as shards into `out`, whole or not at all.

    The bytes depend on the pictures' content and paths alone. Raises ValueError if `folder` has
    another layout than expected, or if `out` is there and not an empty folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: exists already; expected the name of a new folder")
    with opened(folder, folder.parent) as layout, whole_folder(out) as part:
        for split in layout.classes:
            pictures = {
                name: layout.folder / origin
                for name, origin in layout.origins.items()
                if name.startswith(f"{split}/")
            }
            (part / split).mkdir()
            numbers = iter(range(len(pictures)))
            shards = 0
            with tqdm(total=len(pictures), desc=split, disable=None, leave=False) as bar:
                for shards, group in enumerate(_groups(pictures), 1):
                    path = part / split / f"{shards - 1:06}.tar"
                    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as shard:
                        for name, origin in group:
                            _add(shard, f"{next(numbers):09}", name, origin)
                            bar.update()
            print(f"{out}/{split}: {len(pictures)} pictures in {shards} shards")


def _groups(pictures: Mapping[str, Path]) -> Iterator[list[tuple[str, Path]]]:
    """The pictures of each shard."""
    group: list[tuple[str, Path]] = []
    total = 0
    for name, path in pictures.items():
        size = path.stat().st_size
        if group and (len(group) == SHARD_PICTURES or total + size > SHARD_BYTES):
            yield group
            group, total = [], 0
        group.append((name, path))
        total += size
    yield group


def _add(shard: tarfile.TarFile, key: str, name: str, origin: Path) -> None:
    _, label, *_ = composed(name).split("/")
    about = {"class": label, "picture": composed(name).partition("/")[2]}
    text = json.dumps(about, ensure_ascii=False, sort_keys=True)
    suffix = origin.suffix.lower()
    for member, content in (
        (f"{key}{suffix}", origin.read_bytes()),
        (f"{key}.json", text.encode()),
    ):
        info = tarfile.TarInfo(member)
        info.size = len(content)
        shard.addfile(info, io.BytesIO(content))


def main(
    folder: Annotated[Path, typer.Argument(help="in: one sub-folder per class, with its pictures")],
    out: Annotated[Path, typer.Argument(help="out: a new folder, for the shards")],
) -> None:
    """Pack a folder of pictures into shards, tar files in the WebDataset convention.

    `download.dataset` takes such a folder, and so does the library webdataset. A million pictures
    in shards are copied, hashed and read in a fraction of the time that loose files take.
    """
    write_shards(folder, out)


if __name__ == "__main__":
    run(main)
