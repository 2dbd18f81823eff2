"""The peak memory of a process, as the operating system counts it."""

import resource
import sys

UNIT = 1 if sys.platform == "darwin" else 1024  # bytes; getrusage(2) counts in bytes or KiB


def peak_megabytes(usage: resource.struct_rusage) -> float:
    """The most memory that the process of `usage` held at once, in MB (1e6 bytes)."""
    return usage.ru_maxrss * UNIT / 1e6
