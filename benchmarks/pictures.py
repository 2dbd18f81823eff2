"""How fast pictures are decoded, compared with what people write by hand, in separate processes.

`python -m benchmarks.pictures ROW FOLDER OUT` runs one of the peers.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import yaml

PYTHON = sys.executable
PHOTOGRAPHS = 20_000
DIGITS = 10_000
REPETITIONS = 3
SIZE = (64, 64)  # H, W


@dataclass(frozen=True)
class Pictures:
    """Median seconds of each command, from its start to its end.

    On MNIST: features. On 20,000 photographs: tensorize and its peers. On 10,000 digits: predict,
    and Pillow alone.
    """

    features: float

    tensorize: float
    loop: float
    data_loader: float
    predict: float
    load: float


def measure() -> Pictures:
    """All figures; the commands take turns, so that a busy minute affects each of them."""
    from benchmarks import generated

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        raw, digits = folder / "raw", folder / "digits"
        print("making pictures", file=sys.stderr)
        generated.photographs(raw, PHOTOGRAPHS)
        generated.digits(digits, DIGITS)
        splits = [folder / f"{name}.safetensors" for name in ("train", "validation", "test")]
        peer = folder / "peer.safetensors"
        this = [PYTHON, "-m", "benchmarks.pictures"]
        decoders = {
            "tensorize": (tensorize(raw, folder), splits),
            "loop": ([*this, "loop", f"{raw / 'train'}", f"{peer}"], [peer]),
            "data_loader": ([*this, "data_loader", f"{raw / 'train'}", f"{peer}"], [peer]),
        }
        mnist = [*("--params", "params.yaml"), *("--raw", "data/raw")]
        outs = [f"--{path.stem}={path}" for path in splits]
        skipped = f"--skipped={folder / 'skipped.csv'}"
        model = ["--model", "data/model.safetensors"]
        readers = {
            "features": [PYTHON, "-m", "stages.tensorize", *mnist, *outs, skipped],
            "predict": [PYTHON, "-m", "stages.predict", *model, f"{digits}"],
            "load": [*this, "load", f"{digits}", ""],
        }
        seconds: dict[str, list[float]] = {name: [] for name in (*decoders, *readers)}
        for repetition in range(REPETITIONS):
            print(f"pictures, {repetition + 1} of {REPETITIONS}", file=sys.stderr)
            for name, (command, written) in decoders.items():
                seconds[name].append(time(command))
                check(written)
            for name, command in readers.items():
                seconds[name].append(time(command))
    return Pictures(**{name: median(of) for name, of in seconds.items()})


def tensorize(raw: Path, folder: Path) -> list[str]:
    """The command that turns the pictures in `raw` into colour splits of SIZE, in `folder`."""
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    changes = {"channels": 3, "size": list(SIZE), "validation": 0.1, "allow_duplicates": True}
    pixels = {"features": "pixels", "deskew": False}  # all that the peers compute
    params["tensorize"].update(changes | pixels)
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(params))
    outs = [f"--{name}={folder / name}.safetensors" for name in ("train", "validation", "test")]
    return [
        *(PYTHON, "-m", "stages.tensorize", f"--params={path}", f"--raw={raw}"),
        *(*outs, f"--skipped={folder / 'skipped.csv'}"),
    ]


def time(command: Sequence[str]) -> float:
    """Seconds that a command takes; raises CalledProcessError if it fails."""
    started = perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - started


def check(paths: Sequence[Path]) -> None:
    """Raise RuntimeError unless the files hold PHOTOGRAPHS colour images of SIZE."""
    from safetensors import safe_open

    number = 0
    for path in paths:
        with safe_open(path, framework="np") as file:
            n, *shape = file.get_slice("images").get_shape()
        if shape != [3, *SIZE]:
            raise RuntimeError(f"{path}: expected 3 x {SIZE[0]} x {SIZE[1]} pixels, found {shape}")
        number += n
    if number != PHOTOGRAPHS:
        raise RuntimeError(f"{paths}: expected {PHOTOGRAPHS} images, found {number}")


def loop(folder: Path, out: str) -> None:
    """Pillow, one picture after another."""
    import numpy as np
    from PIL import Image
    from safetensors.numpy import save_file

    images = []
    for path in sorted(folder.rglob("*.jpg")):
        with Image.open(path) as image:
            images.append(np.asarray(image.convert("RGB").resize(SIZE[::-1])))
    save_file({"images": np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))}, out)


def data_loader(folder: Path, out: str) -> None:
    """A DataLoader over torchvision's ImageFolder, with one worker per CPU."""
    import torch
    from safetensors.torch import save_file
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

    transform = Compose([Resize(min(SIZE)), CenterCrop(SIZE), PILToTensor()])
    dataset = ImageFolder(str(folder), transform)
    batches: Any = DataLoader(dataset, batch_size=100, num_workers=cpu_count() or 1)
    save_file({"images": torch.cat([images for images, _ in batches])}, out)


def load(folder: Path, _: str) -> None:
    """Pillow's decoding alone."""
    from PIL import Image

    for path in folder.iterdir():
        with Image.open(path) as image:
            image.load()


PEERS: dict[str, Callable[[Path, str], None]] = {
    "loop": loop,
    "data_loader": data_loader,
    "load": load,
}


if __name__ == "__main__":
    PEERS[sys.argv[1]](Path(sys.argv[2]), sys.argv[3])
