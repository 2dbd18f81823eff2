"""Fit a split with every optimizer and schedule, and print what would be published.

`python -m tests.training.fit_all SPLIT`: in float64, and then the same in float32.
"""

import hashlib
import json
import sys
from pathlib import Path

import torch

from stages.formats.split_file import Split
from stages.train import published
from stages.training.data import Examples
from stages.training.history import History
from stages.training.loop import fit
from stages.training.processes import Processes, joined_processes
from stages.training.settings import TrainParams

PARAMS = [
    TrainParams.model_validate(
        {
            "optimizer": optimizer,
            "learning_rate": 0.1 if optimizer == "sgd" else 0.01,
            "momentum": 0.9,
            "nesterov": nesterov,
            "weight_decay": 0.001,
            "schedule": schedule,
            "batch_size": 32,
            "iterations": 60,
            "eval_every": 30,
            "seed": 0,
        }
    )
    for optimizer, nesterov in (("sgd", False), ("sgd", True), ("adam", False), ("adamw", False))
    for schedule in ("constant", "linear", "cosine")
]


def fitted(split: Split, params: TrainParams, processes: Processes) -> list[str]:
    """The hash of the model's file, and the losses of the history."""
    examples = Examples.of(split)
    history = History(params, examples, processes)
    for step in fit(params, examples, len(split.classes), processes):
        history.add(step)
    model = hashlib.sha256(published(step, split, params).serialized()).hexdigest()
    rows = [f"{row.training_loss:.6f} {row.validation_loss:.6f}" for row in history.rows]
    return [model, *rows]


def main() -> None:
    split = Split.load(Path(sys.argv[1]))
    with joined_processes() as processes:
        assert processes.gather([processes.rank]) == [[rank] for rank in range(processes.count)]
        double = [fitted(split, params, processes) for params in PARAMS]
        torch.float64 = torch.float32  # the loop names its precision so
        single = [fitted(split, params, processes) for params in PARAMS]
        if processes.first:
            print("published", json.dumps({"float64": double, "float32": single}))


if __name__ == "__main__":
    main()
