import errno
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from stages.base.whole_files import whole_file, whole_folder, write_bytes, write_text
from tests.conftest import ROOT


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with old content, alone in its folder."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    return path


def test_new_content_replaces_an_older_file(path: Path) -> None:
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_parent_folders_are_created(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a" / "b" / "file", b"new")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"new"


def test_text_is_written_as_utf_8_with_line_feeds(path: Path) -> None:
    write_text(path, "é\n")
    assert path.read_bytes() == b"\xc3\xa9\n"


def test_the_old_file_stays_until_the_block_ends(path: Path) -> None:
    with whole_file(path) as part:
        part.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert part.parent == path.parent  # renaming across file systems is not atomic
        assert part.name.endswith(".part")  # what .gitignore and .dvcignore list
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_block_that_raises_leaves_the_old_file_alone(
    path: Path, error: type[BaseException]
) -> None:
    with pytest.raises(error), whole_file(path) as part:  # noqa: PT012  # it raises halfway
        part.write_bytes(b"half of the n")
        raise error
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(part: Path, content: bytes) -> NoReturn:
        with part.open("wb") as file:
            file.write(content[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_a_killed_writer_leaves_the_old_content(path: Path) -> None:
    program = """
import os, signal, sys
from pathlib import Path
from stages.base.whole_files import whole_file

with whole_file(Path(sys.argv[1])) as part:
    part.write_bytes(b"half of the n")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    result = subprocess.run([sys.executable, "-c", program, path], cwd=ROOT, check=False)
    assert result.returncode == -9
    assert path.read_bytes() == b"old"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an old file, alone in its folder."""
    folder = tmp_path / "folder"
    write_bytes(folder / "deep" / "file", b"old")
    return folder


def content_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_the_old_folder_stays_until_the_block_ends(folder: Path) -> None:
    with whole_folder(folder) as part:
        (part / "new").write_bytes(b"new")
        assert content_of(folder) == {"deep/file": b"old"}
        assert part.parent.parent == folder.parent  # renaming across file systems is not atomic
        assert part.parent.name.endswith(".part")  # what .gitignore and .dvcignore list
    assert content_of(folder.parent) == {"folder/new": b"new"}


def test_a_folder_is_created_with_its_parents(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "a" / "b") as part:
        (part / "file").write_bytes(b"new")
    assert content_of(tmp_path) == {"a/b/file": b"new"}
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == tmp_path.joinpath(
        "a"
    ).stat().st_mode & 0o777


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_block_that_raises_leaves_the_old_folder_alone(
    folder: Path, error: type[BaseException]
) -> None:
    with pytest.raises(error), whole_folder(folder) as part:  # noqa: PT012  # it raises halfway
        (part / "new").write_bytes(b"half of the n")
        raise error
    assert content_of(folder.parent) == {"folder/deep/file": b"old"}


def test_a_failed_rename_brings_the_old_folder_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise PermissionError("not allowed")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(PermissionError), whole_folder(folder):
        pass
    assert content_of(folder.parent) == {"folder/deep/file": b"old"}


def test_when_two_write_at_once_the_last_is_in_place_and_whole(folder: Path) -> None:
    with whole_folder(folder) as first:
        (first / "first").write_bytes(b"1")
        with whole_folder(folder) as second:
            (second / "second").write_bytes(b"2")
        assert content_of(folder) == {"second": b"2"}
    assert content_of(folder.parent) == {"folder/first": b"1"}


def test_a_folder_put_there_between_the_two_renames_is_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, quicker = Path.rename, [b"another process"]

    def rename_late(path: Path, target: Path) -> Path:
        if path.name == "new" and quicker:
            write_bytes(folder / "file", quicker.pop())
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_late)
    with whole_folder(folder) as part:
        (part / "new").write_bytes(b"new")
    assert content_of(folder.parent) == {"folder/new": b"new"}


def test_a_link_to_a_folder_stays_a_link(folder: Path) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    with whole_folder(link) as part:
        (part / "new").write_bytes(b"new")
    assert link.is_symlink()
    assert content_of(folder) == {"new": b"new"}
