"""Many pictures -> the pixels that the model sees, in order, decoded by several processes.

Each picture is decoded by itself, so the number of processes changes no result. Only a few chunks
of pictures are in memory at a time.
"""

import os
import signal
import threading
import time
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from stages.base.process_count import processes_asked_for
from stages.images.preprocessing import Preprocessing, bombs_refused

if TYPE_CHECKING:
    from concurrent.futures import Future
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

CHUNK = 32  # pictures, fewer if they are large
CHUNK_BYTES = 2**23
SIGNAL_SECONDS = 0.1  # before a signal's handler runs, at most
ALONE_SECONDS = 1.0  # before starting other processes, which takes about half as long

OpenItem = Callable[[Any], tuple[Image.Image, int]]
NameOf = Callable[[Any], str]


@dataclass(frozen=True)
class Pictures:
    """Pictures to decode: open_item(items[i]) -> a picture and its label.

    `open_item` is sent to other processes. It raises ValueError, with the reason, if it cannot open
    the picture; name_of(items[i]) is the picture's name in messages.
    """

    items: Sequence[Any]
    open_item: OpenItem
    name_of: NameOf
    processes: int | None = None

    def name_at(self, index: int) -> str:
        """The name of picture `index`."""
        return self.name_of(self.items[index])


class Decoded(NamedTuple):
    """One picture: its (C, H, W) pixels as bytes, its (H, W) and its label."""

    pixels: bytes
    size: tuple[int, int]
    label: int


class Unreadable(NamedTuple):
    """A picture that cannot be read, and why."""

    name: str
    reason: str


Outcome = Decoded | Unreadable


def decode(
    pictures: Pictures, preprocessing: Preprocessing, share: range | None = None
) -> Iterator[list[Outcome]]:
    """Decode in order, a chunk at a time; raises OSError if a worker process is killed.

    Unless `pictures` says how many processes to use, the first second's work is done in this
    process, and the rest is shared by as many as PROCESSES says, or else one per CPU. share: the
    indices of the pictures to decode, by default all of them.
    """
    size = _pictures_a_chunk(preprocessing)
    share = range(len(pictures.items)) if share is None else share
    starts = range(share.start, share.stop, size)
    chunks = (pictures.items[start : min(start + size, share.stop)] for start in starts)
    decoder = Decoder(pictures.open_item, pictures.name_of, preprocessing)
    processes = pictures.processes or processes_asked_for() or cpus()
    until = time.monotonic() + (0 if pictures.processes else ALONE_SECONDS)
    for chunk in chunks:
        if processes > 1 and time.monotonic() >= until:
            yield from _shared(processes, decoder, chain([chunk], chunks))
        else:
            yield decoder(chunk)


def _shared(
    processes: int, decoder: "Decoder", chunks: Iterable[Sequence[Any]]
) -> Iterator[list[Outcome]]:
    from concurrent.futures import ThreadPoolExecutor

    workers = _Workers(decoder)
    threads = ThreadPoolExecutor(processes)
    pending: deque[Future[list[Outcome]]] = deque()
    try:
        for chunk in chunks:
            pending.append(threads.submit(workers.run, chunk))
            if len(pending) > 2 * processes:
                yield _result(pending.popleft())
        while pending:
            yield _result(pending.popleft())
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        workers.kill()
        threads.shutdown()


def _result(future: "Future[list[Outcome]]") -> list[Outcome]:
    """The result of a future, waited for in short turns.

    A signal that arrives just before a thread begins to wait does not end the wait: its handler
    would run only when the chunk is done.
    """
    from concurrent.futures import wait

    while not future.done():
        wait([future], timeout=SIGNAL_SECONDS)
    return future.result()


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


class _Workers:
    """Processes that decode: one for each thread that calls `run`, at the other end of a pipe.

    The processes share nothing, so any of them can be killed at any moment, and the thread waiting
    for it sees the pipe close. In a ProcessPoolExecutor they share queues: if a process dies
    halfway through writing a result, its parent waits for the other half forever.

    Python runs signal handlers only in the main thread, so an exception raised by one cannot
    interrupt a thread that is starting a process.
    """

    def __init__(self, decoder: "Decoder") -> None:
        self._decoder = decoder
        self._of_thread = threading.local()
        self._starting = threading.Lock()
        self._started: list[SpawnProcess] = []
        self._killed = False

    def run(self, items: Sequence[Any]) -> list[Outcome]:
        """Decode a chunk in this thread's process.

        Raises OSError if the process is killed.
        """
        try:
            if not hasattr(self._of_thread, "pipe"):
                self._of_thread.pipe = self._start()
                self._of_thread.pipe.send(self._decoder)
            self._of_thread.pipe.send(items)
            result: list[Outcome] | Exception = self._of_thread.pipe.recv()
        except (EOFError, OSError):
            raise OSError(
                "a process that decodes pictures was killed: out of memory? to run fewer at a time,"
                " lower PROCESSES, which is the number of CPUs if it is unset"
            ) from None
        if isinstance(result, Exception):
            raise result
        return result

    def _start(self) -> "Connection[Any, Any]":
        from multiprocessing import get_context, resource_tracker

        spawn = get_context("spawn")
        with self._starting, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the tracker was killed: it starts again
            if self._killed:
                raise EOFError
            # Ctrl-C goes to the whole process group, so the processes inherit a mask that blocks
            # it. Starting the resource tracker, which multiprocessing needs, would undo that.
            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_work, args=(theirs,), daemon=True)
            process.start()
            self._started.append(process)
        theirs.close()  # leaves the process with the only copy: `ours` ends when it dies
        return ours

    def kill(self) -> None:
        """Kill the processes, whatever they are doing, and start no more."""
        with self._starting:
            self._killed = True
        for process in self._started:
            process.kill()
        for process in self._started:
            process.join()


def _work(pipe: "Connection[Any, Any]") -> None:
    """Receive a decoder, then decode each chunk received, until the parent is gone."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, ConnectionError):  # the parent has closed its end
        decoder = pipe.recv()
        while True:
            pipe.send(_outcomes_or_error(decoder, pipe.recv()))


def _end_with_parent() -> None:
    from multiprocessing import parent_process

    parent = parent_process()
    if parent:
        parent.join()
        os._exit(1)  # even in the middle of a chunk


def _outcomes_or_error(decoder: "Decoder", items: Sequence[Any]) -> list[Outcome] | Exception:
    try:
        return decoder(items)
    except Exception as error:  # the parent raises it
        error.add_note("".join(traceback.format_exception(error)))
        return error
