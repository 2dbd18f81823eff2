"""Shards: tar files in the WebDataset convention, read in place and never unpacked.

In: a folder of plain tar files, or `train` and `test` with such files each. The members of a sample
share a key, their path up to the first dot of its last part: the picture (`000017.jpg`) and its
label, either `000017.cls` or `000017.json` with the key "class". A label is a class's name, or the
number of a line of `classes.txt` in the folder, counted from 0. A "picture" in the JSON is the
picture's name; without it, that is the shard's and the member's.
Out: copies of the shards, and an index of each split.
"""

import re
import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, Field, StrictInt, StrictStr, ValidationError
from tqdm import tqdm

from stages.images.folders import SUFFIXES, is_hidden, pictures_in, visible
from stages.sources.archives import COMPRESSIONS, Member, Refused, opened
from stages.sources.own_pictures import SPLITS
from stages.sources.portable_names import check_names, check_printable

SUFFIX = ".tar"
CLASSES = "classes.txt"
MAX_CLASSES = 2**24  # bytes of classes.txt
MAX_LABEL = 2**16  # bytes of a .cls or .json
MAX_PICTURE = 2**30  # bytes; a picture is read into memory


class _Label(BaseModel):
    """What is read of a .json beside a picture."""

    name: Annotated[StrictStr | StrictInt | None, Field(alias="class")] = None
    picture: StrictStr | None = None


class _Sample(NamedTuple):
    label: str
    picture: str
    start: int
    size: int


def shards_in(folder: Path) -> dict[str, list[Path]]:
    """`train`, and `test` if there is one -> the shards in `folder`, sorted; {} if it has none.

    Raises ValueError if they lie in another way than expected.
    """
    loose = _tars(folder)
    splits = {split: _tars(folder / split) for split in SPLITS if (folder / split).is_dir()}
    if loose and any(splits.values()):
        raise ValueError(f"{folder}: found shards beside the folders train and test; move them")
    if loose or not any(splits.values()):
        return {"train": loose} if loose else {}
    for split in ("train", *splits):
        if not splits.get(split):
            raise ValueError(f"{folder}: found no shards in {split}; expected some")
    return splits


def _tars(folder: Path) -> list[Path]:
    return sorted(
        Path(entry.path)
        for entry in visible(folder)
        if entry.name.lower().endswith(SUFFIX) and not entry.is_dir()
    )


def copy_shards(source: Path, raw: Path, place: Callable[[Path, Path], Any]) -> list[str]:
    """Put the shards of the folder `source` into `raw`/SPLIT, each split with its index.

    `place` copies or moves a file: place(from, to). Returns the splits. Raises ValueError if a
    shard is not a plain tar, is broken, or is refused by `archives.opened`; if a picture has no
    label or two, a name that occurs twice or is not printable; or if the classes will not do.
    """
    import numpy as np  # both are slow to import, and rarely needed

    from stages.formats.lines import Lines
    from stages.formats.shard_index import ShardIndex

    splits = shards_in(source)
    if pictures := pictures_in(source)[0]:
        raise ValueError(
            f"{source}: found pictures beside shards, such as {pictures[0]}; expected either"
        )
    numbered = _numbered_classes(source)
    tables = {
        split: _placed(shards, raw / split, numbered, place) for split, shards in splits.items()
    }
    classes = _checked_classes(source, {split: table.labels for split, table in tables.items()})
    numbers = {name: number for number, name in enumerate(classes)}
    for split, table in tables.items():
        names = Lines(np.frombuffer(table.names, np.uint8))
        _check_distinct(source, names)
        places = np.frombuffer(table.places, np.int64).reshape(-1, 4)
        labels = np.array([numbers[name] for name in table.labels])
        places[:, 3] = labels[places[:, 3]]
        shards = tuple(shard.name for shard in splits[split])
        ShardIndex(shards, classes, places, names).save(raw / split)
        print(f"{source}: {split}: {len(names)} pictures in {len(classes)} classes, in shards")
    return list(tables)


class _Table(NamedTuple):
    """The pictures of a split, in few bytes each.

    labels: the classes, numbered in the order of their first pictures.  places: for each picture,
    four int64: its shard's number, its start, its size, its label's number.  names: the pictures',
    each with a line feed.
    """

    labels: dict[str, int]
    places: bytearray
    names: bytearray


def _placed(
    shards: Sequence[Path],
    folder: Path,
    numbered: Sequence[str],
    place: Callable[[Path, Path], Any],
) -> _Table:
    """Put shards into `folder`, and list the pictures in them. What is read are the copies."""
    folder.mkdir(parents=True)
    check_names(shard.name for shard in shards)
    table = _Table({}, bytearray(), bytearray())
    progress = tqdm(shards, desc=str(shards[0].parent), disable=None, leave=False)
    for number, shard in enumerate(progress):
        if not shard.is_file():  # /dev/zero would fill the disk
            raise ValueError(f"{shard}: found no file; expected a tar; remove it")
        place(shard, folder / shard.name)
        try:
            samples = _samples(folder / shard.name, numbered)
        except ValueError as error:
            raise ValueError(str(error).replace(f"{folder / shard.name}", f"{shard}", 1)) from None
        for sample in samples:
            label = table.labels.setdefault(sample.label, len(table.labels))
            table.places.extend(struct.pack("=4q", number, sample.start, sample.size, label))
            table.names.extend(f"{sample.picture}\n".encode())
    return table


def _samples(shard: Path, numbered: Sequence[str]) -> list[_Sample]:
    with shard.open("rb") as file:
        if file.read(6).startswith(tuple(COMPRESSIONS)):
            raise Refused(f"{shard}: found a compressed tar; expected a plain one; uncompress it")
    with opened(shard) as members:
        pictures, labels = _by_key(shard, members)
        samples = []
        for key, picture in pictures.items():
            where = f"{shard}: {picture.path}"
            if key not in labels:
                raise Refused(
                    f"{where}: found no label; expected {key}.cls or {key}.json beside it"
                )
            if picture.size > MAX_PICTURE:
                raise Refused(
                    f"{where}: found {picture.size} bytes; expected at most {MAX_PICTURE}"
                )
            label, name = _label(f"{shard}: {labels[key].path}", labels[key], numbered)
            name = name or f"{shard.stem}/{picture.path}"
            try:
                check_printable(name)
            except ValueError as error:
                raise Refused(f"{shard}: {error}") from None
            samples.append(_Sample(label, name, picture.start, picture.size))
    return samples


def _by_key(shard: Path, members: Iterable[Member]) -> tuple[dict[str, Member], dict[str, Member]]:
    """The pictures of a shard, and the labels, by key."""
    pictures: dict[str, Member] = {}
    labels: dict[str, Member] = {}
    for member in members:
        folder, slash, name = member.path.rpartition("/")
        if any(map(is_hidden, member.path.split("/"))):
            continue
        stem, _, extension = name.partition(".")
        extension = extension.lower()
        kind = pictures if f".{extension}" in SUFFIXES else labels
        if kind is pictures or extension in ("cls", "json"):
            key = f"{folder}{slash}{stem}"
            if key in kind:
                both = f"{kind[key].path} and {member.path}"
                raise Refused(f"{shard}: found {both}; expected one of them for each key")
            kind[key] = member
    return pictures, labels


def _label(where: str, member: Member, numbered: Sequence[str]) -> tuple[str, str | None]:
    """The class and, if it has one, the name of a picture, from the .cls or .json beside it."""
    if member.size > MAX_LABEL:
        raise Refused(f"{where}: found {member.size} bytes; expected a label, at most {MAX_LABEL}")
    with member.open() as file:
        content = file.read()
    picture = None
    try:
        if member.path.lower().endswith(".json"):
            about = _Label.model_validate_json(content)
            text, picture = "" if about.name is None else str(about.name), about.picture
        else:
            text = content.decode("utf-8-sig").strip()
        if not text or len(text) > 255 or "/" in text or is_hidden(text):
            raise ValueError(f"found {text[:80]!r}")
        check_printable(text)
    except (ValidationError, UnicodeDecodeError, ValueError) as error:
        found = "" if isinstance(error, ValidationError) else f" ({error})"
        raise Refused(
            f"{where}: found no class's name or number{found}; expected one as text or, in JSON, as"
            ' {"class": ...}'
        ) from None
    if not numbered:
        return text, picture
    if re.fullmatch("[0-9]{1,9}", text) and int(text) < len(numbered):
        return numbered[int(text)], picture
    if text not in numbered:
        raise Refused(
            f"{where}: found class {text!r}; expected a name in {CLASSES} or a number below"
            f" {len(numbered)}"
        )
    return text, picture


def _numbered_classes(source: Path) -> list[str]:
    """The lines of classes.txt, if there is one."""
    path = source / CLASSES
    if not path.exists():
        return []
    if not path.is_file() or path.stat().st_size > MAX_CLASSES:
        raise ValueError(f"{path}: expected a file of at most {MAX_CLASSES:,} bytes")
    try:
        names = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: found letters in an unknown encoding; expected UTF-8") from None
    if not names:
        raise ValueError(f"{path}: found no line; expected one per class")
    return names


def _checked_classes(source: Path, by_split: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """The classes of both splits, sorted."""
    for split, names in by_split.items():
        if len(names) < 2:
            found = f"one class, {min(names)}" if names else "no pictures"
            raise ValueError(f"{source}: {split}: found {found}; expected two classes or more")
        if only := sorted({*by_split["train"]} ^ {*names}):
            raise ValueError(
                f"{source}: found class {only[0]} in only one of train and test; expected the"
                " same classes in both"
            )
    classes = tuple(sorted(by_split["train"]))
    try:
        check_names(classes)
    except ValueError as error:
        raise ValueError(f"{source}: classes: {error}") from None
    return classes


def _check_distinct(source: Path, names: Sequence[str]) -> None:
    import numpy as np

    hashes = np.fromiter(map(hash, names), np.int64, len(names))
    hashes.sort()
    if (hashes[1:] != hashes[:-1]).all():  # a set of the names would take ten times the memory
        return
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{source}: found the picture {name} twice; expected it once")
        seen.add(name)
