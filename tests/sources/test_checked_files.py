import hashlib
import io
from pathlib import Path

import pytest

from stages.sources import checked_files as content
from stages.sources.checked_files import Content, WrongContent

RIGHT = bytes(range(256)) * 10
CONTENT = Content(len(RIGHT), hashlib.sha256(RIGHT).hexdigest())
ONE_WRONG_BYTE = RIGHT[:-1] + b"x"


class Endless:
    """A stream without end, which notes what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def read(self, size: int, /) -> bytes:
        self.asked.append(size)
        return bytes(size)


@pytest.mark.parametrize("chunk", [1, 7, 2**20])
def test_right_content_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(content, "CHUNK", chunk)
    path = tmp_path / "folder" / "file"
    CONTENT.store(io.BytesIO(RIGHT), path, "origin")
    assert path.read_bytes() == RIGHT
    assert CONTENT.is_at(path)


def test_empty_content_is_content(tmp_path: Path) -> None:
    Content(0, hashlib.sha256().hexdigest()).store(io.BytesIO(), tmp_path / "file", "origin")
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize(
    ("wrong", "found"),
    [(ONE_WRONG_BYTE, "2560"), (RIGHT[:-1], "2559"), (b"", "0"), (RIGHT + b"x", "more than 2560")],
    ids=["one wrong byte", "short", "empty", "long"],
)
def test_wrong_content_is_refused_and_the_old_file_stays(
    tmp_path: Path, wrong: bytes, found: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(WrongContent) as error:
        CONTENT.store(io.BytesIO(wrong), path, "http://origin/file")
    assert str(error.value) == (
        f"http://origin/file: wrong content: expected 2560 bytes with SHA-256 {CONTENT.sha256},"
        f" found {found} with {hashlib.sha256(wrong).hexdigest()}"
    )
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_endless_stream_is_read_in_chunks_and_one_byte_too_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "CHUNK", 1000)
    stream = Endless()
    with pytest.raises(WrongContent, match="found more than 2560 with"):
        CONTENT.store(stream, tmp_path / "file", "origin")
    assert stream.asked == [1000, 1000, 561]


@pytest.mark.parametrize("other", [ONE_WRONG_BYTE, RIGHT[:-1], RIGHT + b"x", b""])
def test_other_content_is_not_at_a_path(tmp_path: Path, other: bytes) -> None:
    (tmp_path / "file").write_bytes(other)
    assert not CONTENT.is_at(tmp_path / "file")


def test_neither_a_missing_file_nor_a_folder_is_content(tmp_path: Path) -> None:
    assert not CONTENT.is_at(tmp_path / "missing")
    assert not CONTENT.is_at(tmp_path)
