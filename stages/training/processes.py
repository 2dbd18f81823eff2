"""How a training run is shared among processes (one, or those that torchrun started) and threads.

Each process takes its part of every batch, the sums over the parts are added up, and the first
process writes. In float64 the order of the sums changes no published byte, so neither number is a
param: `TRAIN_PROCESSES=3 dvc repro` runs the same stage as `dvc repro`, and torchrun can run it on
several machines.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor


@dataclass(frozen=True)
class Processes:
    """`count` processes; this one is number `rank`, counted from 0."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that loads checkpoints, prints and writes files."""
        return self.rank == 0

    def part(self, batch: Tensor) -> Tensor:
        """Take this process's part of a batch, (n,) -> about (n / count,); it may be empty."""
        return batch[self.rank :: self.count] if self.count > 1 else batch

    def add_up(self, *tensors: Tensor) -> None:
        """Replace each tensor, in place, with its sum over the processes, in one exchange."""
        if self.count > 1:
            together = torch.cat([tensor.flatten() for tensor in tensors])
            torch.distributed.all_reduce(together)
            sums = torch.split(together, [tensor.numel() for tensor in tensors])
            for tensor, total in zip(tensors, sums, strict=True):
                tensor.copy_(total.view_as(tensor))

    def from_first(self, value: Any) -> Any:
        """Return, in every process, the value that the first process passes."""
        if self.count == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box)
        return box[0]


ALONE = Processes()


def processes_asked_for() -> int:
    """Read TRAIN_PROCESSES: 1 if it is unset or empty.

    Raises ValueError if it is not a whole number above 0.
    """
    text = os.environ.get("TRAIN_PROCESSES") or "1"
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"TRAIN_PROCESSES: found {text!r}; expected a whole number, 1 or more")
    return int(text)


def under_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def become_torchrun(module: str, processes: int) -> None:
    """Replace this process with torchrun, which runs `module` with our arguments in each."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(processes), "-m", module, *sys.argv[1:]),
    ]
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torchrun would set it too, but print a warning
    sys.stdout.flush()
    os.execv(sys.executable, command)  # noqa: S606  # no shell is wanted


@contextmanager
def joined_processes(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun started, or yield the only one."""
    if not under_torchrun():
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # the device that NCCL uses
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(torch.distributed.get_rank(), torch.distributed.get_world_size())
    finally:
        torch.distributed.destroy_process_group()


def use_threads(products_per_batch: int) -> None:
    """Use one thread if a batch is too little work to share, unless OMP_NUM_THREADS is set.

    products_per_batch: batch size times features times classes. This changes no result. On a busy
    machine, threads that wait for each other at every small operation can take forty times as long
    as one thread.
    """
    if "OMP_NUM_THREADS" not in os.environ and products_per_batch < 2**24:
        torch.set_num_threads(1)
