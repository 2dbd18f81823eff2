"""How much memory the commands need for N images, and for ten times as many."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from statistics import median

import numpy as np
import yaml

from benchmarks import generated, pictures
from benchmarks.memory import peak_anonymous_megabytes
from stages.formats.input_spec import InputSpec
from stages.formats.split_file import Features, Images, create_split, write_rows

PYTHON = sys.executable
PHOTOGRAPHS = 8_000  # enough for two processes to decode them, as they do ten times as many
REPETITIONS = 3  # of train and evaluate
IMAGES = 5_000
SHAPE = (3, 64, 64)  # C, H, W: 61 MB, and 614 MB for ten times as many

Megabytes = tuple[float, float]  # at N, at 10 N


def measure() -> dict[str, Megabytes]:
    """The peak of anonymous memory of tensorize, train and evaluate."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        return {"tensorize": tensorize(folder), **train_and_evaluate(folder)}


def tensorize(folder: Path) -> Megabytes:
    """Of `stages.tensorize`, including the processes that decode for it."""
    many, few = folder / "many", folder / "few"
    print("generating pictures", file=sys.stderr)
    generated.photographs(many, 10 * PHOTOGRAPHS)
    generated.first_photographs(many, PHOTOGRAPHS, few)
    print("memory of tensorize", file=sys.stderr)
    with two_cpus():
        at_n, at_10_n = (
            peak_anonymous_megabytes(pictures.tensorize(raw, folder)) for raw in (few, many)
        )
    return at_n, at_10_n


def train_and_evaluate(folder: Path) -> dict[str, Megabytes]:
    """Of `stages.train`, which trains on N images, and of `stages.evaluate` on them: medians."""
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    params["train"].update({"iterations": 100, "eval_every": 100})
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(params))
    validation, model = folder / "validation.safetensors", folder / "model.safetensors"
    noise(validation, IMAGES // 10)
    training: list[float] = []
    evaluating: list[float] = []
    for number in (IMAGES, 10 * IMAGES):
        print(f"memory of train and evaluate, {number} images", file=sys.stderr)
        split = folder / "split.safetensors"
        noise(split, number)
        train = [
            *(PYTHON, "-m", "stages.train", f"--params={path}", f"--train={split}"),
            *(f"--validation={validation}", f"--model={model}"),
            *(f"--history={folder / 'history.csv'}", f"--metrics={folder / 'validation.json'}"),
        ]
        evaluate = [
            *(PYTHON, "-m", "stages.evaluate", f"--params={path}", f"--model={model}"),
            *(f"--test={split}", f"--metrics={folder / 'metrics.json'}"),
            *(f"--predictions={folder / 'predictions.csv'}", f"--plots={folder / 'plots'}"),
            *(f"--history={folder / 'history.csv'}", f"--report={folder / 'report.html'}"),
            f"--model-card={folder / 'model_card.md'}",
        ]
        for peaks, command in ((training, train), (evaluating, evaluate)):
            runs = [peak_anonymous_megabytes(command) for _ in range(REPETITIONS)]
            peaks.append(median(runs))
    return {"train": (training[0], training[1]), "evaluate": (evaluating[0], evaluating[1])}


def noise(path: Path, number: int) -> None:
    """Write a split of that many random images, with their pixels as features."""
    random = np.random.default_rng(0)

    def chunks() -> Iterator[tuple[Features, Images]]:
        for start in range(0, number, 1000):
            images = random.integers(0, 256, (min(1000, number - start), *SHAPE), np.uint8)
            yield images.reshape(len(images), -1), images

    classes = tuple(map(str, range(10)))
    labels, names = np.arange(number) % len(classes), [str(i) for i in range(number)]
    spec = InputSpec(*SHAPE)
    create_split(path, labels, names, classes, spec, prod(SHAPE), with_images=False)
    write_rows(path, 0, chunks())


@contextmanager
def two_cpus() -> Iterator[None]:
    """Confine what is started within to two CPUs, so that two processes decode on any machine."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:2])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
