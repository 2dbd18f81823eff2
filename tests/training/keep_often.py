"""`python -m stages.train` with several checkpoints a second, to be killed after one."""

import runpy

from stages.training import checkpoint

if __name__ == "__main__":
    checkpoint.SECONDS = 0.1
    checkpoint.SHARE = 1.0
    runpy.run_module("stages.train", run_name="__main__", alter_sys=True)
