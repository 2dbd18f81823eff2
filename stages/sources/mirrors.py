"""Files from a mirror: a folder, or an http(s) or s3 URL, that holds them, plain or gzipped."""

import gzip
import os
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Mapping
from functools import partial
from http.client import BadStatusLine, RemoteDisconnected
from pathlib import Path
from typing import IO

from stages.sources.checked_files import CHUNK, ExpectedFile, WrongContent
from stages.sources.object_storage import (
    ATTEMPTS,
    BACKOFF_SECONDS,
    CONNECT_SECONDS,
    MIN_SPEED,
    SCHEME,
    SILENCE_SECONDS,
    download_object,
)


def fetch_from_mirror(mirror: str, files: Mapping[str, ExpectedFile], folder: Path) -> None:
    """Put `files` from `mirror` into `folder`, each one uncompressed, whole and checked.

    Raises WrongContent if the mirror's file has other content, FileNotFoundError if there is no
    such file, and another OSError if it cannot be read.
    """
    for name, expected in files.items():
        for origin in (f"{mirror.rstrip('/')}/{name}{suffix}" for suffix in (".gz", "")):
            with tempfile.TemporaryFile() as file:
                try:
                    copy_or_download(origin, file, expected.size)
                except FileNotFoundError:
                    continue
                _store_uncompressed(file, expected, folder / name, origin)
                break
        else:
            raise FileNotFoundError(
                f"{mirror}: found neither {name}.gz nor {name}; expected a folder, or an http(s)"
                " or s3 URL, that holds one of them"
            )


def copy_or_download(origin: str, file: IO[bytes], size: int, decode: bool = True) -> None:
    """Write the content of `origin`, a path or a URL, to `file`; see `download`."""
    if origin.startswith(SCHEME):
        download_object(origin, file, size + CHUNK)
        return
    if origin.startswith(("http://", "https://")):
        download(origin, file, size, decode)
        return
    path = Path(os.path.expanduser(origin))  # noqa: PTH111  # Path's own raises for unknown users
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.stat().st_size > size + CHUNK:
        raise _too_long(origin, size)
    with path.open("rb") as source:
        shutil.copyfileobj(source, file)


def _too_long(origin: str, size: int) -> WrongContent:
    return WrongContent(f"{origin}: wrong content: found more than {size} bytes; expected no more")


def _store_uncompressed(file: IO[bytes], expected: ExpectedFile, path: Path, origin: str) -> None:
    """Store a plain or gzipped file: its first bytes tell which, whatever its name."""
    file.seek(0)
    gzipped = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    if not gzipped:
        expected.store(file, path, origin)
        return
    try:
        with gzip.open(file) as uncompressed:
            expected.store(uncompressed, path, origin)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise WrongContent(f"{origin}: wrong content: broken gzip file: {error}") from None


def download(url: str, file: IO[bytes], size: int, decode: bool = True) -> None:
    """Download `url` to `file`. A server that fails, stalls or is too slow gets more attempts.

    `size` is that of the uncompressed content in bytes, or a bound for it; a compressed file is
    never much longer. Without `decode` the bytes stay as sent, for servers that declare a .tgz to
    be an encoding. Raises WrongContent if more is sent, FileNotFoundError if the server does not
    have the file, and another OSError if it cannot be reached or keeps failing.
    """
    import requests
    from urllib3.exceptions import HTTPError, MaxRetryError

    for attempt in range(1, ATTEMPTS + 1):
        try:
            _download_once(url, file, size, decode)
            return
        except (requests.RequestException, HTTPError, TimeoutError) as error:
            unreachable = bool(error.args) and isinstance(error.args[0], MaxRetryError)
            if unreachable or attempt == ATTEMPTS:
                tries = "" if unreachable else f" (attempt {attempt} of {ATTEMPTS})"
                raise OSError(f"{url}: {_reason(error)}{tries}") from None
        time.sleep(BACKOFF_SECONDS * 2 ** (attempt - 1))


def _download_once(url: str, file: IO[bytes], size: int, decode: bool) -> None:
    import requests
    from tqdm import tqdm

    start, received = time.monotonic(), 0
    file.seek(0)
    file.truncate()
    timeout = (CONNECT_SECONDS, SILENCE_SECONDS)
    headers = None if decode else {"Accept-Encoding": "identity"}
    with requests.get(url, stream=True, timeout=timeout, headers=headers) as response:
        if response.status_code in (403, 404, 410):
            raise FileNotFoundError(f"{url}: status {response.status_code}")
        response.raise_for_status()
        # read1 returns what has arrived; iter_content would wait for a whole chunk.
        read = partial(response.raw.read1, 2**14, decode_content=decode)
        total = response.raw.length_remaining
        with tqdm(
            desc=url, total=total, unit="B", unit_scale=True, disable=None, leave=False
        ) as bar:
            for chunk in iter(read, b""):
                received += file.write(chunk)
                bar.update(len(chunk))
                if received > size + CHUNK:
                    raise _too_long(url, size)
                elapsed = time.monotonic() - start
                if elapsed > SILENCE_SECONDS and received < MIN_SPEED * elapsed:
                    raise TimeoutError(f"slower than {MIN_SPEED:.0f} bytes per second")


def _reason(error: Exception) -> str:
    """What went wrong: the innermost error, without the representations of objects around it."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"status {error.response.status_code} {error.response.reason}"
    prefix = "the proxy: " if isinstance(error, requests.exceptions.ProxyError) else ""
    while causes := [
        cause
        for cause in (*error.args, getattr(error, "reason", None))
        if isinstance(cause, Exception)
    ]:
        error = causes[-1]
    if isinstance(error, BadStatusLine) and not isinstance(error, RemoteDisconnected):
        return f"{prefix}not an HTTP response: {str(error).strip()[:80]}"
    return prefix + re.sub(r"^\w+\(host=.*?\): ", "", str(error))
