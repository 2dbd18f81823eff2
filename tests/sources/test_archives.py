"""Hostile archives, one test a kind; nothing is written before all members are checked."""

import io
import stat
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.sources import archives
from stages.sources.archives import check, is_archive, unpack

FILES = {"cat/1 猫.png": b"one" * 1000, "dog/2.png": b"two", "dog/.hidden": b"x"}
TARS = {"tar": "w", "tar.gz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}


def make_zip(path: Path, *names: str | zipfile.ZipInfo, content: bytes = b"x") -> Path:
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, content)
    return path


def make_tar(path: Path, *members: str | tarfile.TarInfo, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]  # one of TARS
        for member in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    return path


def of_type(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zip_of_mode(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = archives.UNIX, mode << 16
    return info


def pack(path: Path, kind: str) -> Path:
    """FILES as a zip or a tar."""
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in FILES.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, TARS[kind]) as tar:  # type: ignore[call-overload]  # one of TARS
        for name, content in FILES.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def refuse(path: Path, problem: str) -> None:
    """Check that `unpack` refuses the archive, naming it, and writes nothing."""
    target = path.parent / "target"
    target.mkdir()
    with pytest.raises(ValueError, match=problem) as error:
        unpack(path, target)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert not list(target.iterdir())


@pytest.mark.parametrize("kind", ["zip", *TARS])
def test_it_is_unpacked_whatever_its_name(tmp_path: Path, kind: str) -> None:
    path = pack(tmp_path / "an archive", kind)
    assert is_archive(path)
    check(path)
    unpack(path, tmp_path / "to")
    found = {p.relative_to(tmp_path / "to").as_posix(): p for p in (tmp_path / "to").rglob("*.*")}
    assert {name: file.read_bytes() for name, file in found.items()} == {
        name: content for name, content in FILES.items() if ".hidden" not in name
    }


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"\x1f\x8bx", b"BZh9", b"\xfd7zXZ\x00", b"x" * 999]
)
def test_other_files_are_no_archives(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    assert not is_archive(tmp_path / "a.zip")


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("/etc/passwd", "/etc/passwd: an absolute path"),
        ("C:/x.png", "C:/x.png: an absolute path"),
        ("c:x.png", "c:x.png: an absolute path"),
        ("a/../../x.png", "a/../../x.png: a path out of the folder"),
        ("..", "..: a path out of the folder"),
        (r"a\x.png", r"a\\x.png: a backslash"),
        (r"..\x.png", r"..\\x.png: a backslash"),
        ("a/x\n.png", r"'a/x\\n.png': not printable"),
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(
    tmp_path: Path, make: Callable[..., Path], name: str, problem: str
) -> None:
    refuse(make(tmp_path / "archive", "good/1.png", name), problem)


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["a/1.png", "a/1.png"], "a/1.png: twice"),
        (["a/1.png", "./a//1.png"], "a/1.png: twice"),
        (["a/1.png", "A/1.png"], "A/1.png: differs from a/1.png in upper and lower case"),
        (["a/\u00e9", "a/e\u0301"], "letters composed"),
        (["a", "a/b.png"], "a/b.png: leads through the file a"),
        ([".a", ".a"], ".a: twice"),
    ],
    ids=["same", "same otherwise spelt", "case", "composed", "through a file", "hidden"],
)
def test_names_that_collide_are_refused(
    tmp_path: Path, make: Callable[..., Path], names: list[str], problem: str
) -> None:
    refuse(make(tmp_path / "archive", *names), problem)


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (tarfile.SYMTYPE, "bad: a link"),
        (tarfile.LNKTYPE, "bad: a link"),
        (tarfile.CHRTYPE, "bad: neither a file nor a folder"),
        (tarfile.BLKTYPE, "bad: neither"),
        (tarfile.FIFOTYPE, "bad: neither"),
    ],
)
def test_a_tar_s_links_and_devices_are_refused(tmp_path: Path, kind: bytes, problem: str) -> None:
    refuse(make_tar(tmp_path / "a.tar", "good.png", of_type("bad", kind, "good.png")), problem)


@pytest.mark.parametrize(
    ("kind", "problem"), [(stat.S_IFLNK, "a link"), (stat.S_IFIFO, "neither a file nor a folder")]
)
def test_a_zip_s_links_and_devices_are_refused(tmp_path: Path, kind: int, problem: str) -> None:
    refuse(
        make_zip(tmp_path / "a.zip", "good", zip_of_mode("bad", kind | 0o644)), f"bad: {problem}"
    )


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", "secret.png")
    content = path.read_bytes()
    for start, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flags of both headers
        at = content.index(start) + offset
        content = content[:at] + b"\x01" + content[at + 1 :]
    path.write_bytes(content)
    refuse(path, "secret.png: encrypted")


@pytest.mark.parametrize("kind", ["zip", *TARS])
@pytest.mark.parametrize(
    ("bound", "value", "problem"),
    [
        ("MOST_MEMBERS", 2, "dog/.hidden: more than 2 members"),
        ("MOST_BYTES", 3001, "dog/2.png: more than 3,001 bytes in all"),
    ],
)
def test_too_many_members_or_bytes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, bound: str, value: int, problem: str
) -> None:
    monkeypatch.setattr(archives, bound, value)
    refuse(pack(tmp_path / "archive", kind), problem)


def test_a_member_longer_than_it_says_fills_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(tmp_path / "a.zip", "zip")
    endless = io.BytesIO(bytes(10**6))
    monkeypatch.setattr(archives, "CHUNK", 1000)
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: endless)
    with pytest.raises(ValueError, match="1 猫.png: more than the 3000 bytes that it says"):
        unpack(path, tmp_path / "to")
    assert (tmp_path / "to/cat/1 猫.png").stat().st_size <= 4000


def test_a_zip_that_understates_a_size_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", "zip")
    content = path.read_bytes()
    at = content.index(b"PK\x01\x02") + 24  # the first member's size in the directory
    assert content[at : at + 4] == struct.pack("<I", 3000)
    path.write_bytes(content[:at] + struct.pack("<I", 5) + content[at + 4 :])
    with pytest.raises(ValueError, match="1 猫.png: broken"):
        unpack(path, tmp_path / "to")


@pytest.mark.parametrize("kind", TARS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_tar_cut_off_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    path = tmp_path / "archive"
    with tarfile.open(path, TARS[kind]) as tar:  # type: ignore[call-overload]  # one of TARS
        for number in range(20):
            info = tarfile.TarInfo(f"{number}.png")
            info.size = 5000
            tar.addfile(info, io.BytesIO(bytes((number * i) % 251 for i in range(5000))))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refuse(path, "broken|cut off")


def test_a_tar_that_ends_between_two_members_is_refused(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", "1.png", "2.png")
    path.write_bytes(path.read_bytes()[:1024])
    refuse(path, "no end mark at byte 1024")


def test_a_tar_with_a_broken_header_is_refused(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", "1.png", "2.png", "3.png")
    content = path.read_bytes()
    path.write_bytes(content[:512] + b"?" * 512 + content[1024:])
    refuse(path, "broken or cut off: no end mark at byte 512")


def test_a_sparse_file_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("huge.png")
    info.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(10**9)}
    refuse(make_tar(tmp_path / "a.tar", info), "huge.png: a sparse file; pack it again without it")


def test_a_sparse_file_with_a_broken_map_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x.png")
    info.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "a"}
    refuse(make_tar(tmp_path / "a.tar", info), "broken, cut off or of an unknown kind")


def test_a_member_without_a_name_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", "n")
    content = path.read_bytes().replace(b"n", b"")
    at = content.index(b"PK\x01\x02")
    content = content[:26] + bytes(2) + content[28 : at + 28] + bytes(2) + content[at + 30 :]
    end = content.index(b"PK\x05\x06")
    size, offset = (end - at).to_bytes(4, "little"), at.to_bytes(4, "little")
    path.write_bytes(content[: end + 12] + size + offset + content[end + 20 :])
    refuse(path, "a member: without a name")


def test_a_tar_header_that_fills_the_memory_is_refused(tmp_path: Path) -> None:
    info = of_type("x", tarfile.XHDTYPE)
    info.size = 2**32
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    refuse(path, "a header of [0-9]+ bytes: broken or made to harm")


def test_a_zip_cut_off_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", "zip")
    path.write_bytes(path.read_bytes()[:-30])
    refuse(path, "broken")


def test_a_zip_with_a_wrong_byte_is_refused_with_the_member(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", "1.png", "2.png", content=b"content")
    path.write_bytes(path.read_bytes().replace(b"content", b"contend"))
    with pytest.raises(ValueError, match="1.png: broken"):
        unpack(path, tmp_path / "to")


def test_names_in_utf_8_that_are_not_marked_so_are_read(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", "猫.png")
    content = bytearray(path.read_bytes())
    for start, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flags of both headers
        at = content.index(start) + offset
        content[at : at + 2] = b"\x00\x00"
    path.write_bytes(bytes(content))
    unpack(path, tmp_path / "to")
    assert [file.name for file in (tmp_path / "to").iterdir()] == ["猫.png"]


def test_names_in_another_alphabet_are_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", "??.png")
    path.write_bytes(path.read_bytes().replace(b"??", "狗".encode("gbk")))
    refuse(path, "letters in an unknown encoding")
