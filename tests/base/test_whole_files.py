import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest

from stages.base import whole_files as whole_files_module
from stages.base.whole_files import (
    whole_file,
    whole_files,
    whole_folder,
    write_bytes,
    write_text,
)
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
        assert part.parent.parent == path.parent  # renaming across file systems is not atomic
        assert part.parent.name.endswith(".part")  # what .gitignore and .dvcignore list
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


@pytest.fixture(params=["exchanged", "renamed"])
def exchange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to replace: with and without a system that exchanges two paths in one step."""
    if request.param == "renamed":

        def unsupported(*_: Path) -> NoReturn:
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr(whole_files_module, "_exchange_in_one_step", unsupported)
    return str(request.param)


def fail_at(monkeypatch: pytest.MonkeyPatch, count: int, error: BaseException) -> None:
    """Let the `count`th of all renames and exchanges raise `error` instead."""
    left = [count]

    def failing(operation: Callable[..., Any]) -> Callable[..., Any]:
        def operate(*arguments: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise error
            return operation(*arguments)

        return operate

    for owner, name in (
        *((Path, name) for name in ("rename", "replace")),
        (whole_files_module, "_exchange_in_one_step"),
    ):
        monkeypatch.setattr(owner, name, failing(getattr(owner, name)))


@pytest.mark.parametrize("count", range(1, 5))
def test_a_failed_rename_brings_the_old_folder_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch, exchange: str, count: int
) -> None:
    fail_at(monkeypatch, count, PermissionError("not allowed"))
    expected = "folder/new" if count > (1 if exchange == "exchanged" else 4) else "folder/deep/file"
    with suppress(PermissionError), whole_folder(folder) as part:
        (part / "new").write_bytes(b"new")
    assert list(content_of(folder.parent)) == [expected]


OLD = {"a/1": b"old 1", "a/2": b"old 2", "b/3": b"old 3"}
NEW = {"a/1": b"new 1", "a/2": b"new 2", "b/3": b"new 3", "c/4": b"new 4"}


def replace_files(folder: Path) -> None:
    """Replace the files OLD in a folder by the files NEW."""
    with whole_files() as files:
        for name, content in NEW.items():
            files.part(folder / name).write_bytes(content)
        assert {name: c for name, c in content_of(folder).items() if ".part" not in name} == OLD


@pytest.fixture
def old_files(tmp_path: Path) -> Path:
    for name, content in OLD.items():
        write_bytes(tmp_path / name, content)
    return tmp_path


def test_several_files_are_replaced_together(old_files: Path, exchange: str) -> None:
    replace_files(old_files)
    assert content_of(old_files) == NEW, exchange


@pytest.mark.parametrize("count", range(1, 14))
def test_a_failed_rename_brings_all_old_files_back(
    old_files: Path, monkeypatch: pytest.MonkeyPatch, exchange: str, count: int
) -> None:
    # Three exchanges, and a rename to where nothing is; without exchanges, three renames for each.
    renames = 4 if exchange == "exchanged" else 13
    fail_at(monkeypatch, count, PermissionError("not allowed"))
    if count <= renames:
        with pytest.raises(PermissionError, match="not allowed"):
            replace_files(old_files)
    else:
        replace_files(old_files)
    assert content_of(old_files) == (OLD if count <= renames else NEW)


def test_a_failed_rename_removes_files_that_were_not_there_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(monkeypatch, 3, PermissionError("not allowed"))  # of the second file
    with pytest.raises(PermissionError), whole_files() as files:  # noqa: PT012  # it raises at the end
        files.write_text(tmp_path / "a", "a")
        files.write_text(tmp_path / "b", "b")
    assert content_of(tmp_path) == {}


def test_a_block_that_raises_replaces_none_of_several_files(old_files: Path) -> None:
    with pytest.raises(KeyboardInterrupt), whole_files() as files:  # noqa: PT012  # it raises halfway
        files.write_text(old_files / "a/1", "new")
        raise KeyboardInterrupt
    assert content_of(old_files) == OLD


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_moves_takes_effect_after_the_last(
    old_files: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    put, seen = whole_files_module._put, []

    def put_and_signal(part: Path, path: Path) -> None:
        put(part, path)
        signal.raise_signal(number)

    def handle(*_: object) -> NoReturn:
        seen.append(content_of(old_files))
        raise KeyboardInterrupt

    monkeypatch.setattr(whole_files_module, "_put", put_and_signal)
    before = signal.signal(number, handle)
    try:
        with pytest.raises(KeyboardInterrupt):
            replace_files(old_files)
        assert signal.getsignal(number) is handle
    finally:
        signal.signal(number, before)
    assert len(seen) == 1
    assert {name: c for name, c in seen[0].items() if ".part" not in name} == NEW
    assert content_of(old_files) == NEW


def test_one_path_for_two_outputs_is_refused(path: Path) -> None:
    (path.parent / "link").symlink_to(path.parent)
    with pytest.raises(ValueError, match="two outputs"), whole_files() as files:  # noqa: PT012
        files.write_text(path, "one")
        files.write_text(path.parent / "link" / path.name, "the other")
    assert path.read_bytes() == b"old"


def test_a_file_does_not_replace_a_folder_or_a_pipe_nor_a_folder_a_file(
    path: Path, folder: Path
) -> None:
    os.mkfifo(path.parent / "pipe")
    with pytest.raises(ValueError, match="pipe: found .* device or pipe"):
        write_bytes(path.parent / "pipe", b"new")
    (path.parent / "pipe").unlink()
    with pytest.raises(ValueError, match="found a folder"), whole_file(folder):
        pytest.fail("refused before anything is written")
    with pytest.raises(ValueError, match="found a file"), whole_folder(path):
        pytest.fail("refused before anything is written")
    assert content_of(path.parent) == {"file": b"old", "folder/deep/file": b"old"}


def test_a_link_to_a_file_is_replaced_and_the_file_stays(path: Path, exchange: str) -> None:
    link = path.with_name("link")  # as DVC's cache.type symlink makes
    link.symlink_to(path)
    with whole_files() as files:
        files.write_text(link, "new")
        files.write_text(path.with_name("another"), "new")
    assert exchange
    assert not link.is_symlink()
    assert content_of(path.parent) == {"file": b"old", "link": b"new", "another": b"new"}


WRITER = """
import os, signal, sys
from pathlib import Path
from stages.base import whole_files

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

path, moment = Path(sys.argv[1]), sys.argv[2]
if moment == "between two renames":
    def unsupported(*_):
        raise OSError(38, "Function not implemented")
    whole_files._exchange_in_one_step = unsupported
    rename = Path.rename
    Path.rename = lambda one, other: die() if one.name == "new" else rename(one, other)
with whole_files.whole_folder(path) as part:
    (part / "half").write_bytes(b"half of the n")
    if moment == "halfway":
        print("halfway", flush=True)
        sys.stdin.read()
        die()
"""


def start_writer(folder: Path, moment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), moment],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_leftovers_go_once_the_process_that_left_them_is_dead(folder: Path) -> None:
    with start_writer(folder, "halfway") as writer:
        assert writer.stdout
        assert writer.stdout.readline() == "halfway\n"
        with whole_folder(folder) as part:
            (part / "1").write_bytes(b"1")
        assert sorted(content_of(folder.parent).values()) == [b"1", b"half of the n"]
    assert writer.returncode == -signal.SIGKILL
    assert sorted(content_of(folder.parent).values()) == [b"1", b"half of the n"]
    with whole_folder(folder) as part:
        (part / "2").write_bytes(b"2")
    assert content_of(folder.parent) == {"folder/2": b"2"}


def test_a_folder_lost_between_two_renames_is_restored_by_the_next_call(folder: Path) -> None:
    with start_writer(folder, "between two renames") as writer:
        pass
    assert writer.returncode == -signal.SIGKILL
    assert not folder.exists()
    with pytest.raises(RuntimeError), whole_folder(folder):
        raise RuntimeError
    assert content_of(folder.parent) == {"folder/deep/file": b"old"}


def test_when_two_write_at_once_the_last_is_in_place_and_whole(folder: Path) -> None:
    with whole_folder(folder) as first:
        (first / "first").write_bytes(b"1")
        with whole_folder(folder) as second:
            (second / "second").write_bytes(b"2")
        assert content_of(folder) == {"second": b"2"}
    assert content_of(folder.parent) == {"folder/first": b"1"}


def test_a_folder_put_there_just_before_the_rename_is_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.rename(folder.with_name("moved away"))
    rename, quicker = Path.rename, [b"another process"]

    def rename_late(path: Path, target: Path) -> Path:
        if path.name == "new" and quicker:
            write_bytes(folder / "file", quicker.pop())
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_late)
    with whole_folder(folder) as part:
        (part / "new").write_bytes(b"new")
    assert content_of(folder) == {"new": b"new"}
    assert not quicker


def test_a_link_that_leads_to_itself_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "loop", tmp_path / "loop" / "below"):
        with pytest.raises(OSError, match="symbolic links"), whole_folder(path):
            pytest.fail("refused before anything is written")
    with pytest.raises(OSError, match="symbolic links"):
        write_bytes(tmp_path / "loop" / "file", b"new")


def test_a_link_to_a_folder_stays_a_link(folder: Path) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    with whole_folder(link) as part:
        (part / "new").write_bytes(b"new")
    assert link.is_symlink()
    assert content_of(folder) == {"new": b"new"}
