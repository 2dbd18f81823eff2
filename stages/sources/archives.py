"""Unpack zip and tar archives from anywhere: nothing is trusted that has not been checked.

The first bytes tell a zip from a tar (plain, gzip, bzip2 or xz), not the name. Every member's name,
kind and size is checked before a byte is written, and a tar is read to its end, so that the
checksum of its compression is verified. A zip has one checksum per member, verified on unpacking.
"""

import bz2
import gzip
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from errno import EINVAL
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import IO, cast

from tqdm import tqdm

from stages.images.folders import is_hidden
from stages.sources.portable_names import check_names

MAX_MEMBERS = 1_000_000  # about as many as ImageNet has training pictures
MAX_BYTES = 100 * 10**9  # unpacked; ten times Food-101
MAX_PADDING = 2**26  # bytes of zeros at the end of a tar; GNU tar and Python pad to 10 KiB
CHUNK = 2**20  # bytes
MAX_HEADER = 2 * CHUNK  # bytes; tarfile holds a header in memory

COMPRESSIONS = {b"\x1f\x8b": gzip.GzipFile, b"BZh": bz2.BZ2File, b"\xfd7zXZ\x00": lzma.LZMAFile}
# Of the zip format (APPNOTE 4.4.2, 4.4.4, 4.3.16).
UNIX = 3  # the system whose file modes a member carries
ENCRYPTED, UTF_8 = 0x1, 0x800  # flags of a member
END_OF_DIRECTORY, MAX_COMMENT = b"PK\x05\x06", 2**16

FILE, FOLDER, LINK, OTHER = "a file", "a folder", "a link", "neither a file nor a folder"
REPACK = "repack the archive without it"


class Refused(ValueError):
    """An archive is broken, or not to be trusted."""


@dataclass(frozen=True)
class Member:
    """An entry of an archive: its path, what it is, its stated size in bytes, how to open it.

    In a tar, its content starts at byte `start` of the uncompressed file.
    """

    path: str
    kind: str
    size: int
    open: Callable[[], IO[bytes]]
    start: int = 0


def is_archive(path: Path) -> bool:
    """Whether the file at `path` begins like an archive that `unpack` reads."""
    return _is_zip(path) or _is_tar(path)


def check(path: Path) -> None:
    """Check the archive at `path` without unpacking it. Raises Refused as `unpack` does."""
    with opened(path) as members:
        _check_names(path, members)


def unpack(path: Path, folder: Path) -> None:
    """Unpack the files of the archive at `path` into `folder`, except hidden ones.

    Raises Refused if the archive is broken, cut off or too large, or if a member leads out of
    `folder`, is neither a file nor a folder, is encrypted, or has a name that `check_names`
    refuses. Only what unpacking alone can show is found after the first byte has been written:
    a member of another size than stated, or with a wrong checksum (zip).
    """
    with opened(path) as members:
        _check_names(path, members)
        for member in tqdm(members, desc=path.name, unit=" files", disable=None, leave=False):
            # Hidden files are read as well: one wrong bit hides a file, and opening it shows that.
            hidden = any(map(is_hidden, member.path.split("/")))
            target = Path(os.devnull) if hidden else folder / member.path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb" if hidden else "xb") as file:
                _copy(path, member, file)


def _copy(archive: Path, member: Member, file: IO[bytes]) -> None:
    """Write a member's bytes to `file`, at most one chunk more than its stated size."""
    size = 0
    with _broken(archive, member.path), closing(member.open()) as source:
        while size <= member.size and (chunk := source.read(CHUNK)):
            size += file.write(chunk)
    if size != member.size:
        found = f"more than {member.size}" if size > member.size else size
        raise Refused(
            f"{archive}: {member.path}: found {found} bytes; expected {member.size}, as the archive"
            " states: it is broken"
        )


@contextmanager
def opened(path: Path) -> Iterator[list[Member]]:
    """Yield the files in the archive at `path`, after checking all of every member but its name.

    Raises Refused as `unpack` does.
    """
    read_members = _zip_members if _is_zip(path) else _tar_members
    with ExitStack() as stack:
        with _broken(path):
            files = _checked_files(path, read_members(path, stack))
        yield files


def _check_names(archive: Path, files: Iterable[Member]) -> None:
    try:
        check_names(file.path for file in files)
    except ValueError as error:
        raise Refused(f"{archive}: {error}") from None


def _checked_files(archive: Path, members: Iterable[Member]) -> list[Member]:
    """Return the files among `members`, their paths normalized. Raises Refused."""
    files, total = [], 0
    for count, member in enumerate(members, 1):
        parts = member.path.split("/")
        total += member.size
        problems = (
            (count > MAX_MEMBERS, f"more than {MAX_MEMBERS:,} members; split the archive"),
            (total > MAX_BYTES, f"more than {MAX_BYTES:,} bytes in all; unpack it yourself"),
            (member.size < 0, f"a size of {member.size} bytes; {REPACK}"),
            (not member.path, f"no name; {REPACK}"),
            (member.kind not in (FILE, FOLDER), f"{member.kind}; {REPACK}"),
            (member.kind == FOLDER and member.size > 0, f"a folder with content; {REPACK}"),
            ("\\" in member.path, "a backslash; repack with / between folders"),
            (parts[0] == "" or re.match("[A-Za-z]:", parts[0]), f"an absolute path; {REPACK}"),
            (".." in parts, f"a path that leads out of the folder; {REPACK}"),
        )
        for is_wrong, problem in problems:
            if is_wrong:
                raise Refused(f"{archive}: {member.path or f'member {count}'}: {problem}")
        path = "/".join(part for part in parts if part not in ("", "."))
        if path and member.kind == FILE:
            files.append(replace(member, path=path))
    return files


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", END_OF_DIRECTORY)


def _zip_members(path: Path, stack: ExitStack) -> Iterator[Member]:
    archive = stack.enter_context(zipfile.ZipFile(path))
    for info in archive.infolist():
        name = _zip_name(path, info)
        mode = stat.S_IFMT(info.external_attr >> 16) if info.create_system == UNIX else 0
        if info.flag_bits & ENCRYPTED:
            kind = "encrypted"
        elif mode == stat.S_IFLNK:
            kind = LINK
        elif mode not in (0, stat.S_IFREG, stat.S_IFDIR):
            kind = OTHER
        else:
            kind = FOLDER if name.endswith("/") else FILE
        yield Member(name, kind, info.file_size, partial(archive.open, info))
    _check_zip_count(path, len(archive.infolist()))


def _zip_name(path: Path, info: zipfile.ZipInfo) -> str:
    """A member's name. One that is not marked as UTF-8 may be it all the same, as from macOS."""
    name = info.orig_filename
    if info.flag_bits & UTF_8 or name.isascii():
        return name
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        raise Refused(
            f"{path}: {name}: letters in an unknown encoding; repack it as tar or as zip in UTF-8"
        ) from None


def _check_zip_count(path: Path, found: int) -> None:
    """Compare with the count at the zip's end: one wrong bit in a length swallows members."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - MAX_COMMENT - 22))
        end = file.read().rpartition(END_OF_DIRECTORY)[2]
    stated = int.from_bytes(end[6:8], "little")
    if stated not in (found % 2**16, 2**16 - 1):  # the latter means: see the zip64 record
        raise Refused(f"{path}: found {found} members; expected {stated}: the archive is broken")


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


def _tar_members(path: Path, stack: ExitStack) -> Iterator[Member]:
    file = stack.enter_context(_uncompressed(path))
    bounded = _with_bounded_reads(path, file)
    archive = stack.enter_context(tarfile.TarFile(fileobj=bounded, encoding="utf-8"))
    for info in archive:
        if info.issparse():  # a few bytes of it unpack to a full disk
            kind = "a sparse file"
        elif info.isreg() or info.isdir():
            kind = FILE if info.isreg() else FOLDER
        else:
            kind = LINK if info.issym() or info.islnk() else OTHER
        opener = cast("Callable[[], IO[bytes]]", partial(archive.extractfile, info))
        yield Member(info.name, kind, info.size, opener, info.offset_data)
    _check_tar_end(path, file, archive.offset)


def _with_bounded_reads(path: Path, file: IO[bytes]) -> IO[bytes]:
    """`file` for tarfile, which reads a header into memory at whatever size it states."""

    def read(size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER:
            raise Refused(f"{path}: found a header of {size} bytes; expected at most {MAX_HEADER}")
        return file.read(size)

    return cast("IO[bytes]", SimpleNamespace(read=read, seek=file.seek, tell=file.tell))


def _check_tar_end(path: Path, file: IO[bytes], offset: int) -> None:
    """Check that two blocks of zeros and nothing else follow where tarfile stopped.

    It stops at anything that is not a header. Reading on to the end of the file is what makes
    gzip, bzip2 and xz compare their checksum.
    """
    file.seek(offset)
    length, is_zero = 0, True
    while is_zero and length <= MAX_PADDING and (chunk := file.read(CHUNK)):
        length += len(chunk)
        is_zero = not chunk.strip(b"\x00")
    if not is_zero or not 2 * tarfile.BLOCKSIZE <= length <= MAX_PADDING:
        raise Refused(
            f"{path}: found no end mark at byte {offset}; expected two blocks of zeros and nothing"
            " after them: the archive is broken, cut off or two in one file"
        )


@contextmanager
def _broken(path: Path, member: str = "") -> Iterator[None]:
    """Turn what the readers of the formats raise into Refused."""
    where = f"{path}: {member}" if member else f"{path}"
    try:
        yield
    except Refused:
        raise
    except (
        *(EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile),
        *(gzip.BadGzipFile, NotImplementedError, OverflowError, ValueError, MemoryError),
        RecursionError,  # tarfile's, for a header that follows a header, and so on
    ) as error:
        raise Refused(f"{where}: broken, cut off or of an unknown kind: {error}") from None
    except OSError as error:
        if error.errno not in (None, EINVAL):  # the operating system's, such as a full disk
            raise
        raise Refused(f"{where}: broken: {error}") from None  # bz2's, or a seek out of the file
