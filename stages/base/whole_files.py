"""Files and folders that are written whole or not at all, and the files of a stage all together.

Each is written in a `.part` folder beside its place, which git and DVC ignore, and moved in at the
end. A process holds a lock on its `.part` folders for as long as it lives, so the next one to write
the same output sees which of them are left over, and removes those: a process id would say less,
since ids are reused and mean nothing in another container. Where folders cannot be locked, as on
NFS, leftovers stay.
"""

import errno
import glob
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

# Of renameat2 (Linux) and renamex_np (macOS).
AT_FDCWD, RENAME_EXCHANGE, RENAME_SWAP = -100, 2, 2
UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


class WholeFiles:
    """Files that have been written, but not moved to their places yet."""

    def __init__(self, scratches: ExitStack) -> None:
        self._scratches = scratches
        self._parts: dict[Path, Path] = {}

    def part(self, path: Path) -> Path:
        """Where to write the file that is to be at `path`; its parent folders are created.

        Raises ValueError if anything but a file is there, or if `path` has been given before.
        """
        place = real_path(path.parent) / path.name
        if place.exists() and not place.is_file():
            raise ValueError(f"{path}: found a folder, device or pipe; expected a file, or nothing")
        if place in self._parts:
            raise ValueError(f"{path}: found as the path of two outputs; expected one path each")
        self._parts[place] = self._scratches.enter_context(_scratch(place)) / "new"
        return self._parts[place]

    def write_text(self, path: Path, text: str) -> None:
        """Write `text` as UTF-8 with line feeds, for `path`."""
        self.part(path).write_text(text, encoding="utf-8", newline="\n")

    def move_in(self) -> None:
        """Move each file to its place; if one cannot be moved, those before it are moved back."""
        if not self._parts:
            return
        moved: list[tuple[Path, Path]] = []
        *others, last = self._parts.items()
        with _signals_deferred():
            try:
                for path, part in others:
                    _put(part, path)
                    moved.append((path, part))
                path, part = last
                part.replace(path)
            except OSError:
                for path, part in reversed(moved):
                    if os.path.lexists(part):  # the older file
                        _put(part, path)
                    else:
                        path.rename(part)
                raise


@contextmanager
def whole_files() -> Iterator[WholeFiles]:
    """Yield an object that says where to write files; when the block succeeds, all are moved in.

    Older files stay until then, and for good if the block raises: what can fail fails before the
    first file is replaced. A signal that arrives during the moves takes effect after the last; only
    SIGKILL or a power cut between two of them leaves new files beside old ones.
    """
    with ExitStack() as scratches:
        files = WholeFiles(scratches)
        yield files
        files.move_in()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path, renamed to `path` when the block ends without error.

    Parent folders are created as needed. An older file at `path` stays until then, and for good if
    the block raises.
    """
    with whole_files() as files:
        yield files.part(path)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with line feeds, whole or not at all."""
    with whole_files() as files:
        files.write_text(path, text)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content`, whole or not at all."""
    with whole_file(path) as part:
        part.write_bytes(content)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder, moved to `path` when the block succeeds.

    An older folder at `path`, or where the link `path` leads, stays until then, and for good if the
    block raises. Two processes may do this at once: each folder replaces the one before, whole.
    Where the system cannot exchange two folders in one step, one that is killed in between leaves
    none at `path`; the next call restores it. Raises ValueError if a file is there.
    """
    path = real_path(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path}: found a file; expected a folder, or nothing")
    with _scratch(path) as scratch:
        part = scratch / "new"
        part.mkdir()
        yield part
        with _signals_deferred():
            _put(part, path)


def real_path(path: Path) -> Path:
    """Where `path` leads; raises OSError if it is a link that leads to itself."""
    try:
        return path.resolve()
    except RuntimeError:  # up to Python 3.12
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from None


@contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`, locked while the block lasts."""
    import fcntl  # not on Windows, where `predict`, which writes nothing, runs all the same

    path.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(path)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
        with suppress(FileNotFoundError):  # another process took it for a leftover
            lock = os.open(folder, os.O_RDONLY)
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                break
            os.close(lock)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # what cannot be removed is a leftover
        os.close(lock)


def clear_leftovers(path: Path) -> None:
    """Remove what processes that were killed have left beside `path`; restore what they moved."""
    import fcntl

    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(OSError), ExitStack() as stack:  # one in use stays
            lock = os.open(leftover, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            stack.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.lexists(leftover / "old") and not os.path.lexists(path):
                (leftover / "old").rename(path)
            shutil.rmtree(leftover)


def _put(part: Path, path: Path) -> None:
    """Move `part` to `path`; what is there, if anything, is then at `part`."""
    while True:
        try:
            _exchange(part, path)
            return
        except FileNotFoundError:  # most likely, nothing is there
            try:
                part.rename(path)
                return
            except OSError:
                if not (part.exists() and path.exists()):
                    raise
                # another process was quicker


def _exchange(one: Path, other: Path) -> None:
    """Exchange two files or folders, in one step if the system can; else all steps or none."""
    try:
        _exchange_in_one_step(one, other)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        old = one.with_name("old")  # where clear_leftovers looks
        done: list[tuple[Path, Path]] = []
        try:
            for source, target in ((other, old), (one, other), (old, one)):
                source.rename(target)
                done.append((source, target))
        except OSError:
            for source, target in reversed(done):
                target.rename(source)
            raise


def _exchange_in_one_step(one: Path, other: Path) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(one), os.fsencode(other)
    if sys.platform == "darwin" and hasattr(libc, "renamex_np"):
        failed = libc.renamex_np(*paths, RENAME_SWAP)
    elif hasattr(libc, "renameat2"):
        failed = libc.renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE)
    else:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))


@contextmanager
def _signals_deferred() -> Iterator[None]:
    """Let SIGINT and SIGTERM that arrive within the block take effect at its end.

    Handlers, and the exceptions they raise, run in the main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in handlers:
            signal.signal(number, lambda number, _: arrived.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if arrived:
        signal.raise_signal(arrived[0])
