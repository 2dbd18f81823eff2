"""Training as a whole process, ours and the tutorial's, each less the time of its imports.

Both train on MNIST's 60,000 training images at the tutorial's settings and watch its 10,000 test
images. Ours is `python -m stages.train`: it reads its splits, checks that rounding errors do not
grow, and writes the model and its history. The tutorial's is the row `tutorial` of
benchmarks.training: it reads MNIST's files and writes nothing.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import yaml

from benchmarks import mnist
from benchmarks.pictures import time
from benchmarks.training import TUTORIAL
from stages.formats.split_file import LabelledImages

PYTHON = sys.executable
REPETITIONS = 3
IMPORTS = {
    "ours": [PYTHON, "-c", "import stages.train"],
    "tutorial": [
        *(PYTHON, "-c", "import torch.utils.data, torchvision.datasets, torchvision.transforms")
    ],
}


@dataclass(frozen=True)
class WholeProcesses:
    """Median seconds from a process's start to its end, less those of one that only imports."""

    ours: float
    tutorial: float


def measure() -> WholeProcesses:
    """Both; the commands take turns, so that a busy minute affects both."""
    with tempfile.TemporaryDirectory() as scratch:
        commands = {
            "ours": train_at_the_tutorials_settings(Path(scratch)),
            "tutorial": [PYTHON, "-m", "benchmarks.training", "tutorial"],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        imports: dict[str, list[float]] = {name: [] for name in commands}
        for repetition in range(REPETITIONS):
            print(f"whole processes, {repetition + 1} of {REPETITIONS}", file=sys.stderr)
            for name, command in commands.items():
                imports[name].append(time(IMPORTS[name]))
                seconds[name].append(time(command))
    return WholeProcesses(
        **{name: median(seconds[name]) - median(imports[name]) for name in commands}
    )


def train_at_the_tutorials_settings(folder: Path) -> list[str]:
    """The command that trains on MNIST's own splits; its files are in `folder`."""
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    params["train"].update(TUTORIAL)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    for split in ("train", "t10k"):
        images, labels = mnist.read(split)
        classes = tuple(map(str, range(mnist.CLASSES)))
        LabelledImages(images, labels, classes).save(folder / f"{split}.safetensors")
    return [
        *(PYTHON, "-m", "stages.train", f"--params={folder / 'params.yaml'}"),
        *(f"--train={folder / 'train.safetensors'}", f"--validation={folder / 't10k.safetensors'}"),
        *(f"--model={folder / 'model.safetensors'}", f"--history={folder / 'history.csv'}"),
    ]
