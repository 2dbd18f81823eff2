"""Archives -> folders. An archive is hostile until checked: every member before a byte is written.

What is read and what it can do: zip and tar (plain, gzip, bzip2, xz), told by content, not by name.
Members may be files and folders with relative paths; whatever else one is, its name is told.
"""

import bz2
import gzip
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from errno import EINVAL
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import IO, NoReturn, cast

from tqdm import tqdm

from stages.images.folders import is_hidden
from stages.sources.portable_names import check_names

MOST_MEMBERS = 1_000_000  # as many pictures as ImageNet has for training, in round figures
MOST_BYTES = 100 * 10**9  # unpacked; ten times Food-101, and few disks have less
CHUNK = 2**20  # bytes
LONGEST_READ = 2 * CHUNK  # more at once, and it is a header made to fill the memory

ENCRYPTED, UTF_8 = 0x1, 0x800  # flags of a member of a zip
UNIX = 3  # the system whose kinds of file a zip's member tells

COMPRESSIONS = {b"\x1f\x8b": gzip.GzipFile, b"BZh": bz2.BZ2File, b"\xfd7zXZ\x00": lzma.LZMAFile}


class Refused(ValueError):
    """What is in an archive is not to be trusted."""


@dataclass(frozen=True)
class Member:
    """A file in an archive: its path, what it says its size is, and what opens it."""

    path: str
    size: int
    open: Callable[[], IO[bytes]]


def is_archive(path: Path) -> bool:
    """Whether the file at `path` begins like an archive that `unpack` reads."""
    return _is_zip(path) or _is_tar(path)


def check(path: Path) -> None:
    """Check every member of the archive at `path`. Raises ValueError as `unpack` does."""
    with _opened(path):
        pass


def unpack(path: Path, folder: Path) -> None:
    """Unpack the archive at `path` into `folder`, but for hidden files.

    Raises ValueError with the name of the first member that leads out of the folder, that is
    neither a file nor a folder, is encrypted, has another's name or one that is not the same on
    every system, and where there is too much, or the archive is broken or cut off. All that is
    checked first but for what only unpacking can show: a member longer than it says, or broken.
    """
    with _opened(path) as members:
        seen = [m for m in members if not any(map(is_hidden, m.path.split("/")))]
        left = MOST_BYTES
        for member in tqdm(seen, desc=path.name, unit=" files", disable=None, leave=False):
            target = folder / member.path
            target.parent.mkdir(parents=True, exist_ok=True)
            left -= _write(path, member, target, left)


def _write(archive: Path, member: Member, target: Path, most: int) -> int:
    """Write one member's bytes, at most `most`; return how many."""
    size = 0
    with _broken(archive, member.path), closing(member.open()) as source, target.open("xb") as file:
        while chunk := source.read(CHUNK):
            size += file.write(chunk)
            if size > min(member.size, most):
                raise Refused(
                    f"{archive}: {member.path}: more than the {member.size} bytes that it says;"
                    " the archive is broken or made to harm"
                )
    if size < member.size:
        raise ValueError(f"{archive}: {member.path}: {size} bytes; it says {member.size}: cut off")
    return size


@contextmanager
def _opened(path: Path) -> Iterator[list[Member]]:
    """The files in the archive at `path`, every member checked."""
    open_members = _open_zip if _is_zip(path) else _open_tar
    with open_members(path) as members:
        try:
            check_names(member.path for member in members)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        yield members


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def _is_tar(path: Path) -> bool:
    try:
        with _uncompressed(path) as file:
            return file.read(512)[257:262] == b"ustar"
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return False


def _uncompressed(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        start = file.read(6)
    for magic, opener in COMPRESSIONS.items():
        if start.startswith(magic):
            return cast("IO[bytes]", opener(path))
    return path.open("rb")


@contextmanager
def _open_zip(path: Path) -> Iterator[list[Member]]:
    with _broken(path):
        archive = zipfile.ZipFile(path)
    with archive:
        members, count = [], _Count(path)
        for info in archive.infolist():
            name = _zip_name(path, info)
            count.add(name, info.file_size)
            kind = stat.S_IFMT(info.external_attr >> 16) if info.create_system == UNIX else 0
            if not name:
                _refuse(path, "a member", "without a name")
            if stat.S_ISLNK(kind):
                _refuse(path, name, "a link")
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                _refuse(path, name, "neither a file nor a folder")
            if info.flag_bits & ENCRYPTED:
                _refuse(path, name, "encrypted")
            relative = _relative(path, name)
            if relative and not info.is_dir():
                members.append(Member(relative, info.file_size, partial(archive.open, info)))
        yield members


def _zip_name(path: Path, info: zipfile.ZipInfo) -> str:
    """A member's name. One that is not marked as UTF-8 may still be (macOS does not mark it)."""
    name = info.orig_filename
    if info.flag_bits & UTF_8 or name.isascii():
        return name
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        _refuse(path, name, "letters in an unknown encoding", "pack it as tar, or as zip in UTF-8")


@contextmanager
def _open_tar(path: Path) -> Iterator[list[Member]]:
    with _uncompressed(path) as file:
        with _broken(path):
            archive = tarfile.TarFile(fileobj=_short_reads(file, path), encoding="utf-8")
        with archive:
            members, count = [], _Count(path)
            with _broken(path):
                for info in archive:
                    count.add(info.name, info.size)
                    if info.issym() or info.islnk():
                        _refuse(path, info.name, "a link")
                    if info.issparse():  # of which a few bytes can unpack to a full disk
                        _refuse(path, info.name, "a sparse file")
                    if not (info.isreg() or info.isdir()):
                        _refuse(path, info.name, "neither a file nor a folder")
                    relative = _relative(path, info.name)
                    if relative and info.isreg():
                        opener = cast(
                            "Callable[[], IO[bytes]]", partial(archive.extractfile, info)
                        )  # None is for what is not a regular file
                        members.append(Member(relative, info.size, opener))
                _check_end(path, file, archive.offset)
            yield members


def _check_end(path: Path, file: IO[bytes], offset: int) -> None:
    """A tar ends with zeros; where tarfile stops it may have met something else, or nothing."""
    file.seek(offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise Refused(f"{path}: broken or cut off: no end mark at byte {offset}")


def _short_reads(file: IO[bytes], path: Path) -> IO[bytes]:
    """`file`, of which no header can make tarfile read more into memory than headers need."""
    read = file.read

    def read_little(size: int = -1) -> bytes:
        if not 0 <= size <= LONGEST_READ:
            raise Refused(f"{path}: a header of {size} bytes: broken or made to harm")
        return read(size)

    return cast("IO[bytes]", SimpleNamespace(read=read_little, seek=file.seek, tell=file.tell))


class _Count:
    """How many members an archive has and how many bytes they say they are, both bounded."""

    def __init__(self, path: Path) -> None:
        self.path, self.members, self.bytes = path, 0, 0

    def add(self, name: str, size: int) -> None:
        self.members += 1
        self.bytes += size
        if size < 0:
            _refuse(self.path, name, f"a size of {size}")
        if self.members > MOST_MEMBERS:
            _refuse(self.path, name, f"more than {MOST_MEMBERS:,} members", "split the archive")
        if self.bytes > MOST_BYTES:
            _refuse(self.path, name, f"more than {MOST_BYTES:,} bytes in all", "unpack it yourself")


def _relative(path: Path, name: str) -> str:
    """A member's path without what does nothing; empty for the top itself."""
    if "\\" in name:
        _refuse(path, name, "a backslash", "pack it with / between folders")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        _refuse(path, name, "an absolute path")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        _refuse(path, name, "a path out of the folder")
    return "/".join(parts)


def _refuse(path: Path, name: str, what: str, remedy: str = "pack it again without it") -> NoReturn:
    raise Refused(f"{path}: {name}: {what}; {remedy}")


@contextmanager
def _broken(path: Path, member: str = "") -> Iterator[None]:
    """Tell what the formats' readers raise as one error: the archive is broken."""
    where = f"{path}: {member}" if member else f"{path}"
    try:
        yield
    except Refused:
        raise
    except (
        *(EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile),
        *(gzip.BadGzipFile, NotImplementedError, OverflowError, ValueError, MemoryError),
    ) as error:
        raise ValueError(f"{where}: broken, cut off or of an unknown kind: {error}") from None
    except OSError as error:
        if error.errno not in (None, EINVAL):  # the system's own: a full disk, say
            raise
        raise ValueError(f"{where}: broken: {error}") from None  # bz2's, or a seek to nowhere
