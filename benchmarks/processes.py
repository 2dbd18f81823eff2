"""The gain of a second process where there is enough work to share: large colour images.

`python -m benchmarks.processes FILE` prints the seconds of the training steps on that split;
torchrun starts it, and each process has one thread.
"""

import os
import subprocess
import sys
import tempfile
from collections import deque
from math import prod
from pathlib import Path
from time import perf_counter

PIXELS = (3, 224, 224)  # C, H, W: 150,528 pixels
CLASSES = 100
BATCH_SIZE = 1000
STEPS = 4


def measure() -> float:
    """The ratio of the throughput of two processes to that of one."""
    import numpy as np

    from stages.formats.input_spec import InputSpec
    from stages.formats.split_file import Split

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "split.safetensors")
        random = np.random.default_rng(0)
        Split(
            random.integers(0, 256, (BATCH_SIZE, prod(PIXELS)), np.uint8),
            random.integers(0, CLASSES, BATCH_SIZE),
            tuple(map(str, range(CLASSES))),
            InputSpec(*PIXELS),
        ).save(path)
        seconds = []
        for count in (1, 2):
            print(f"large images, {count} processes", file=sys.stderr)
            command = [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
                *("--nproc-per-node", str(count), "-m", "benchmarks.processes", str(path)),
            ]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            seconds.append(float(subprocess.check_output(command, env=environment)))
    return seconds[0] / seconds[1]


def main() -> None:
    """Train on the split, and print the seconds from the first process."""
    from stages.formats.split_file import Split
    from stages.training.data import Examples
    from stages.training.loop import fit
    from stages.training.processes import joined_processes
    from stages.training.settings import TrainParams

    training = Examples.of(Split.load(Path(sys.argv[1])))
    params = TrainParams.load(Path("params.yaml"), "train").model_copy(
        update={"batch_size": BATCH_SIZE, "iterations": STEPS}
    )
    with joined_processes() as processes:
        started = perf_counter()
        deque(fit(params, training, CLASSES, processes), maxlen=0)
        if processes.first:
            print(perf_counter() - started)


if __name__ == "__main__":
    main()
