"""Broken and hostile archives. Whatever is refused is refused before a file is written."""

import hashlib
import io
import shutil
import stat
import struct
import subprocess
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.sources import archives
from stages.sources.archives import Refused, check, is_archive, unpack

FILES = {"cat/1 猫.png": b"one" * 1000, "dog/2.png": b"two", "dog/.hidden": b"x"}
TARS = {"tar": "w", "tar.gz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}


def make_zip(path: Path, *names: str | zipfile.ZipInfo, content: bytes = b"x") -> Path:
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return path


def make_tar(path: Path, *members: str | tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as archive:
        for member in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    return path


def pack(path: Path, kind: str, files: dict[str, bytes]) -> Path:
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, TARS[kind]) as tar:  # type: ignore[call-overload]  # one of TARS
        for name, content in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def unpacked(path: Path) -> dict[str, bytes]:
    """What `unpack` puts into a new folder."""
    folder = path.parent / "unpacked"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    unpack(path, folder)
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def assert_refused(path: Path, problem: str) -> None:
    """Check that `unpack` refuses the archive in one line that names it, and writes nothing."""
    with pytest.raises(Refused, match=problem) as error:
        unpacked(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert not list((path.parent / "unpacked").iterdir())


@pytest.mark.parametrize("kind", ["zip", *TARS])
def test_an_archive_is_unpacked_without_hidden_files_whatever_its_name(
    tmp_path: Path, kind: str
) -> None:
    path = pack(tmp_path / "an archive", kind, FILES)
    assert is_archive(path)
    check(path)
    assert unpacked(path) == {name: FILES[name] for name in FILES if ".hidden" not in name}


@pytest.mark.parametrize("compression", ["--no-auto-compress", "--gzip", "--bzip2", "--xz"])
def test_what_gnu_tar_writes_is_unpacked(tmp_path: Path, compression: str) -> None:
    files = {f"{'deep/' * 30}{number}.png": bytes([number]) * 700 for number in range(3)}
    for name, content in files.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(content)
    command = ["tar", "--create", compression, "--file=archive", "--directory=folder", "."]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert unpacked(tmp_path / "archive") == files


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"\x1f\x8bx", b"BZh9", b"\xfd7zXZ\x00", b"x" * 999]
)
def test_a_file_that_does_not_begin_like_an_archive_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    assert not is_archive(tmp_path / "a.zip")


# Incompressible, so that nearly every bit of an archive matters.
PICTURES = {f"no{n}.png": hashlib.shake_128(bytes([n])).digest(60) for n in range(2)}


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_one_flipped_bit_never_changes_what_is_unpacked(tmp_path: Path, kind: str) -> None:
    path = pack(tmp_path / "archive", kind, PICTURES)
    content = path.read_bytes()
    refused = 0
    for place in range(len(content)):
        bit = 1 << place * 5 % 8
        path.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
        try:
            assert unpacked(path) == PICTURES, (place, bit)
        except Refused:
            refused += 1
    assert refused > len(content) / 2  # the rest are dates, permissions and the like


@pytest.mark.parametrize("kind", ["zip", *TARS])
def test_an_archive_cut_off_anywhere_is_refused(tmp_path: Path, kind: str) -> None:
    path = pack(tmp_path / "archive", kind, PICTURES)
    content = path.read_bytes()
    if kind == "tar":  # what follows the two blocks of zeros is padding
        content = content[: 2 * (512 + 512) + 2 * 512]
    path.write_bytes(content)
    assert unpacked(path) == PICTURES
    for length in reversed(range(len(content))):
        with path.open("r+b") as file:
            file.truncate(length)
        with pytest.raises(Refused):
            check(path)


def test_a_wrong_checksum_is_found_before_anything_is_written(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tgz", "tar.gz", PICTURES)
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # gzip's CRC
    path.write_bytes(bytes(content))
    assert_refused(path, "CRC check failed")


@pytest.mark.parametrize("after", [b"x", bytes(512) + b"x", "another tar"])
def test_data_after_the_end_mark_of_a_tar_is_refused(tmp_path: Path, after: bytes | str) -> None:
    path = pack(tmp_path / "a.tar", "tar", PICTURES)
    with path.open("ab") as file:
        file.write(path.read_bytes() if isinstance(after, str) else after)
    assert_refused(path, "found no end mark at byte 2048; expected two blocks of zeros and nothing")


def test_endless_padding_of_a_tar_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_PADDING", 6000)
    monkeypatch.setattr(archives, "CHUNK", 1000)
    assert_refused(pack(tmp_path / "a.tgz", "tar.gz", PICTURES), "found no end mark at byte 2048")


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("/etc/passwd", "/etc/passwd: an absolute path"),
        ("C:/x.png", "C:/x.png: an absolute path"),
        ("c:x.png", "c:x.png: an absolute path"),
        ("a/../../x.png", "a/../../x.png: a path that leads out of the folder"),
        ("..", "..: a path that leads out of the folder"),
        (r"a\x.png", r"a\\x.png: a backslash"),
        (r"..\x.png", r"..\\x.png: a backslash"),
        ("a/x\n.png", r"'a/x\\n.png': not printable"),
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(
    tmp_path: Path, make: Callable[..., Path], name: str, problem: str
) -> None:
    assert_refused(make(tmp_path / "archive", "good/1.png", name), problem)


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["a/1.png", "a/1.png"], "a/1.png: found twice"),
        (["a/1.png", "./a//1.png"], "a/1.png: found twice"),
        (["a/1.png", "A/1.png"], "A/1.png: differs from a/1.png only in case"),
        (["a/\u00e9", "a/e\u0301"], "only in Unicode normalization"),
        (["a", "a/b.png"], "a/b.png: leads through the file a"),
        ([".a", ".a"], ".a: found twice"),
    ],
    ids=["same", "same but for dots", "case", "normalization", "through a file", "hidden"],
)
def test_names_that_collide_are_refused(
    tmp_path: Path, make: Callable[..., Path], names: list[str], problem: str
) -> None:
    assert_refused(make(tmp_path / "archive", *names), problem)


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.CHRTYPE, "neither a file nor a folder"),
        (tarfile.BLKTYPE, "neither a file nor a folder"),
        (tarfile.FIFOTYPE, "neither a file nor a folder"),
    ],
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes, problem: str) -> None:
    bad = tarfile.TarInfo("bad")
    bad.type, bad.linkname = kind, "good.png"
    path = make_tar(tmp_path / "a.tar", "good.png", bad)
    assert_refused(path, f"bad: {problem}; repack the archive without it")


@pytest.mark.parametrize(
    ("kind", "problem"), [(stat.S_IFLNK, "a link"), (stat.S_IFIFO, "neither a file nor a folder")]
)
def test_links_and_pipes_in_a_zip_are_refused(tmp_path: Path, kind: int, problem: str) -> None:
    bad = zipfile.ZipInfo("bad")
    bad.create_system, bad.external_attr = archives.UNIX, (kind | 0o644) << 16
    assert_refused(make_zip(tmp_path / "a.zip", "good", bad), f"bad: {problem}")


def edit_headers(path: Path, value: bytes, local: int, central: int) -> None:
    """Overwrite a field of a zip's first member, at these offsets in its two headers."""
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        place = content.index(signature) + offset
        content[place : place + len(value)] = value
    path.write_bytes(bytes(content))


def test_a_file_that_only_the_zip_s_directory_hides_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", "no.png")
    before, _, after = path.read_bytes().rpartition(b"no.png")
    path.write_bytes(before + b".o.png" + after)  # one bit
    assert_refused(path, "File name in directory '.o.png' and header b'no.png' differ")


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", "secret.png")
    edit_headers(path, b"\x01", local=6, central=8)  # the flags
    assert_refused(path, "secret.png: encrypted")


def test_a_folder_with_content_is_refused(tmp_path: Path) -> None:
    assert_refused(make_zip(tmp_path / "a.zip", "x.png/"), "x.png/: a folder with content")


@pytest.mark.parametrize("kind", ["zip", *TARS])
@pytest.mark.parametrize(
    ("bound", "value", "problem"),
    [
        ("MAX_MEMBERS", 2, "dog/.hidden: more than 2 members"),
        ("MAX_BYTES", 3001, "dog/2.png: more than 3,001 bytes in all"),
    ],
)
def test_too_many_members_or_bytes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, bound: str, value: int, problem: str
) -> None:
    monkeypatch.setattr(archives, bound, value)
    assert_refused(pack(tmp_path / "archive", kind, FILES), problem)


def test_a_member_longer_than_stated_does_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(tmp_path / "a.zip", "zip", FILES)
    monkeypatch.setattr(archives, "CHUNK", 1000)
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: io.BytesIO(bytes(10**6)))
    with pytest.raises(Refused, match="1 猫.png: found more than 3000 bytes; expected 3000"):
        unpacked(path)
    assert (tmp_path / "unpacked/cat/1 猫.png").stat().st_size <= 4000


@pytest.mark.parametrize(("stated", "problem"), [(5, "broken"), (9, "found 7 bytes; expected 9")])
def test_a_zip_that_states_a_wrong_size_is_refused(
    tmp_path: Path, stated: int, problem: str
) -> None:
    path = make_zip(tmp_path / "a.zip", content=b"content")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.png", b"content")
    edit_headers(path, struct.pack("<I", stated), local=22, central=24)
    with pytest.raises(Refused, match=f"1.png: {problem}"):
        unpacked(path)


def test_a_tar_with_a_broken_header_is_refused(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", "1.png", "2.png", "3.png")
    content = path.read_bytes()
    path.write_bytes(content[:512] + b"?" * 512 + content[1024:])
    assert_refused(path, "found no end mark at byte 512")


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ({"map": "0,0", "size": str(10**9)}, "a sparse file; repack the archive without it"),
        ({"major": "0", "minor": "1", "map": "a"}, "broken, cut off or of an unknown kind"),
    ],
    ids=["huge", "broken map"],
)
def test_a_sparse_file_is_refused(tmp_path: Path, headers: dict[str, str], problem: str) -> None:
    info = tarfile.TarInfo("sparse.png")
    info.pax_headers = {f"GNU.sparse.{key}": value for key, value in headers.items()}
    assert_refused(make_tar(tmp_path / "a.tar", info), problem)


def test_a_member_without_a_name_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", "n")
    content = path.read_bytes().replace(b"n", b"")
    at = content.index(b"PK\x01\x02")
    content = content[:26] + bytes(2) + content[28 : at + 28] + bytes(2) + content[at + 30 :]
    end = content.index(b"PK\x05\x06")
    size, offset = (end - at).to_bytes(4, "little"), at.to_bytes(4, "little")
    path.write_bytes(content[: end + 12] + size + offset + content[end + 20 :])
    assert_refused(path, "member 1: no name")


def test_a_tar_of_headers_for_headers_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 512  # tarfile reads the next within this one
    path = tmp_path / "a.tar"
    path.write_bytes((info.tobuf(tarfile.GNU_FORMAT) + bytes(512)) * 2000)
    assert_refused(path, "broken, cut off or of an unknown kind")


def test_a_tar_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2**32
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert_refused(path, "found a header of [0-9]+ bytes; expected at most 2097152")


def test_names_in_utf_8_that_are_not_marked_so_are_read(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", "猫.png")
    edit_headers(path, b"\x00\x00", local=6, central=8)  # the flags
    assert unpacked(path).keys() == {"猫.png"}


def test_names_in_another_encoding_are_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", "??.png")
    path.write_bytes(path.read_bytes().replace(b"??", "狗".encode("gbk")))
    assert_refused(path, "letters in an unknown encoding; repack it as tar or as zip in UTF-8")
