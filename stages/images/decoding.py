"""Many pictures -> the pixels that the model sees, in order, by as many processes as are useful.

A picture is decoded by itself, so that the number of processes changes nothing, and only a few
chunks of them are in memory at a time.
"""

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from stages.images.preprocessing import Preprocessing, bombs_refused

if TYPE_CHECKING:
    from concurrent.futures import Future

CHUNK = 32  # pictures, fewer if they are large
CHUNK_BYTES = 2**23
ALONE_SECONDS = 1.0  # before other processes are started, which takes about half as long

OpenItem = Callable[[Any], tuple[Image.Image, int]]
NameOf = Callable[[Any], str]


@dataclass(frozen=True)
class Pictures:
    """Pictures to decode: open_item(items[i]) -> a picture and its label.

    `open_item` is sent to other processes. It raises ValueError with the reason if there is no
    picture; name_of(items[i]) says in a message which one it is.
    """

    items: Sequence[Any]
    open_item: OpenItem
    name_of: NameOf
    processes: int | None = None


class Decoded(NamedTuple):
    """One picture: its (C, H, W) pixels as bytes, its (H, W) and its label."""

    pixels: bytes
    size: tuple[int, int]
    label: int


class Unreadable(NamedTuple):
    """A picture that is none, and why."""

    name: str
    reason: str


Outcome = Decoded | Unreadable


def decode(pictures: Pictures, preprocessing: Preprocessing) -> Iterator[list[Outcome]]:
    """Decode in order, a chunk at a time; raises OSError if a process of ours is killed.

    Unless `pictures` says how many processes, the first second's work is done here, and what is
    then left is shared by as many as there are CPUs.
    """
    size = _pictures_a_chunk(preprocessing)
    chunks = (pictures.items[start : start + size] for start in range(0, len(pictures.items), size))
    decoder = Decoder(pictures.open_item, pictures.name_of, preprocessing)
    processes = pictures.processes or cpus()
    until = time.monotonic() + (0 if pictures.processes else ALONE_SECONDS)
    for chunk in chunks:
        if processes > 1 and time.monotonic() >= until:
            yield from _shared(processes, decoder, chain([chunk], chunks))
        else:
            yield decoder(chunk)


def _shared(
    processes: int, decoder: "Decoder", chunks: Iterable[Sequence[Any]]
) -> Iterator[list[Outcome]]:
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import active_children, get_context

    pool = ProcessPoolExecutor(processes, get_context("spawn"), _start, (decoder,))
    pending: deque[Future[list[Outcome]]] = deque()
    try:
        for chunk in chunks:
            with _interrupts_delayed():
                pending.append(pool.submit(_run, chunk))
            if len(pending) > 2 * processes:
                yield pending[0].result()
                pending.popleft()
        while pending:
            yield pending[0].result()
            pending.popleft()
    except BrokenProcessPool:
        raise OSError(
            "a process that decodes pictures was killed: too little memory? fewer run at a time"
            " under `taskset --cpu-list 0`"
        ) from None
    finally:
        if pending:  # and nobody asks for it any more
            for process in active_children():
                process.terminate()
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class Decoder:
    """Decodes chunks of items."""

    open_item: OpenItem
    name_of: NameOf
    preprocessing: Preprocessing

    def __call__(self, items: Sequence[Any]) -> list[Outcome]:
        with bombs_refused():
            return [self._decode(item) for item in items]

    def _decode(self, item: Any) -> Outcome:
        try:
            image, label = self.open_item(item)
            image = self.preprocessing(image)
            bands = image.split() if len(image.getbands()) > 1 else [image]
            pixels = b"".join(band.tobytes() for band in bands)
        except ValueError as error:
            return Unreadable(self.name_of(item), str(error))
        except MemoryError:
            return Unreadable(self.name_of(item), "more pixels than there is memory for")
        return Decoded(pixels, image.size[::-1], label)


def cpus() -> int:
    """How many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _pictures_a_chunk(preprocessing: Preprocessing) -> int:
    height, width = preprocessing.size or (512, 512)
    return max(1, min(CHUNK, CHUNK_BYTES // (preprocessing.channels * height * width)))


@contextmanager
def _interrupts_delayed() -> Iterator[None]:
    """Ctrl-C has its effect when the block ends, and none on processes that are started in it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(decoder: Decoder) -> None:
    """Make a process ready for `_run`; the end of its parent ends it."""
    global _decoder  # noqa: PLW0603  # sent once to each process, not with each chunk
    _decoder = decoder
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    from multiprocessing import parent_process

    parent = parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _run(items: Sequence[Any]) -> list[Outcome]:
    return _decoder(items)


_decoder: Decoder
