"""A run -> its model card, for the page and, as Markdown, for a model hub.

The Markdown begins with the metadata that hubs read (huggingface.co/docs/hub/model-cards).
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.report.page_data import PageData, percent, percent_range

NAMED_CLASSES = 20  # how many are listed by name
MARKDOWN = re.compile(r"([\\`*_\[\]<>|~$@&#]|:(?=//))")  # what starts markup or a link
NOT_IN_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]+")


@dataclass(frozen=True)
class Section:
    """A part of the card: paragraphs, then rows of a name and a value."""

    title: str
    text: Sequence[str] = ()
    rows: Sequence[tuple[str, str]] = ()


def sections(data: PageData) -> list[Section]:
    """The sections of the card."""
    k = len(data.classes)
    return [
        Section(
            "What it is",
            [
                f"A multinomial logistic regression that picks one of {k:,} classes: a single"
                f" linear layer, softmax(W x / 255 + b). What it sees of a picture is {data.seen}.",
                f"Classes: {_class_names(data)}.",
            ],
        ),
        Section(
            "Data",
            [],
            [
                ("Data set", data.title),
                ("Licence", data.licence or "not known: ask whoever made the data set"),
                ("Source", data.source or "not known"),
                *((f"Images, {split}", f"{n:,}") for split, n in _splits(data)),
            ],
        ),
        Section(
            "Results",
            [
                "On the test images, which were not used for training."
                f" {data.small_test_set}".rstrip(),
            ],
            _results(data),
        ),
        Section(
            "Limits",
            [
                "It answers with one of its classes whatever a picture shows, even if it shows none"
                " of them, and its confidence is meaningful only for pictures like those it was"
                f" trained on. {_weakest(data)}",
                "Test images from the same source as the training images say nothing about pictures"
                " from elsewhere: other cameras, pens, backgrounds or people.",
            ],
        ),
        Section(
            "What it is not for",
            [
                "Decisions about people, or any decision where errors do harm and nobody checks. It"
                " is a baseline to compare with, and a small model that can be fully understood.",
            ],
        ),
        *(Section(f"Params: {section}", [], rows) for section, rows in data.rows_of_params),
        Section(
            "How to use it",
            [
                "In the repository: python -m stages.predict PICTURE, which prepares a picture"
                " as the model's own file specifies.",
            ],
        ),
        Section(
            "How to cite it",
            [
                "Name the repository and the commit: its dvc.lock holds the hashes of the data, the"
                " code, the params and the model. Cite the data set as its makers ask.",
            ],
        ),
    ]


def model_card(data: PageData) -> str:
    """The card as Markdown; its bytes depend on the content alone."""
    name = f"Logistic regression on {_clean(data.title)}"
    metadata = {
        "metrics": ["accuracy"],
        "model-index": [
            {
                "name": name,
                "results": [
                    {
                        "dataset": {"name": _clean(data.title), "split": "test", "type": "image"},
                        "metrics": [{"type": "accuracy", "value": data.metrics["accuracy"]}],
                        "task": {"type": "image-classification"},
                    }
                ],
            }
        ],
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "logistic-regression"],
    }
    lines = ["---"]
    for key, value in metadata.items():  # JSON is YAML
        lines.append(f"{key}: {json.dumps(value, ensure_ascii=False, sort_keys=True)}")
    lines += ["---", "", f"# {escaped(name)}", ""]
    for section in sections(data):
        lines += [f"## {escaped(section.title)}", ""]
        for paragraph in section.text:
            lines += [escaped(paragraph), ""]
        if section.rows:
            lines += ["| | |", "|---|---|"]
            lines += [f"| {escaped(name)} | {escaped(value)} |" for name, value in section.rows]
            lines.append("")
    return "\n".join(lines[:-1]) + "\n"


def escaped(text: str) -> str:
    """Text escaped for a line of Markdown, so that it is shown as it is."""
    return MARKDOWN.sub(r"\\\1", _clean(text))


def _clean(text: str) -> str:
    return NOT_IN_TEXT.sub(" ", text)


def _class_names(data: PageData) -> str:
    listed = ", ".join(data.classes[:NAMED_CLASSES])
    others = len(data.classes) - NAMED_CLASSES
    return f"{listed} and {others:,} more" if others > 0 else listed


def _splits(data: PageData) -> list[tuple[str, int]]:
    known = [name for name in ("train", "validation", "test") if name in data.counts]
    return [(name, int(data.counts[name])) for name in known]


def _results(data: PageData) -> list[tuple[str, str]]:
    measured = data.metrics
    return [
        ("Accuracy", percent(measured["accuracy"])),
        ("Accuracy, 95 % interval", percent_range(data.accuracy_interval)),
        ("Errors", f"{measured['errors']:,} of {measured['images']:,}"),
        ("Always the most frequent class", percent(measured["baseline_accuracy"])),
        ("Balanced accuracy", percent(measured["balanced_accuracy"])),
        ("Macro F1", percent(measured["macro_f1"])),
        ("Cross entropy", f"{measured['cross_entropy']:.4f} nats"),
        ("Calibration error", percent(measured["expected_calibration_error"])),
    ]


def _weakest(data: PageData) -> str:
    counts = data.confusion_counts
    of = counts.sum(1)
    recall = np.where(of > 0, counts.diagonal() / np.maximum(of, 1), 2.0)
    weakest = int(recall.argmin())
    wrong = counts * (1 - np.eye(len(counts), dtype=np.int64))
    if not wrong.any():
        return "It made no mistake on the test images."
    actual, predicted = divmod(int(wrong.argmax()), len(counts))
    times = int(wrong.max())
    return (
        f"The class it finds least often is {data.classes[weakest]}:"
        f" {percent(float(recall[weakest]))} of its {int(of[weakest]):,} test images."
        f" Its most frequent confusion takes {data.classes[actual]} for"
        f" {data.classes[predicted]}, {times:,} {'time' if times == 1 else 'times'}."
    )
