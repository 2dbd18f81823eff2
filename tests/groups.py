"""Groups of several processes, as torchrun starts them, without the seconds that it takes."""

import os
import pickle
import shutil
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import BrokenBarrierError

import pytest

from stages.base.process_group import ProcessGroup, Value

# Of a process with threads, which the tests' runner has.
forks = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
LIMIT = 60  # seconds, after which a process counts as hanging


@dataclass(frozen=True)
class Forked(ProcessGroup):
    """Forks of this process, which leave what they gather in a folder."""

    meeting: Barrier | None = None
    folder: Path = Path()

    def gather(self, value: Value) -> list[Value]:
        assert self.meeting
        (self.folder / str(self.rank)).write_bytes(pickle.dumps(value))
        try:
            self.meeting.wait(LIMIT)
            files = [self.folder / str(rank) for rank in range(self.count)]
            values: list[Value] = [pickle.loads(file.read_bytes()) for file in files]  # noqa: S301  # our own
            self.meeting.wait(LIMIT)
        except BrokenBarrierError:
            raise ConnectionError("another process has ended") from None
        return values


def in_processes(count: int, folder: Path, work: Callable[[ProcessGroup], object]) -> list[str]:
    """Do `work` in a group of `count` processes, which meet in `folder`.

    How each ends: "", an error's message, "exit code N" or "killed".
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    meeting = get_context("fork").Barrier(count)
    children = []
    for rank in range(count):
        child = os.fork()
        if child:
            children.append(child)
            continue
        error = ""
        try:
            work(Forked(rank, count, meeting, folder))
        except (OSError, ValueError) as reason:
            meeting.abort()
            error = str(reason)
        except SystemExit as end:
            error = f"exit code {end.code}"
        except BaseException:
            meeting.abort()
            error = traceback.format_exc()
        finally:
            (folder / f"error {rank}").write_text(error)
            os._exit(0)
    for child in children:
        os.waitpid(child, 0)
    files = [folder / f"error {rank}" for rank in range(count)]
    return [file.read_text() if file.exists() else "killed" for file in files]
