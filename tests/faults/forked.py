"""Runs commands in forked children with a fault each: `python -m tests.faults.forked SHIM`.

It is started with SHIM preloaded, and reads a job per line on standard input and answers with an
outcome per line on standard output, both JSON. What takes long to import is imported once.
"""

import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import sys
import time
import traceback
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, NoReturn

from PIL import Image

COMMANDS = (
    *("download", "tensorize", "train", "evaluate", "predict", "shards", "pictures", "explain"),
    "gate.__main__",
)
LATER = ("scipy.sparse", "scipy.stats")  # what these import when they need it
LIMIT = 60  # seconds, after which a command counts as hanging


def run(shim: ctypes.CDLL, job: dict[str, Any]) -> dict[str, Any]:
    """The exit code of a job, as subprocess gives it, what it printed, and its operations."""
    with TemporaryFile() as output, TemporaryFile() as errors, TemporaryFile() as log:
        child = os.fork()
        if not child:
            become(shim, job, output, errors, log)
        until, ended = time.monotonic() + LIMIT, 0
        while not ended and time.monotonic() < until:
            ended, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.002)
        if not ended:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        texts = []
        for file in (output, errors, log):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    code = os.waitstatus_to_exitcode(status) if ended else "hangs"
    return dict(zip(("code", "output", "errors", "operations"), (code, *texts), strict=True))


def become(shim: ctypes.CDLL, job: dict[str, Any], *files: IO[bytes]) -> NoReturn:
    """Run a job's module as a program whose standard streams and log are `files`."""
    code = 1
    try:
        os.chdir(job["folder"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # not the jobs
        for number, file in enumerate(files[:2], start=1):
            os.dup2(file.fileno(), number)
        sys.argv = [job["module"], *job["arguments"]]
        if job["checkpoints"]:
            from stages.training import checkpoint

            checkpoint.SECONDS, checkpoint.SHARE = 0.0, float("inf")
        folder = os.fsencode(job["folder"])
        shim.arm(folder, job["at"], job["fault"], job["streams"], files[2].fileno())
        runpy.run_module(job["module"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else stop.code is not None
    except BaseException:  # as the interpreter does
        traceback.print_exc()
    try:
        sys.stdout.flush()
    except OSError:
        code = 120  # as the interpreter does
    shim.arm(b"", 0, 0, 0, -1)
    os._exit(code)


def main() -> None:
    """Answer jobs until standard input ends."""
    shim = ctypes.CDLL(sys.argv[1])
    for name in LATER:
        importlib.import_module(name)
    for name in COMMANDS:
        importlib.import_module(f"stages.{name}")
        del sys.modules[f"stages.{name}"]  # else running it warns that it is there
    Image.init()  # imports what decodes pictures
    gc.freeze()  # else collecting garbage copies the memory that children share
    for line in sys.stdin:
        print(json.dumps(run(shim, json.loads(line))), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
