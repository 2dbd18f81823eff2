"""Files from a mirror: a folder or an http(s) URL that holds them plain or gzipped."""

import gzip
import re
import tempfile
import time
import zlib
from collections.abc import Mapping
from functools import partial
from http.client import BadStatusLine, RemoteDisconnected
from pathlib import Path
from typing import IO

from stages.sources.checked_files import CHUNK, Content, WrongContent

CONNECT_SECONDS = 5.0  # to reach a server
SILENCE_SECONDS = 15.0  # without one byte
SLOWEST = 4096.0  # bytes a second on average, once SILENCE_SECONDS have passed
ATTEMPTS = 3  # at a server that answers badly
BACK_OFF_SECONDS = 1.0  # before the second attempt; doubled before each later one


def fetch_from_mirror(mirror: str, files: Mapping[str, Content], folder: Path) -> None:
    """Put `files` of `mirror` into `folder`, each uncompressed, whole and checked.

    Raises WrongContent if the mirror holds other bytes, FileNotFoundError if it does not have a
    file, and another OSError if it cannot be read.
    """
    fetch_file = _download_file if mirror.startswith(("http://", "https://")) else _copy_file
    for name, content in files.items():
        fetch_file(mirror, name, content, folder / name)


def _copy_file(mirror: str, name: str, content: Content, path: Path) -> None:
    folder = Path(mirror).expanduser().absolute()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: neither a folder nor an http(s) URL")
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            with candidate.open("rb") as file:
                _store_unpacked(file, content, path, str(candidate))
            return
    raise FileNotFoundError(f"{folder}: has neither {name} nor {name}.gz")


def _download_file(mirror: str, name: str, content: Content, path: Path) -> None:
    for suffix in (".gz", ""):
        url = f"{mirror.rstrip('/')}/{name}{suffix}"
        with tempfile.TemporaryFile() as download:
            try:
                download_patiently(url, download, content.size)
            except FileNotFoundError:
                continue
            _store_unpacked(download, content, path, url)
            return
    raise FileNotFoundError(f"{mirror}: has neither {name}.gz nor {name}")


def _store_unpacked(file: IO[bytes], content: Content, path: Path, origin: str) -> None:
    """Store a plain or gzipped file; its first bytes tell which, whatever its name."""
    file.seek(0)
    gzipped = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    if not gzipped:
        content.store(file, path, origin)
        return
    try:
        with gzip.open(file) as unpacked:
            content.store(unpacked, path, origin)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise WrongContent(f"{origin}: wrong content: broken gzip file: {error}") from None


def download_patiently(url: str, file: IO[bytes], size: int, decode: bool = True) -> None:
    """Download into `file`, and again after a pause where the server answers badly: with an error
    of its own, with half a file, too slowly. One that cannot be reached at all is given up at once.

    `size` is that of the uncompressed content, or the most that it can be: no answer need be much
    longer. Without `decode` the bytes stay as sent: some servers tell a .tgz as an encoding, and it
    would be unpacked on the way. Raises WrongContent if an answer is too long, FileNotFoundError if
    the server does not have the file, and another OSError if it goes on answering badly.
    """
    import requests
    from urllib3.exceptions import HTTPError, MaxRetryError

    for attempt in range(1, ATTEMPTS + 1):
        try:
            _download(url, file, size, decode)
            return
        except (requests.RequestException, HTTPError, TimeoutError) as error:
            unreachable = bool(error.args) and isinstance(error.args[0], MaxRetryError)
            if unreachable or attempt == ATTEMPTS:
                tries = "" if unreachable else f" (attempt {attempt} of {ATTEMPTS})"
                raise OSError(f"{url}: {_reason(error)}{tries}") from None
        time.sleep(BACK_OFF_SECONDS * 2 ** (attempt - 1))


def _download(url: str, file: IO[bytes], size: int, decode: bool) -> None:
    """One attempt."""
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
        # read1 returns what has come; iter_content waits for a whole chunk, however it drips.
        read = partial(response.raw.read1, 2**14, decode_content=decode)
        total = response.raw.length_remaining
        # A bar on a terminal, nothing in a log.
        with tqdm(
            desc=url, total=total, unit="B", unit_scale=True, disable=None, leave=False
        ) as bar:
            for chunk in iter(read, b""):
                received += file.write(chunk)
                bar.update(len(chunk))
                if received > size + CHUNK:
                    raise WrongContent(f"{url}: wrong content: more than {size} bytes")
                elapsed = time.monotonic() - start
                if elapsed > SILENCE_SECONDS and received < SLOWEST * elapsed:
                    raise TimeoutError(f"slower than {SLOWEST:.0f} bytes a second")


def _reason(error: Exception) -> str:
    """What went wrong: the innermost error, without the representations around it."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"status {error.response.status_code} {error.response.reason}"
    by = "the proxy: " if isinstance(error, requests.exceptions.ProxyError) else ""
    while causes := [
        cause
        for cause in (*error.args, getattr(error, "reason", None))
        if isinstance(cause, Exception)
    ]:
        error = causes[-1]
    if isinstance(error, BadStatusLine) and not isinstance(error, RemoteDisconnected):
        return f"{by}no HTTP answer: {str(error).strip()[:80]}"
    return by + re.sub(r"^\w+\(host=.*?\): ", "", str(error))
