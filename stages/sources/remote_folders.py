"""A folder of pictures or shards at a URL -> a folder on disk, and the checksum of each file.

- s3://BUCKET/FOLDER: all that is in it, or one archive.
- http(s): an archive, or shards, whose numbers stand in braces as in webdataset:
  https://example.org/animals/{train,test}/{000000..000009}.tar
"""

import hashlib
import re
from pathlib import Path

from stages.sources.archives import MAX_BYTES
from stages.sources.mirrors import download
from stages.sources.object_storage import SCHEME, fetch_objects
from stages.sources.portable_names import check_names

MAX_URLS = 1_000_000
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")


def is_url(text: str) -> bool:
    """Whether `text` is a URL of a kind that `fetch_folder` reads."""
    return text.startswith((SCHEME, "http://", "https://"))


def title(url: str) -> str:
    """The name of what is at `url`: the last folder's, or the archive's without its suffix."""
    parts = url.partition("?")[0].partition("{")[0].rstrip("/").split("/")
    return parts[-1].partition(".")[0].rstrip("-_") or "unnamed"


def fetch_folder(url: str, folder: Path) -> dict[str, str]:
    """Put what is at `url` into `folder`; the SHA-256 of each file by its path in it.

    Raises ValueError if the URL or a name in it will not do, and an OSError that says why something
    cannot be read.
    """
    if url.startswith(SCHEME):
        return fetch_objects(url, folder)
    urls = expanded(url)
    start = url.partition("{")[0].rpartition("/")[0] + "/"
    paths = {each.removeprefix(start).partition("?")[0]: each for each in urls}
    try:
        check_names(paths)
    except ValueError as error:
        raise ValueError(f"{url}: {error}") from None
    if "" in paths or len(paths) < len(urls) or any(".." in path.split("/") for path in paths):
        raise ValueError(f"{url}: expected the URL of an archive, or of shards, each with its name")
    digests = {}
    for path, each in paths.items():
        print(f"fetching {each}", flush=True)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with (folder / path).open("w+b") as file:
            download(each, file, MAX_BYTES, decode=False)
            file.seek(0)
            digests[path] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def expanded(url: str) -> list[str]:
    """The URLs that {first..last} and {one,other} in `url` stand for, in order.

    A number gets as many digits as `first`. Raises ValueError if there are too many.
    """
    urls = [url]
    while braces := BRACES.search(urls[0]):
        numbers = RANGE.fullmatch(braces[1])
        first, last = map(int, numbers.groups()) if numbers else (0, braces[1].count(","))
        if last < first or (last - first + 1) * len(urls) > MAX_URLS:
            raise ValueError(
                f"{url}: found {braces[0]}; expected {{first..last}} or {{one,other}}, at most"
                f" {MAX_URLS:,} URLs in all"
            )
        width = len(numbers[1]) if numbers else 0
        choices = (
            [f"{number:0{width}}" for number in range(first, last + 1)]
            if numbers
            else braces[1].split(",")
        )
        urls = [each.replace(braces[0], choice, 1) for each in urls for choice in choices]
    return urls
