"""How many weights another machine publishes differently: what `train` foresees, and what happens.

    python -m benchmarks.stability [--train SPLIT] [--images N] [--iterations N] [SETTING ...]

Prints one row of a Markdown table per setting, OPTIMIZER:RATE, such as adamw:0.007: the margin
between a run and its twin after the first steps and after the last one, whether `train` prints its
note, and the margins between this machine's environments. By default, the images are those that the
pipeline trains on; with --images, the first N of them.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml

from stages.formats.model_file import straddling
from stages.formats.split_file import Split
from stages.training.data import Examples
from stages.training.loop import fit
from stages.training.settings import TrainParams
from stages.training.stability import FIRST_STEPS, LIMIT, Twin, margin, other_roundings
from stages.verify import ENVIRONMENTS, Environment, Weights

TRAIN = Path("data/tensors/train.safetensors")
SETTINGS = ("adamw:0.003", "adamw:0.007", "adamw:0.01", "adamw:0.014", "adamw:0.02", "sgd:0.1")
REFERENCE, *OTHERS = (
    e
    for e in ENVIRONMENTS
    if str(e) in ("native-1-thread", "sse4.2-1-thread", "native-1-thread-2-processes")
)


def weights(folder: Path, environment: Environment) -> Weights:
    """The float64 weights that training ends with in an environment, (K * D + K,)."""
    split, out = folder / "train.safetensors", folder / "weights.npy"
    command = [
        *(sys.executable, "-m", "stages.training.exact_weights"),
        *("--params", f"{folder / 'params.yaml'}", "--train", f"{split}"),
        *("--validation", f"{split}", "--weights", f"{out}"),
    ]
    subprocess.run(command, env=os.environ | environment.variables, check=True)
    found: Weights = np.load(out)
    return found


def row(setting: str, split: Split, folder: Path, iterations: int) -> str:
    """The row of the table."""
    optimizer, _, rate = setting.partition(":")
    section = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))["train"]
    section |= {"optimizer": optimizer, "learning_rate": float(rate), "iterations": iterations}
    if optimizer == "sgd":
        section["weight_decay"] = 0
    (folder / "params.yaml").write_text(yaml.safe_dump({"train": section}))
    params = TrainParams.load(folder / "params.yaml", "train")
    examples, classes = Examples.of(split), len(split.classes)
    # A twin that follows to the end, and the one of `train`, which may stop before.
    whole = fit(params, examples, classes, disturb=other_roundings())
    trains = Twin(fit(params, examples, classes, disturb=other_roundings()), iterations)
    for step, twin in zip(fit(params, examples, classes), whole, strict=True):
        trains.follow(step)
        if step.iteration == min(FIRST_STEPS, iterations):
            first = margin(step, twin)
    reference = weights(folder, REFERENCE)
    measured = [straddling(reference, weights(folder, environment)) for environment in OTHERS]
    cells = [f"{value:.1e}" for value in (first, margin(step, twin), *measured)]
    note = "yes" if trains.margin > LIMIT else "no"
    return f"| {optimizer} {rate} | {' | '.join(cells)} | {note} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="What another machine publishes differently.")
    parser.add_argument("settings", nargs="*", default=SETTINGS, metavar="SETTING")
    parser.add_argument("--train", type=Path, default=TRAIN)
    parser.add_argument("--images", type=int)
    parser.add_argument("--iterations", type=int, default=3000)
    arguments = parser.parse_args()
    split = Split.load(arguments.train)
    split = Split(
        split.features[: arguments.images],
        split.labels[: arguments.images],
        split.classes,
        split.spec,
    )
    print(
        f"| {len(split):,} images | twin, {FIRST_STEPS} steps | twin, all"
        f" | {' | '.join(map(str, OTHERS))} | note |\n|---|{'--:|' * (2 + len(OTHERS))}---|"
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        split.save(folder / "train.safetensors")
        for setting in arguments.settings:
            print(row(setting, split, folder, arguments.iterations), flush=True)


if __name__ == "__main__":
    main()
