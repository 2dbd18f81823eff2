import hashlib
import io
from pathlib import Path

import pytest

from stages.sources import checked_files
from stages.sources.checked_files import ExpectedFile, WrongContent

RIGHT = bytes(range(256)) * 10
EXPECTED = ExpectedFile(len(RIGHT), hashlib.sha256(RIGHT).hexdigest())
ONE_WRONG_BYTE = RIGHT[:-1] + b"x"


class Endless:
    """A stream without an end that records the size of each read."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def read(self, size: int, /) -> bytes:
        self.sizes.append(size)
        return bytes(size)


@pytest.mark.parametrize("chunk", [1, 7, 2**20])
def test_right_content_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(checked_files, "CHUNK", chunk)
    path = tmp_path / "folder" / "file"
    EXPECTED.store(io.BytesIO(RIGHT), path, "origin")
    assert path.read_bytes() == RIGHT
    assert EXPECTED.is_at(path)


def test_an_empty_file_can_be_expected(tmp_path: Path) -> None:
    ExpectedFile(0, hashlib.sha256().hexdigest()).store(io.BytesIO(), tmp_path / "file", "origin")
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize(
    ("wrong", "found"),
    [(ONE_WRONG_BYTE, "2560"), (RIGHT[:-1], "2559"), (b"", "0"), (RIGHT + b"x", "more than 2560")],
    ids=["one wrong byte", "too short", "empty", "too long"],
)
def test_wrong_content_is_refused_and_the_old_file_stays(
    tmp_path: Path, wrong: bytes, found: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    assert not EXPECTED.is_at(path)
    with pytest.raises(WrongContent) as error:
        EXPECTED.store(io.BytesIO(wrong), path, "http://origin/file")
    assert str(error.value) == (
        f"http://origin/file: wrong content: found {found} bytes with SHA-256"
        f" {hashlib.sha256(wrong).hexdigest()}; expected 2560 bytes with {EXPECTED.sha256}"
    )
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_endless_stream_is_read_one_byte_too_far_and_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked_files, "CHUNK", 1000)
    stream = Endless()
    with pytest.raises(WrongContent, match="found more than 2560 bytes"):
        EXPECTED.store(stream, tmp_path / "file", "origin")
    assert stream.sizes == [1000, 1000, 561]


@pytest.mark.parametrize("other", [ONE_WRONG_BYTE, RIGHT[:-1], RIGHT + b"x", b""])
def test_is_at_rejects_other_content(tmp_path: Path, other: bytes) -> None:
    (tmp_path / "file").write_bytes(other)
    assert not EXPECTED.is_at(tmp_path / "file")


def test_is_at_rejects_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert not EXPECTED.is_at(tmp_path / "missing")
    assert not EXPECTED.is_at(tmp_path)
