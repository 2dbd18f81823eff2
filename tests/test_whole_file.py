import errno
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from stages.whole_file import whole_file, write_bytes, write_text


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with old content, alone in its folder."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    return path


def test_the_content_replaces_what_stood_there(path: Path) -> None:
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_folders_are_made(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a" / "b" / "file", b"new")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"new"


def test_text_is_utf_8_with_line_feeds(path: Path) -> None:
    write_text(path, "é\n")
    assert path.read_bytes() == b"\xc3\xa9\n"


def test_until_the_block_ends_the_old_file_stands(path: Path) -> None:
    with whole_file(path) as part:
        part.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert part.parent == path.parent  # a rename between file systems is no rename
        assert part.name.endswith(".part")  # what .gitignore and .dvcignore know
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_block_that_raises_leaves_the_old_file_alone(
    path: Path, error: type[BaseException]
) -> None:
    with pytest.raises(error), whole_file(path) as part:  # noqa: PT012  # it raises half-way
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
from stages.whole_file import whole_file

with whole_file(Path(sys.argv[1])) as part:
    part.write_bytes(b"half of the n")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    result = subprocess.run(
        [sys.executable, "-c", program, path], cwd=Path(__file__).parents[1], check=False
    )
    assert result.returncode == -9
    assert path.read_bytes() == b"old"
