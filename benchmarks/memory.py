"""The peak memory of processes, as the operating system counts it."""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

UNIT = 1 if sys.platform == "darwin" else 1024  # bytes; getrusage(2) counts in bytes or KiB
INTERVAL = 0.005  # seconds between two samples
SAMPLED = Path("/proc/thread-self/children").is_file()  # whether this system has what is sampled


def peak_megabytes(usage: resource.struct_rusage) -> float:
    """The most memory that the process of `usage` held at once, in MB (1e6 bytes)."""
    return usage.ru_maxrss * UNIT / 1e6


def peak_anonymous_megabytes(command: Sequence[str]) -> float:
    """The most anonymous memory that a command held at once, with all its processes, in MB.

    Sampled as the sum of RssAnon in /proc/PID/status, so that a peak shorter than the interval may
    be missed. Anonymous is what has no file behind it: pages of mapped files count in the resident
    memory too, but are the system's cache, and go when the memory is needed.
    Raises RuntimeError with the command's output if it fails.
    """
    peak = 0
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None:
            peak = max(peak, sum(map(anonymous_bytes, family(process.pid))))
            time.sleep(INTERVAL)
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}\n{text}")
    return peak / 1e6


def family(pid: int) -> Iterator[int]:
    """A process and all that descend from it."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in read(children).split():
            yield from family(int(child))


def anonymous_bytes(pid: int) -> int:
    """The anonymous memory of a process; 0 if it has ended."""
    for line in read(Path(f"/proc/{pid}/status")).splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def read(path: Path) -> str:
    """What a file of /proc says; nothing if its process has ended."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
