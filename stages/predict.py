"""A model and pictures -> labels with probabilities.

In: pictures, and the file that `train` wrote, which alone says how a picture is prepared.
Out: a line per picture. NumPy is enough for it: an answer takes less time than `import torch`.
Where the package is installed, this is the command `logreg-predict`, in any folder.
"""

import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image
from threadpoolctl import threadpool_limits
from typer import Argument, Option

from stages.base.command import printable, run
from stages.formats.model_file import Model
from stages.images.decoding import Decoded, Pictures, Unreadable, decode
from stages.images.folders import pictures_in
from stages.images.inputs import compute_features, feature_count
from stages.images.preprocessing import Preprocessing, open_picture

Answer = list[tuple[str, float]]  # labels with their probabilities, the likeliest first


def answers(model: Model, pictures: Sequence[str], top: int) -> Iterator[Answer | Unreadable]:
    """For each picture, by its path and in order, its `top` likeliest labels."""
    spec = model.spec
    preprocessing = Preprocessing(spec.channels, (spec.height, spec.width), spec.fit)
    for outcomes in decode(Pictures(pictures, _open, str), preprocessing):
        pixels = b"".join(outcome.pixels for outcome in outcomes if isinstance(outcome, Decoded))
        images = np.frombuffer(pixels, np.uint8).reshape(-1, *spec.image_shape)
        p = np.exp(model.log_probabilities(compute_features(images, spec)))
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
    return f"{printable(picture)}: " + ", ".join(
        f"{printable(label)} {p:.2%}" for label, p in answer
    )


def as_json(picture: str, answer: Answer) -> str:
    """An object a line."""
    labels = [{"label": label, "probability": round(p, 6)} for label, p in answer]
    return json.dumps({"picture": picture, "labels": labels}, ensure_ascii=False)


def as_csv(picture: str, answer: Answer) -> str:
    """A row for each label."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        (printable(picture), rank, printable(label), f"{p:.6f}")
        for rank, (label, p) in enumerate(answer, start=1)
    )
    return text.getvalue().removesuffix("\n")


CSV_HEADER = "picture,rank,label,probability"


def find_pictures(arguments: Iterable[str]) -> list[str]:
    """Files as they are, the pictures in folders, and for "-" the paths on standard input."""
    found: list[str] = []
    for argument in arguments:
        if argument == "-":
            lines = map(os.fsdecode, sys.stdin.buffer.read().split(b"\n"))
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
        raise FileNotFoundError(
            "--model: found none, and no dvc.yaml in this folder that names one; expected the file"
            " that `train` wrote, such as --model model.safetensors"
        )
    artifacts = (yaml.safe_load(pipeline.read_text(encoding="utf-8")) or {}).get("artifacts", {})
    models = [artifact["path"] for artifact in artifacts.values() if artifact["type"] == "model"]
    if len(models) != 1:
        raise ValueError(f"{pipeline}: {len(models)} models; name one with --model")
    return Path(models[0])


def load_model(path: Path) -> Model:
    """Read a model and check that its features are those computed here.

    Raises FileNotFoundError or ValueError, with what is wrong.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; expected a model: `dvc repro` makes it, `dvc pull` fetches it,"
            " and --model names one that is somewhere else"
        )
    model = Model.load(path)
    if model.weight.shape[1] != feature_count(model.spec):
        raise ValueError(
            f"{path}: found weights for {model.weight.shape[1]} {model.spec.features}; expected"
            f" {feature_count(model.spec)}: another release of this pipeline made it"
        )
    return model


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
    loaded = load_model(model or model_of_the_pipeline())
    found = find_pictures(pictures)
    if not found:
        raise ValueError("no pictures there; expected files, folders of pictures, or - for a list")
    line = as_json if json_lines else as_csv if as_table else as_text
    unreadable = 0
    if as_table:
        print(CSV_HEADER)
    with threadpool_limits(1, "blas"):  # small products, for which more threads cost time
        for picture, answer in zip(found, answers(loaded, found, top), strict=True):
            if isinstance(answer, Unreadable):
                unreadable += 1
                print(f"{printable(picture)}: cannot be read: {answer.reason}", file=sys.stderr)
            else:
                print(line(picture, answer))
    if unreadable:
        raise typer.Exit(1)


def command() -> None:
    """Run `main` as the installed command."""
    run(main)


if __name__ == "__main__":
    command()
