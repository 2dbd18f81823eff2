"""A model and pictures -> labels with probabilities.

In: pictures, and the file that `train` wrote, which alone says how a picture is prepared.
Out: a line a picture. It computes what `model.LogisticRegression` does, on NumPy: an answer takes
less time than `import torch`.
"""

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from typer import Argument, Option

from stages.base.command import run
from stages.images.decoding import Decoded, Pictures, Unreadable, decode
from stages.images.folders import pictures_in
from stages.images.preprocessing import Preprocessing, open_picture
from stages.images.stored_images import Fit

Answer = list[tuple[str, float]]  # labels with their probabilities, the likeliest first


@dataclass(frozen=True)
class Model:
    """weight (K, D) and bias (K,), float64; K class names; what a picture becomes before it is D
    pixels."""

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    classes: tuple[str, ...]
    preprocessing: Preprocessing

    @classmethod
    def load(cls, path: Path) -> "Model":
        """Read what `train` wrote.

        Raises FileNotFoundError, or a ValueError if the file is not such a model.
        """
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; `dvc repro` makes the model")
        try:
            with safe_open(path, framework="numpy") as file:
                about = json.loads(file.metadata()["model"])
                weight, bias = (
                    file.get_tensor(name).astype(np.float64) for name in ("weight", "bias")
                )
            (channels, height, width), fit = about["image_shape"], about["fit"]
            classes = tuple(about["classes"])
            shapes = (len(classes), channels * height * width), (len(classes),)
            if channels not in (1, 3) or fit not in get_args(Fit):
                raise ValueError(f"channels {channels}, fit {fit}")
            if (weight.shape, bias.shape) != shapes or not 2 <= len(set(classes)) == len(classes):
                raise ValueError(f"{weight.shape} weights, {bias.shape} biases, {classes}")
            if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
                raise ValueError("weights that are not finite")
            preprocessing = Preprocessing(channels, (height, width), fit)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a model of this pipeline ({error})") from None
        return cls(weight, bias, classes, preprocessing)

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Pixels (N, D) -> softmax(W x + b), (N, K); each row adds up to 1."""
        logits = (pixels * (1 / 255)) @ self.weight.T + self.bias
        exp: NDArray[np.float64] = np.exp(logits - logits.max(1, keepdims=True))
        exp /= exp.sum(1, keepdims=True)
        return exp


def answers(model: Model, pictures: Sequence[str], top: int) -> Iterator[Answer | Unreadable]:
    """For each picture, by its path and in order, its `top` likeliest labels."""
    for outcomes in decode(Pictures(pictures, _open, str), model.preprocessing):
        pixels = b"".join(outcome.pixels for outcome in outcomes if isinstance(outcome, Decoded))
        p = model.probabilities(np.frombuffer(pixels, np.uint8).reshape(-1, model.weight.shape[1]))
        likeliest = np.argsort(-p, axis=1, kind="stable")[:, :top]  # (n, top)
        rows = zip(likeliest.tolist(), np.take_along_axis(p, likeliest, 1).tolist(), strict=True)
        for outcome in outcomes:
            if isinstance(outcome, Unreadable):
                yield outcome
            else:
                labels, probabilities = next(rows)
                names = (model.classes[label] for label in labels)
                yield list(zip(names, probabilities, strict=True))


def _open(path: str) -> tuple[Image.Image, int]:
    return open_picture(path), 0


def as_text(picture: str, answer: Answer) -> str:
    """A line: picture, colon, labels with their probabilities."""
    return f"{in_a_line(picture)}: " + ", ".join(f"{label} {p:.2%}" for label, p in answer)


def in_a_line(path: str) -> str:
    """A path as it is, but for what cannot be printed."""
    return path if path.isprintable() else ascii(path)


def as_json(picture: str, answer: Answer) -> str:
    """An object a line."""
    labels = [{"label": label, "probability": round(p, 6)} for label, p in answer]
    return json.dumps({"picture": picture, "labels": labels}, ensure_ascii=False)


def as_csv(picture: str, answer: Answer) -> str:
    """A row for each label."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        (picture, rank, label, f"{p:.6f}") for rank, (label, p) in enumerate(answer, start=1)
    )
    return text.getvalue().removesuffix("\n")


CSV_HEADER = "picture,rank,label,probability"


def find_pictures(arguments: Iterable[str]) -> list[str]:
    """Files as they are, the pictures in folders, and for "-" the paths on standard input."""
    found: list[str] = []
    for argument in arguments:
        if argument == "-":
            lines = sys.stdin.read().split("\n") if sys.stdin else []
            found += find_pictures(filter(None, (line.rstrip("\r") for line in lines)))
            continue
        try:
            folder = Path(argument)
            within = pictures_in(folder)[0] if folder.is_dir() else None
        except (OSError, ValueError):
            within = None  # the reason is told where it is opened
        found += [argument] if within is None else [f"{folder}/{path}" for path in within]
    return found


def model_of_the_pipeline() -> Path:
    """The model that the pipeline in this folder makes, as the artifacts of its dvc.yaml say.

    Raises FileNotFoundError or ValueError if there is none.
    """
    import yaml

    pipeline = Path("dvc.yaml")
    if not pipeline.is_file():
        raise FileNotFoundError("no dvc.yaml in this folder; name the model with --model")
    artifacts = (yaml.safe_load(pipeline.read_text(encoding="utf-8")) or {}).get("artifacts", {})
    models = [artifact["path"] for artifact in artifacts.values() if artifact["type"] == "model"]
    if len(models) != 1:
        raise ValueError(f"{pipeline}: {len(models)} models; name one with --model")
    return Path(models[0])


def main(
    pictures: Annotated[
        list[str], Argument(help="files, folders of pictures, or - for a list on standard input")
    ],
    model: Annotated[
        Path | None, Option(help="what `train` wrote; else the model of this folder's dvc.yaml")
    ] = None,
    top: Annotated[int, Option(min=1, help="how many labels a picture, the likeliest first")] = 1,
    json_lines: Annotated[bool, Option("--json", help="an object a line")] = False,
    as_table: Annotated[bool, Option("--csv", help="a table with a row for each label")] = False,
) -> None:
    """Say what is in pictures: a line each, the likeliest label with its probability.

    A picture becomes what the model was trained on by the same steps. One that cannot be read gets
    a line on standard error; then the exit code is 1, and the others are answered all the same.
    """
    if json_lines and as_table:
        raise ValueError("--json and --csv: expected one of them at most")
    loaded = Model.load(model or model_of_the_pipeline())
    found = find_pictures(pictures)
    if not found:
        raise ValueError("no pictures there; expected files, folders of pictures, or - for a list")
    line = as_json if json_lines else as_csv if as_table else as_text
    unreadable = 0
    if as_table:
        print(CSV_HEADER)
    for picture, answer in zip(found, answers(loaded, found, top), strict=True):
        if isinstance(answer, Unreadable):
            unreadable += 1
            print(f"{in_a_line(picture)}: cannot be read: {answer.reason}", file=sys.stderr)
        else:
            print(line(picture, answer))
    if unreadable:
        raise typer.Exit(1)


if __name__ == "__main__":
    run(main)
