"""Objects are read from a real S3 server, moto's, and through a proxy that misbehaves."""

import hashlib
import io
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from stages.sources import object_storage
from stages.sources.checked_files import WrongContent
from stages.sources.object_storage import download_object, fetch_objects
from tests.s3 import BUCKET, cut, drip, hang_up, proxy, s3_server, silent, status

CONTENTS = {"cat/1 猫.png": b"one" * 50_000, "dog/2.png": b"two", "classes.txt": b""}
URL = f"s3://{BUCKET}/animals"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a server that has CONTENTS in the folder of `URL`, and more."""
    with s3_server(monkeypatch) as client:
        for name, content in CONTENTS.items():
            client.put_object(Bucket=BUCKET, Key=f"animals/{name}", Body=content)
        for key in ("animals/", "animals/.hidden/x.png", "animals2/3.png", "animals.zip"):
            client.put_object(Bucket=BUCKET, Key=key, Body=b"")
        yield client


def fetched(folder: Path, url: str = URL) -> dict[str, bytes]:
    digests = fetch_objects(url, folder)
    contents = {path: (folder / path).read_bytes() for path in digests}
    assert digests == {p: hashlib.sha256(content).hexdigest() for p, content in contents.items()}
    return contents


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize("url", [URL, f"{URL}/"])
def test_all_visible_objects_in_a_folder_are_fetched(tmp_path: Path, url: str) -> None:
    assert fetched(tmp_path, url) == CONTENTS


@pytest.mark.usefixtures("s3")
def test_an_object_is_fetched_alone(tmp_path: Path) -> None:
    assert fetched(tmp_path, f"s3://{BUCKET}/animals.zip") == {"animals.zip": b""}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_storage, "SILENCE_SECONDS", 0.3)
    monkeypatch.setattr(object_storage, "BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr("random.random", lambda: 0.01)  # botocore multiplies its waits by it


@pytest.mark.usefixtures("s3", "impatient")
@pytest.mark.parametrize(
    "misbehaviour",
    [lambda r: status(r, 500), lambda r: status(r, 503), cut, hang_up, silent, drip],
    ids=["500", "503", "cut off", "hangs up", "silent", "too slow"],
)
def test_a_server_that_fails_once_gets_another_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: Any, misbehaviour: Callable[[Any], bool]
) -> None:
    def once(request: Any, n: int) -> bool:
        return n == 1 and misbehaviour(request)

    with proxy(s3.meta.endpoint_url, once) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        if misbehaviour in (cut, silent, drip):  # what these do to a listing is not S3's
            key = f"s3://{BUCKET}/animals/dog/2.png"
            file = io.BytesIO()
            download_object(key, file, 1000)
            assert file.getvalue() == b"two"
        else:
            assert fetched(tmp_path) == CONTENTS


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("misbehaviour", "problem"),
    [
        (lambda r: status(r, 500), "busy"),
        (lambda r: status(r, 503), "busy"),
        (hang_up, "Connection was closed before we received a valid response"),
        (cut, "(attempt 3 of 3)"),
        (drip, "slower than 4096 bytes per second (attempt 3 of 3)"),
    ],
    ids=["500", "503", "hangs up", "cut off", "too slow"],
)
def test_a_server_that_keeps_failing_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, s3: Any, misbehaviour: Callable[[Any], bool], problem: str
) -> None:
    with proxy(s3.meta.endpoint_url, lambda request, _: misbehaviour(request)) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        key = f"s3://{BUCKET}/animals/dog/2.png"
        with pytest.raises(OSError, match=f"^{key}: ") as error:
            download_object(key, io.BytesIO(), 1000)
    assert problem in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.errno is None  # the operating system's errors have one


def test_an_object_that_changes_after_the_listing_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: Any
) -> None:
    def change(request: Any, _: int) -> bool:
        if request.path.endswith("dog/2.png"):
            s3.put_object(Bucket=BUCKET, Key="animals/dog/2.png", Body=b"new")
        return False

    with proxy(s3.meta.endpoint_url, change) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(OSError, match="dog/2.png: changed since it was listed; run again"):
            fetch_objects(URL, tmp_path)


@pytest.mark.parametrize(
    ("url", "kind", "problem"),
    [
        (f"s3://{BUCKET}/none", FileNotFoundError, "found no objects below it; expected pictures"),
        ("s3://nobucket/x", FileNotFoundError, "The specified bucket does not exist"),
        ("s3://", ValueError, "found no bucket; expected s3://BUCKET/FOLDER"),
    ],
)
@pytest.mark.usefixtures("s3")
def test_a_wrong_url_is_reported(
    tmp_path: Path, url: str, kind: type[Exception], problem: str
) -> None:
    with pytest.raises(kind) as error:
        fetch_objects(url, tmp_path)
    assert str(error.value).startswith(f"{url}: {problem}")


def list_objects(monkeypatch: pytest.MonkeyPatch, sizes: Mapping[str, int]) -> None:
    """Let the storage claim that these keys in the folder are objects of these sizes."""

    async def pages(*_: Any) -> list[dict[str, Any]]:
        return [{"Key": f"animals/{key}", "Size": size} for key, size in sizes.items()]

    monkeypatch.setattr(object_storage, "_pages", pages)


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize("size", [2, 4])
def test_an_object_of_another_size_than_listed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    list_objects(monkeypatch, {"dog/2.png": size})
    with pytest.raises(WrongContent, match=f"dog/2.png: wrong content: .*{size}"):
        fetch_objects(URL, tmp_path)


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        ({"Contents": [{"Key": "animals/1.png"}]}, "found a listing without 'Size'; expected S3's"),
        ({"IsTruncated": True}, "found a listing without an end"),
        ({"IsTruncated": True, "NextContinuationToken": "the same"}, "a listing without an end"),
    ],
)
def test_a_listing_that_breaks_the_protocol_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: dict[str, Any], problem: str
) -> None:
    async def answer(*_: Any, **__: Any) -> dict[str, Any]:
        return page

    monkeypatch.setattr("s3fs.S3FileSystem._call_s3", answer)
    with pytest.raises(OSError, match=f"^{URL}: .*{problem}"):
        fetch_objects(URL, tmp_path)


@pytest.mark.usefixtures("impatient")
def test_an_answer_of_another_server_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: Any
) -> None:
    def other(request: Any, _: int) -> bool:
        request.send_response(300)  # and not a word more
        request.end_headers()
        return True

    with proxy(s3.meta.endpoint_url, other) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(OSError, match=f"^{URL}: found no answer of S3's"):
            fetch_objects(URL, tmp_path)


def test_a_listing_without_an_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = iter(range(10_000))

    async def answer(*_: Any, **__: Any) -> dict[str, Any]:
        return {"IsTruncated": True, "NextContinuationToken": str(next(tokens))}

    monkeypatch.setattr("s3fs.S3FileSystem._call_s3", answer)
    with pytest.raises(OSError, match="at most 1,000 pages of 1,000 objects; split the folder"):
        fetch_objects(URL, tmp_path)


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize("key", ["../x.png", "a//x.png", "C:/x.png", "a\\x.png", "./x.png"])
def test_a_key_that_is_no_path_is_refused_before_a_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    list_objects(monkeypatch, {"1.png": 1, key: 1})
    with pytest.raises(ValueError, match="found a key that is no path; rename the object"):
        fetch_objects(URL, tmp_path)
    assert not list(tmp_path.iterdir())


def test_keys_that_differ_in_case_alone_are_refused(tmp_path: Path, s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="animals/DOG/2.png", Body=b"")
    with pytest.raises(ValueError, match="only in case, which some systems ignore"):
        fetch_objects(URL, tmp_path)


@pytest.mark.usefixtures("s3")
def test_missing_credentials_are_reported_with_where_to_put_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(PermissionError, match="locate credentials; expected .*AWS_PROFILE.*ANON"):
        fetch_objects(URL, tmp_path)


def test_an_unreachable_server_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_storage, "REQUESTS", 1)
    with s3_server(monkeypatch):
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(OSError, match=f"^{URL}: Could not connect to the endpoint URL: "):
            fetch_objects(URL, tmp_path)


def test_without_the_package_s3fs_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(OSError, match="found no package s3fs; expected it.*`pip install s3fs`"):
        fetch_objects(URL, tmp_path)


@pytest.mark.usefixtures("s3")
def test_an_object_larger_than_allowed_is_refused() -> None:
    with pytest.raises(WrongContent, match="found more than 1000 bytes; expected no more"):
        download_object(f"{URL}/cat/1 猫.png", io.BytesIO(), 1000)


@pytest.mark.usefixtures("s3")
def test_a_missing_object_is_not_found() -> None:
    with pytest.raises(FileNotFoundError, match=f"^{URL}/x: The specified key does not exist"):
        download_object(f"{URL}/x", io.BytesIO(), 1000)
