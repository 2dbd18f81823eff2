"""Fit a split with every optimizer and schedule, and print what would be published.

`python -m tests.training.fit_all SPLIT float64`; with `float32`, the same in single precision.
"""

import hashlib
import json
import sys
from pathlib import Path

import torch

from stages.formats.split_file import LabelledImages
from stages.train import published
from stages.training.data import Examples
from stages.training.history import History
from stages.training.loop import CPU, fit
from stages.training.processes import joined_processes
from tests.training.runs import make_params

RUNS = [
    (optimizer, nesterov, schedule)
    for optimizer, nesterov in (("sgd", False), ("sgd", True), ("adam", False), ("adamw", False))
    for schedule in ("constant", "linear", "cosine")
]


def main() -> None:
    path, precision = sys.argv[1:]
    if precision == "float32":
        torch.float64 = torch.float32  # the loop asks for its precision by this name
    split = LabelledImages.load(Path(path))
    examples, found = Examples.of(split), {}
    with joined_processes(CPU) as processes:
        for optimizer, nesterov, schedule in RUNS:
            params = make_params(
                optimizer=optimizer,
                nesterov=nesterov,
                schedule=schedule,
                learning_rate=0.1 if optimizer == "sgd" else 0.01,
                weight_decay=0.001,
                batch_size=32,
                iterations=60,
                eval_every=30,
            )
            history = History(params, examples, processes)
            for step in fit(params, examples, len(split.classes), processes):
                history.add(step)
            model = hashlib.sha256(published(step, split).serialized({})).hexdigest()
            rows = [f"{row.training_loss:.6f} {row.validation_loss:.6f}" for row in history.rows]
            found[f"{optimizer} {nesterov} {schedule}"] = [model, *rows]
        if processes.first:
            print("published", json.dumps(found))


if __name__ == "__main__":
    main()
