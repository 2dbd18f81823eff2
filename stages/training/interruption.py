"""Run `train` until it has written a checkpoint halfway through, then kill it, as a crash would.

`python -m stages.training.interruption OPTIONS`, with the options of `python -m stages.train`.
"""

import os
import runpy
import signal
import sys
from pathlib import Path
from unittest.mock import patch

from stages.training import checkpoint
from stages.training.checkpoint import Checkpoint, State
from stages.training.settings import TrainParams


def main() -> None:
    """Run `train` with this process's arguments; never returns unless it ends early."""
    params = TrainParams.load(Path(sys.argv[sys.argv.index("--params") + 1]), "train")
    halfway = max(1, params.iterations // 2)
    keep = Checkpoint.keep

    def keep_once_and_die(self: Checkpoint, state: State) -> None:
        if state.iteration == halfway:
            keep(self, state)
            os.kill(os.getpid(), signal.SIGKILL)

    # A run that lasts less than SECONDS would write no checkpoint at all.
    with (
        patch.object(checkpoint, "SECONDS", 0.0),
        patch.object(Checkpoint, "keep", keep_once_and_die),
    ):
        runpy.run_module("stages.train", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
