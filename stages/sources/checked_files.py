"""What a downloaded file must be, checked before it takes its name."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from stages.base.whole_files import whole_file

CHUNK = 2**20  # bytes


class Readable(Protocol):
    """What `Content.store` reads from."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none at the end."""


class WrongContent(ValueError):
    """A file came, and it is not the one that was asked for."""


@dataclass(frozen=True)
class Content:
    """The size in bytes and the SHA-256 of a file's uncompressed content, whoever hosts it."""

    size: int
    sha256: str

    def is_at(self, path: Path) -> bool:
        """Whether the file at `path` exists and holds this content."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256

    def store(self, stream: Readable, path: Path, origin: str) -> None:
        """Copy `stream` to `path` if it holds this content; else raise WrongContent.

        It reads no more than one byte too many, so that no stream can fill the disk.
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
                found = f"more than {self.size}" if size > self.size else f"{size}"
                raise WrongContent(
                    f"{origin}: wrong content: expected {self.size} bytes with SHA-256"
                    f" {self.sha256}, found {found} with {digest.hexdigest()}"
                )
