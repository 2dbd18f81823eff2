import gzip
import hashlib
import re
import socket
import time
from http.server import BaseHTTPRequestHandler
from itertools import chain, repeat
from pathlib import Path

import pytest

from stages.sources import mirrors
from stages.sources.checked_files import CHUNK, ExpectedFile, WrongContent
from stages.sources.mirrors import fetch_from_mirror
from tests.conftest import Answer, Serve, dripping, silent

RIGHT = bytes(range(256)) * 200
GZIPPED = gzip.compress(RIGHT)
ONE_WRONG_BYTE = RIGHT[:-1] + b"x"
FILES = {"file": ExpectedFile(len(RIGHT), hashlib.sha256(RIGHT).hexdigest())}


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrors, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(mirrors, "SILENCE_SECONDS", 0.4)
    monkeypatch.setattr(mirrors, "BACKOFF_SECONDS", 0.001)


def body(content: bytes, status: int = 200, **headers: str) -> Answer:
    """The same answer to every request; headers as in content_type="text/html"."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in ({"content_length": str(len(content))} | headers).items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(content)

    return answer


def in_turn(*answers: Answer) -> Answer:
    """Each answer once, then the last one for ever."""
    turns = chain(answers[:-1], repeat(answers[-1]))

    def answer(request: BaseHTTPRequestHandler) -> None:
        next(turns)(request)

    return answer


def silent_half_way(request: BaseHTTPRequestHandler) -> None:
    body(RIGHT[:9], content_length=str(len(RIGHT)))(request)
    silent(request)


def endless(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    try:
        for _ in range(100):
            request.wfile.write(bytes(CHUNK))
    except ConnectionError:
        pass  # the client hung up, as it should


def chunked(request: BaseHTTPRequestHandler) -> None:
    request.protocol_version = "HTTP/1.1"
    request.send_response(200)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    for start in range(0, len(RIGHT), 1000):
        part = RIGHT[start : start + 1000]
        request.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
    request.wfile.write(b"0\r\n\r\n")


def redirecting(request: BaseHTTPRequestHandler) -> None:
    if request.path.startswith("/other/"):
        body(GZIPPED)(request)
    else:
        body(b"", 302, location=f"/other{request.path}")(request)


ONCE, TWICE = ["/file.gz"], ["/file.gz", "/file.gz"]


@pytest.mark.parametrize(
    ("answer", "requests"),
    [
        pytest.param(body(GZIPPED), ONCE, id="gzipped"),
        pytest.param(body(RIGHT), ONCE, id="plain under the gzipped file's name"),
        pytest.param(in_turn(body(b"", 404), body(RIGHT)), ["/file.gz", "/file"], id="only plain"),
        pytest.param(body(GZIPPED, content_encoding="gzip"), ONCE, id="decoded on the way"),
        pytest.param(
            body(gzip.compress(GZIPPED), content_encoding="gzip"), ONCE, id="gzipped twice"
        ),
        pytest.param(chunked, ONCE, id="chunked"),
        pytest.param(body(RIGHT, content_length="many"), ONCE, id="length not a number"),
        pytest.param(redirecting, ["/file.gz", "/other/file.gz"], id="redirected"),
        pytest.param(in_turn(body(b"", 500), body(GZIPPED)), TWICE, id="500, then fine"),
        pytest.param(
            in_turn(body(RIGHT[:-1], content_length=str(len(RIGHT))), body(GZIPPED)),
            TWICE,
            id="incomplete, then a shorter file",
        ),
        pytest.param(in_turn(silent, body(GZIPPED)), TWICE, id="silent, then fine"),
    ],
)
def test_a_file_is_downloaded(
    serve: Serve, tmp_path: Path, answer: Answer, requests: list[str]
) -> None:
    server = serve(answer)
    fetch_from_mirror(server.url, FILES, tmp_path)
    assert (tmp_path / "file").read_bytes() == RIGHT
    assert server.paths == requests


def test_a_trailing_slash_of_the_url_changes_nothing(serve: Serve, tmp_path: Path) -> None:
    server = serve(body(GZIPPED))
    fetch_from_mirror(f"{server.url}/folder/", FILES, tmp_path)
    assert server.paths == ["/folder/file.gz"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (body(b"", 500), "status 500 Internal Server Error"),
        (body(b"", 429), "status 429 Too Many Requests"),
        (
            body(RIGHT[:20_000], content_length=str(len(RIGHT))),
            "IncompleteRead(20000 bytes read, 31200 more expected)",
        ),
        (silent, "Read timed out. (read timeout=0.4)"),
        (silent_half_way, "Read timed out."),
        (dripping, "slower than 4096 bytes per second"),
        (lambda _: None, "Remote end closed connection without response"),
        (lambda request: request.wfile.write(b"hello\r\n\r\n"), "not an HTTP response: hello"),
        (
            body(b"not gzip", content_encoding="gzip"),
            "Error -3 while decompressing data: incorrect header check",
        ),
    ],
    ids=[
        *("500", "429", "incomplete", "silent", "silent half-way", "dripping"),
        *("hangs up", "not HTTP", "wrong encoding"),
    ],
)
def test_a_server_that_keeps_failing_is_given_up_after_three_attempts(
    serve: Serve, tmp_path: Path, answer: Answer, reason: str
) -> None:
    server = serve(answer)
    with pytest.raises(OSError, match=r"^http") as error:
        fetch_from_mirror(server.url, FILES, tmp_path)
    assert str(error.value) == f"{server.url}/file.gz: {reason} (attempt 3 of 3)"
    assert server.paths == ["/file.gz"] * 3
    assert not list(tmp_path.iterdir())


def test_the_pause_between_attempts_doubles_and_none_follows_the_last(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(mirrors, "BACKOFF_SECONDS", 1.0)
    monkeypatch.setattr(time, "sleep", pauses.append)
    with pytest.raises(OSError, match="status 503"):
        fetch_from_mirror(serve(body(b"", 503)).url, FILES, tmp_path)
    assert pauses == [1, 2]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (body(ONE_WRONG_BYTE), f"found 51200 bytes .*; expected {len(RIGHT)} bytes with"),
        (body(gzip.compress(ONE_WRONG_BYTE)), "found 51200 bytes"),
        (body(gzip.compress(RIGHT + b"x")), "found more than 51200 bytes"),
        (body(gzip.compress(bytes(2**24))), "found more than 51200 bytes"),
        (body(b"<html>Log in", content_type="text/html"), "found 12 bytes"),
        (endless, "found more than 51200 bytes; expected no more$"),
        (body(GZIPPED[:-9]), "broken gzip file: Compressed file ended before"),
        (body(GZIPPED[:-8] + bytes(8)), "broken gzip file: CRC check failed"),
        (body(GZIPPED[:10] + b"\xff" * 99), "broken gzip file: Error -3 while decompressing"),
    ],
    ids=[
        *("one wrong byte", "one wrong byte, gzipped", "long", "bomb", "captive portal"),
        *("endless", "truncated gzip", "checksum of gzip", "garbage in gzip"),
    ],
)
def test_wrong_content_is_refused_after_one_attempt(
    serve: Serve, tmp_path: Path, answer: Answer, reason: str
) -> None:
    server = serve(answer)
    with pytest.raises(WrongContent, match=reason) as error:
        fetch_from_mirror(server.url, FILES, tmp_path)
    assert str(error.value).startswith(f"{server.url}/file.gz: wrong content: ")
    assert "\n" not in str(error.value)
    assert server.paths == ["/file.gz"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_file_that_the_server_lacks_is_asked_for_once(
    serve: Serve, tmp_path: Path, status: int
) -> None:
    server = serve(body(b"none", status))
    with pytest.raises(FileNotFoundError) as error:
        fetch_from_mirror(server.url, FILES, tmp_path)
    assert str(error.value).startswith(f"{server.url}: found neither file.gz nor file; expected a")
    assert server.paths == ["/file.gz", "/file"]


@pytest.mark.parametrize("proxy", ["", "the proxy: "])
def test_a_server_that_cannot_be_reached_gets_no_second_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed_at_once:
        address = f"http://127.0.0.1:{closed_at_once.getsockname()[1]}"
    monkeypatch.setenv("no_proxy", "" if proxy else "127.0.0.1")
    monkeypatch.setenv("http_proxy", address)
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with pytest.raises(OSError, match=r"^http") as error:
        fetch_from_mirror(address, FILES, tmp_path)
    # The number and the words of the error are the operating system's.
    pattern = rf"{address}/file.gz: {proxy}Failed to establish a new connection: .*refused"
    assert re.fullmatch(pattern, str(error.value))
    assert not pauses


@pytest.mark.parametrize("url", ["http://[::1", "http://a b", "https://a:99999"])
def test_an_invalid_url_is_reported(tmp_path: Path, url: str) -> None:
    with pytest.raises(OSError, match=re.escape(url)) as error:
        fetch_from_mirror(url, FILES, tmp_path)
    assert not isinstance(error.value, FileNotFoundError)  # it is no path of a folder


def test_files_before_a_missing_one_are_kept_whole(serve: Serve, tmp_path: Path) -> None:
    def only_the_first(request: BaseHTTPRequestHandler) -> None:
        body(GZIPPED, 200 if request.path == "/file.gz" else 404)(request)

    with pytest.raises(FileNotFoundError, match=r"found neither other\.gz nor other; "):
        fetch_from_mirror(serve(only_the_first).url, FILES | {"other": FILES["file"]}, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": RIGHT}


@pytest.mark.parametrize(
    ("name", "content"),
    [("file", RIGHT), ("file.gz", GZIPPED), ("file", GZIPPED), ("file.gz", RIGHT)],
    ids=["plain", "gzipped", "gzipped under a plain name", "plain under a gzipped name"],
)
def test_a_folder_can_be_a_mirror(tmp_path: Path, name: str, content: bytes) -> None:
    folder = tmp_path / "a folder with spaces"
    folder.mkdir()
    (folder / name).write_bytes(content)
    fetch_from_mirror(str(folder), FILES, tmp_path / "raw")
    assert (tmp_path / "raw" / "file").read_bytes() == RIGHT
    assert (folder / name).read_bytes() == content


@pytest.mark.parametrize("mirror", [".", "~"])
def test_a_folder_can_be_relative_or_in_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror: str
) -> None:
    (tmp_path / "file").write_bytes(RIGHT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    fetch_from_mirror(mirror, FILES, tmp_path / "raw")
    assert (tmp_path / "raw" / "file").read_bytes() == RIGHT


@pytest.mark.parametrize(
    "mirror", ["/missing", "/dev/null", "ftp://example.org", "~nosuchuser", "."]
)
def test_a_mirror_without_the_file_is_reported(tmp_path: Path, mirror: str) -> None:
    with pytest.raises(FileNotFoundError) as error:
        fetch_from_mirror(mirror, FILES, tmp_path / "raw")
    assert str(error.value) == (
        f"{mirror}: found neither file.gz nor file; expected a folder, or an http(s) or s3 URL,"
        " that holds one of them"
    )


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("file", ONE_WRONG_BYTE, "found 51200 bytes"),
        ("file.gz", gzip.compress(ONE_WRONG_BYTE), "found 51200 bytes"),
        ("file.gz", GZIPPED[:-9], "broken gzip file"),
        ("file", bytes(len(RIGHT) + CHUNK + 1), "found more than 51200 bytes; expected no more"),
    ],
    ids=["one wrong byte", "one wrong byte, gzipped", "truncated gzip", "huge"],
)
def test_wrong_content_in_a_folder_is_refused(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    pattern = f"^{re.escape(str(tmp_path / name))}: wrong content: {reason}"
    with pytest.raises(WrongContent, match=pattern):
        fetch_from_mirror(str(tmp_path), FILES, tmp_path / "raw")
