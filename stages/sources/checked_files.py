"""Files whose size and checksum are known: nothing else is stored under their names."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from stages.base.whole_files import whole_file

CHUNK = 2**20  # bytes


class Readable(Protocol):
    """What `ExpectedFile.store` reads from."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none at the end."""


class WrongContent(ValueError):
    """A file was found, but not with the content that was expected."""


@dataclass(frozen=True)
class ExpectedFile:
    """The size in bytes and the SHA-256 of a file's uncompressed content, whoever hosts it."""

    size: int
    sha256: str

    def is_at(self, path: Path) -> bool:
        """Whether the file at `path` exists and has this content."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256

    def store(self, stream: Readable, path: Path, origin: str) -> None:
        """Copy `stream` to `path` if it has this content; otherwise raise WrongContent.

        At most one byte too many is read, so that no stream can fill the disk. `origin` is where
        the stream comes from, for the error.
        """
        digest, size = hashlib.sha256(), 0
        with whole_file(path) as part:
            with part.open("wb") as file:
                while size <= self.size and (
                    chunk := stream.read(min(CHUNK, self.size + 1 - size))
                ):
                    digest.update(chunk)
                    size += file.write(chunk)
            if (size, digest.hexdigest()) != (self.size, self.sha256):
                found = f"more than {self.size}" if size > self.size else size
                raise WrongContent(
                    f"{origin}: wrong content: found {found} bytes with SHA-256"
                    f" {digest.hexdigest()}; expected {self.size} bytes with {self.sha256}"
                )
