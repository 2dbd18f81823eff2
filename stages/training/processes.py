"""How a training run is shared among processes (one, or those that torchrun started) and threads.

Each process takes its part of every batch, the sums over the parts are added up, and the first
process writes. In float64 the order of the sums changes no published byte, so neither number is a
param: `PROCESSES=3 dvc repro` runs the same stage as `dvc repro`, and torchrun can run it on
several machines.
"""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any, NoReturn

import torch
import torch.distributed
from torch import Tensor

from stages.base.command import message
from stages.base.process_count import on_several_machines, under_torchrun
from stages.base.process_group import ProcessGroup, Value


@dataclass(frozen=True)
class Processes(ProcessGroup):
    """Processes that torchrun started, or the only one; they meet in torch's group `group`."""

    group: Any = None  # torch's default

    def part(self, batch: Tensor) -> Tensor:
        """Take this process's part of a batch, (n,) -> about (n / count,); it may be empty."""
        return batch[self.rank :: self.count] if self.count > 1 else batch

    def add_up(self, *tensors: Tensor) -> None:
        """Replace each tensor, in place, with its sum over the processes, in one exchange."""
        if self.count > 1:
            together = torch.cat([tensor.flatten() for tensor in tensors])
            with _peers_may_end():
                torch.distributed.all_reduce(together)
            sums = torch.split(together, [tensor.numel() for tensor in tensors])
            for tensor, total in zip(tensors, sums, strict=True):
                tensor.copy_(total.view_as(tensor))

    def gather(self, value: Value) -> list[Value]:
        """Return, in every process, what each passes, in order of rank; waits for all of them."""
        if self.count == 1:
            return super().gather(value)
        values: list[Any] = [None] * self.count
        with _peers_may_end():
            torch.distributed.all_gather_object(values, value, self.group)
        return values

    def from_first(self, value: Any) -> Any:
        """Return, in every process, the value that the first process passes."""
        if self.count == 1:
            return value
        box = [value]
        with _peers_may_end():
            torch.distributed.broadcast_object_list(box)
        return box[0]


ALONE = Processes()
PEER_ENDED = 3  # the exit code of a process that ends because another has
CPU = torch.device("cpu")
PATIENCE = timedelta(days=1)  # of a process with another whose share takes longer


def run_processes(module: str, count: int) -> None:
    """Run `module` with our arguments in `count` processes, by torchrun, until all have ended.

    On several machines, torchrun's variables say how many there are and where they meet. Raises
    ValueError with the message of a process that found bad input, OSError if one was killed, here
    or on another machine, and SystemExit if one ended otherwise.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    logging.disable()  # torchrun's reports on the processes; theirs are enough
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torchrun would set it too, but print a warning
    where = [] if on_several_machines() else ["--standalone"]
    options = (*where, "--nproc-per-node", str(count), "--module", module)
    try:
        run(parse_args([*options, *sys.argv[1:]]))  # type: ignore[no-untyped-call]  # torch's
    except SignalException as error:
        sys.exit(128 + error.sigval)
    except ChildFailedError as error:
        failures = error.failures.values()
        for failure in failures:
            if Path(failure.error_file).is_file():
                raise ValueError(failure.message) from None
        for failure in failures:
            if failure.exitcode < 0:
                raise OSError(
                    f"one of {count} processes was killed by {failure.signal_name()}: out of"
                    " memory? to run fewer at a time, lower PROCESSES"
                ) from None
        if all(failure.exitcode == PEER_ENDED for failure in failures):
            raise OSError(
                "a process on another machine has ended before its work was done; see what was"
                " printed there"
            ) from None
        sys.exit(1)  # a bug, with the traceback that the process has printed


@contextmanager
def errors_told_to_torchrun() -> Iterator[None]:
    """Under torchrun, leave a message about bad input to it: each process would print its own."""
    try:
        yield
    except (OSError, ValueError) as error:
        file = os.environ.get("TORCHELASTIC_ERROR_FILE")
        if not file:
            raise
        if isinstance(error, PeerEnded):
            _end_after_peer()
        report = {"message": message(error), "timestamp": int(time.time())}
        Path(file).write_text(json.dumps(report), encoding="utf-8")
        sys.exit(2)
    except KeyboardInterrupt:
        if not under_torchrun():
            raise
        sys.exit(130)


class PeerEnded(ConnectionError):
    """Another process of this run has ended before its work was done."""


def _end_with_parent(torchrun: int) -> None:
    while os.getppid() == torchrun:
        time.sleep(1)
    os._exit(1)  # torchrun was killed: nobody waits for the result


def _end_after_peer() -> NoReturn:
    time.sleep(1)  # the process at fault ends first, and says why
    sys.exit(PEER_ENDED)


@contextmanager
def _peers_may_end() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo's and NCCL's
        raise PeerEnded(f"another process of this run has ended: {error}") from None


@contextmanager
def joined_processes(device: torch.device = CPU) -> Iterator[Processes]:
    """Join the processes that torchrun started, or yield the only one."""
    if not under_torchrun():
        yield ALONE
        return
    Thread(target=_end_with_parent, args=[os.getppid()], daemon=True).start()
    if device.type == "cuda":
        torch.cuda.set_device(device)  # the device that NCCL uses
    with _peers_may_end():
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(torch.distributed.get_rank(), torch.distributed.get_world_size())
    finally:
        torch.distributed.destroy_process_group()


@contextmanager
def watched(processes: Processes) -> Iterator[Processes]:
    """Yield the same processes for work with hours between two exchanges; if one ends, all do.

    They stand in a ring. Each waits for a word from the next, which comes when all is done; if the
    connection breaks before, it ends, which the one before it sees.
    """
    if processes.count == 1:
        yield processes
        return
    meeting: Any = torch.distributed.new_group(timeout=PATIENCE)
    ring: Any = torch.distributed.new_group(timeout=PATIENCE)
    done, broken = Event(), Event()

    def watch() -> None:
        try:
            following = (processes.rank + 1) % processes.count
            torch.distributed.recv(torch.zeros(1), following, ring)
        except RuntimeError:
            if not done.is_set():
                broken.set()
                os.kill(os.getpid(), signal.SIGTERM)

    def terminate(number: int, _: object) -> NoReturn:
        if broken.is_set():
            _end_after_peer()
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, terminate)
    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield replace(processes, group=meeting)
        with _peers_may_end():
            torch.distributed.send(torch.zeros(1), (processes.rank - 1) % processes.count, ring)
        thread.join()
    finally:
        done.set()


def use_threads(products_per_batch: int) -> None:
    """Use one thread if a batch is too little work to share, unless OMP_NUM_THREADS is set.

    products_per_batch: batch size times features times classes. This changes no result. On a busy
    machine, threads that wait for each other at every small operation can take forty times as long
    as one thread.
    """
    if "OMP_NUM_THREADS" not in os.environ and products_per_batch < 2**24:
        torch.set_num_threads(1)
