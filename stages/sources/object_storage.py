"""Objects in S3, or in storage that speaks its protocol, read through fsspec (the extra `s3`).

Where the storage is, and who may read it, is up to the environment, as for every client of S3:
AWS_ENDPOINT_URL, AWS_PROFILE, AWS_ACCESS_KEY_ID and so on; FSSPEC_S3_ANON=true for a public bucket.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from stages.images.folders import is_hidden
from stages.sources.checked_files import WrongContent
from stages.sources.portable_names import check_names

SCHEME = "s3://"
CONNECT_SECONDS = 5.0  # to reach a server
SILENCE_SECONDS = 15.0  # without one byte
MIN_SPEED = 4096.0  # bytes per second on average, once SILENCE_SECONDS have passed
REQUESTS = 4  # for an answer; botocore waits longer before each
MAX_PAGES = 1000  # of a listing, of 1,000 objects each
ANSWER_SECONDS = 120.0  # for a page, or the head of an object, all attempts together
ATTEMPTS = 3  # at an object's content
BACKOFF_SECONDS = 1.0  # before the second attempt; doubled before each later one
AT_A_TIME = 8  # objects
CHUNK = 2**16  # bytes


@dataclass(frozen=True)
class _Object:
    """An object, and what a listing says of it: its path in the folder listed, its size, its ETag.

    The ETag changes with the content.
    """

    bucket: str
    key: str
    path: str
    size: int
    etag: str | None = None

    @property
    def url(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}"


def fetch_objects(url: str, folder: Path) -> dict[str, str]:
    """Put all objects below `url` into `folder`, except hidden ones; the SHA-256 of each by path.

    If `url` is itself an object, it is the only one. Raises ValueError for keys that are no paths
    on every system, and an OSError that says why an object cannot be read, or that it has changed
    since it was listed.
    """

    async def fetch_all(storage: Any) -> dict[str, str]:
        objects = await _listed(storage, url)
        total = sum(item.size for item in objects)
        print(f"{url}: fetching {len(objects)} objects, {total / 1e6:.1f} MB", flush=True)
        digests = {}
        with tqdm(total=total, unit="B", unit_scale=True, disable=None, leave=False) as bar:

            async def fetch(remaining: Iterator[_Object]) -> None:
                for item in remaining:
                    path = folder / item.path
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with path.open("w+b") as file:
                        received = await _download(storage, item, file)
                        if received < item.size:
                            raise WrongContent(
                                f"{item.url}: wrong content: found {received} bytes; expected"
                                f" {item.size}, as it is listed"
                            )
                        bar.update(item.size)
                        file.seek(0)
                        digests[item.path] = hashlib.file_digest(file, "sha256").hexdigest()

            shared = iter(objects)
            async with asyncio.TaskGroup() as group:  # the first failure cancels the others
                for _ in range(AT_A_TIME):
                    group.create_task(fetch(shared))
        return digests

    digests: dict[str, str] = _run(url, fetch_all)
    return digests


def download_object(url: str, file: IO[bytes], size: int) -> None:
    """Download the object at `url` to `file`.

    Raises WrongContent if it has more than `size` bytes, FileNotFoundError if there is no such
    object, and another OSError if it cannot be read.
    """
    bucket, _, key = url.removeprefix(SCHEME).partition("/")
    _run(url, lambda storage: _download(storage, _Object(bucket, key, key, size), file))


def _run(url: str, work: Callable[[Any], Awaitable[Any]]) -> Any:
    """The result of work(storage)."""
    try:
        from fsspec.asyn import sync
        from s3fs import S3FileSystem
    except ImportError:
        raise OSError(
            f"{url}: found no package s3fs; expected it, to read from {SCHEME}; install it with"
            " `pip install s3fs`"
        ) from None
    retries = {"mode": "standard", "total_max_attempts": REQUESTS}
    timeouts = {"connect_timeout": CONNECT_SECONDS, "read_timeout": SILENCE_SECONDS}
    storage = S3FileSystem(
        config_kwargs={"retries": retries, **timeouts},
        skip_instance_cache=True,  # else it has the endpoint and the credentials of the first call
    )
    storage.retries = 1  # botocore's are enough
    try:
        return sync(storage.loop, work, storage)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


async def _listed(storage: Any, url: str) -> list[_Object]:
    bucket, _, folder = url.removeprefix(SCHEME).strip("/").partition("/")
    if not bucket:
        raise ValueError(f"{url}: found no bucket; expected {SCHEME}BUCKET/FOLDER")
    prefix = f"{folder}/" if folder else ""
    listed = await _pages(storage, url, bucket, prefix)
    if folder and not listed:
        listed = await _alone(storage, url, bucket, folder)
    objects = []
    for about in listed:
        try:
            key, size, etag = about["Key"], about["Size"], about.get("ETag")
        except KeyError as error:
            raise OSError(f"{url}: found a listing without {error}; expected S3's") from None
        path = key.removeprefix(prefix) if key != folder else key.rpartition("/")[2]
        parts = path.split("/")
        if not parts[-1] or any(map(is_hidden, set(parts) - {".", ".."})):  # "" is a folder's mark
            continue
        item = _Object(bucket, key, path, size, etag)
        if {"", ".", ".."} & set(parts) or re.match("[A-Za-z]:", path) or "\\" in path:
            raise ValueError(f"{item.url}: found a key that is no path; rename the object")
        objects.append(item)
    if not objects:
        raise FileNotFoundError(f"{url}: found no objects below it; expected pictures or shards")
    try:
        check_names(item.path for item in objects)
    except ValueError as error:
        raise ValueError(f"{url}: {error}") from None
    return objects


async def _pages(storage: Any, url: str, bucket: str, prefix: str) -> list[dict[str, Any]]:
    """What the storage lists: all objects whose keys begin with `prefix`."""
    found: list[dict[str, Any]] = []
    start: dict[str, Any] = {}
    for _ in range(MAX_PAGES):
        request = storage._call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **start)
        page = await _answer(url, request)
        found += page.get("Contents", [])
        if not page.get("IsTruncated"):
            return found
        token = {"ContinuationToken": page.get("NextContinuationToken")}
        if token in ({"ContinuationToken": None}, start):
            break
        start = token
    raise OSError(
        f"{url}: found a listing without an end; expected at most {MAX_PAGES:,} pages of 1,000"
        " objects; split the folder"
    )


async def _alone(storage: Any, url: str, bucket: str, key: str) -> list[dict[str, Any]]:
    """The object of this very key, if there is one, as a listing has it."""
    try:
        about = await _answer(url, storage._call_s3("head_object", Bucket=bucket, Key=key))
    except FileNotFoundError:
        return []
    return [{"Key": key, "Size": about["ContentLength"], "ETag": about.get("ETag")}]


async def _answer(url: str, request: Awaitable[Any]) -> Any:
    """What the storage answers; its errors get the URL and, where there is one, a remedy."""
    from botocore.exceptions import BotoCoreError, NoCredentialsError, PartialCredentialsError
    from botocore.parsers import ResponseParserError

    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await request
    except (NoCredentialsError, PartialCredentialsError, PermissionError) as error:
        raise PermissionError(
            f"{url}: {' '.join(str(error).split())}; expected credentials that may list and read it"
            " (AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), or, for a public"
            " bucket, FSSPEC_S3_ANON=true"
        ) from None
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{url}: {error}") from None
    except (ResponseParserError, KeyError):  # s3fs's, for an error that says nothing
        raise OSError(f"{url}: found no answer of S3's; is there such storage?") from None
    except (BotoCoreError, OSError, ValueError) as error:
        raise OSError(f"{url}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if "pre-conditions" in text:
        return "changed since it was listed; run again"
    return " ".join(text.split())


async def _download(storage: Any, item: _Object, file: IO[bytes]) -> int:
    """Download an object; return how many bytes were received.

    One whose content stalls, is cut off or too slow gets more attempts.
    """
    from aiohttp import ClientError
    from botocore.exceptions import BotoCoreError

    unchanged = {"IfMatch": item.etag} if item.etag else {}
    for attempt in range(1, ATTEMPTS + 1):
        request = storage._call_s3("get_object", Bucket=item.bucket, Key=item.key, **unchanged)
        body = (await _answer(item.url, request))["Body"]
        file.seek(0)
        file.truncate()
        start, received = time.monotonic(), 0
        failure = ""
        async with body:
            while True:
                try:
                    chunk = await body.read(CHUNK)
                except (BotoCoreError, ClientError, OSError) as error:
                    failure = _reason(error)
                    break
                if not chunk:
                    break
                received += file.write(chunk)
                if received > item.size:
                    raise WrongContent(
                        f"{item.url}: wrong content: found more than {item.size} bytes; expected no"
                        " more"
                    )
                elapsed = time.monotonic() - start
                if elapsed > SILENCE_SECONDS and received < MIN_SPEED * elapsed:
                    failure = f"slower than {MIN_SPEED:.0f} bytes per second"
                    break
        if not failure:
            return received
        if attempt < ATTEMPTS:
            await asyncio.sleep(BACKOFF_SECONDS * 2 ** (attempt - 1))
    raise OSError(f"{item.url}: {failure} (attempt {ATTEMPTS} of {ATTEMPTS})")
