"""A run -> one HTML page that shows it and lets anyone try the model, without a single request.

The page is page_assets/page.html with the style sheet, the scripts and the data inlined; the
scripts compute features and probabilities with the same steps as Python. Its bytes depend on the
content alone. Its content security policy allows its own scripts and style, by their hashes, and no
request. Names are not trusted: text in markup is escaped here, and all other data is JSON without
any "<", which the scripts put only into text nodes and attributes.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.report.intervals import wilson_interval
from stages.report.model_card import sections
from stages.report.page_data import PageData, percent, percent_range
from stages.report.svg import box_means

ASSETS = Path(__file__).parent / "page_assets"
SCRIPTS = (  # in their order in the page
    *("dom.js", "features.js", "model.js", "pictures.js", "drawing.js"),
    *("charts.js", "confusion.js", "try.js", "page.js"),
)
FILES = ("page.html", "page.css", *SCRIPTS)

PICTURE_BYTES = 2**20  # of the pictures that can be listed; a third larger in base64
PICK_BYTES = 2**19  # of the pictures to pick, if the others are reduced
WEIGHT_BYTES = 2**23  # a larger model cannot be tried
LISTED_SIDE = 48  # pixels; larger pictures are reduced
RIGHT, RIGHT_PER_CLASS = 240, 12  # pictures answered correctly, at most
PICKS = 20  # pictures to pick, right and wrong each
MATRIX_CLASSES = 100  # in the confusion matrix: the most confused
DRAWN_SIDE = 64  # pixels: the largest square that can be drawn
SAMPLE = 1000  # test images on which ink placement is measured


def render(data: PageData) -> str:
    """The page."""
    assets = {name: (ASSETS / name).read_text(encoding="utf-8") for name in FILES}
    scripts = [f"\n{assets[name]}" for name in SCRIPTS]
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none';"
        f" style-src {_hash(assets['page.css'])}; script-src {' '.join(map(_hash, scripts))}"
    )
    run = _run(data)
    texts = {key: _escaped(text) for key, text in _texts(data, run).items()}
    return Template(assets["page.html"]).substitute(
        texts,
        policy=escape(policy, quote=False),
        css=assets["page.css"],
        body=_body(data, run["ink"]),
        run=_json(run),
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _json(value: Any) -> str:
    """JSON in ASCII that cannot end an element or open a comment."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), sort_keys=True)
    return text.replace("<", "\\u003c")


def _escaped(text: str) -> str:
    return escape(text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}"))


def _base64(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _rounded(values: Any) -> list[Any]:
    """Floats rounded to six decimals, like all published values; None stays None."""
    return [None if value is None else round(float(value), 6) for value in values]


def _body(data: PageData, ink: Mapping[str, Any] | None) -> str:
    classes = ["words"] if max(map(len, data.classes)) > 2 else []  # else signs, such as digits
    if ink and ink["thin"]:
        classes.append(f"thin-{ink['tone']}")
    return f' class="{" ".join(classes)}"' if classes else ""


def _texts(data: PageData, run: Mapping[str, Any]) -> dict[str, str]:
    """The text for the placeholders in page.html, not yet escaped."""
    measured = data.metrics
    images = f"{measured['images']:,}"
    return {
        "title": data.title,
        "accuracy": _nowrap(percent(measured["accuracy"])),
        "accuracy_value": str(measured["accuracy"]),
        "interval": _nowrap(percent_range(data.accuracy_interval)),
        "small_test_set": data.small_test_set,
        "images": images,
        "errors": f"{measured['errors']:,}",
        "baseline": _nowrap(percent(measured["baseline_accuracy"])),
        "most_frequent": data.classes[int(data.confusion_counts.sum(1).argmax())],
        "balanced_accuracy": _nowrap(percent(measured["balanced_accuracy"])),
        "cross_entropy": f"{measured['cross_entropy']:.4f}",
        "calibration": _nowrap(percent(measured["expected_calibration_error"])),
        "summary": _summary(data),
        "invitation": _invitation(run["ink"]),
        "seen": _what_the_model_sees(data, run["ink"]),
        "exact": _what_is_exact(data),
        "left_out": _left_out(run),
        "looks": _what_it_looks_for(data),
    }


def _nowrap(text: str) -> str:
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _summary(data: PageData) -> str:
    counts = data.counts
    validation = counts.get("validation", 0)
    chosen = f", with {validation:,} more for choosing params" if validation else ""
    return (
        "A logistic regression: one linear layer, trained on"
        f" {counts.get('train', 0):,} images{chosen}. What it sees of a picture is {data.seen}."
    )


def _invitation(ink: Mapping[str, Any] | None) -> str:
    """What a visitor can put in."""
    where = "The features and the probabilities are computed in your browser, as in the pipeline."
    if ink:
        return f"Draw with a mouse, a finger or a pen, or pick a test image. {where}"
    return f"Pick a test image, or choose a file. {where}"


def _what_the_model_sees(data: PageData, ink: Mapping[str, Any] | None) -> str:
    _, height, width = data.image_shape
    how = ["centred"] if ink else []
    if data.deskew:
        how.append("set upright")
    size = _nowrap(f"{height} \N{MULTIPLICATION SIGN} {width}")
    return f"The model sees {size} pixels" + "".join(f", {word}" for word in how)


def _what_is_exact(data: PageData) -> str:
    text = (
        "A linear model can say exactly why: the contributions of its features and its bias add up"
        " to the score."
    )
    if data.features == "gradients":
        text += " The contribution of a pair of gradients is split equally between its two cells."
    return text


def _left_out(run: Mapping[str, Any]) -> str:
    """What the page has no room for."""
    text = ""
    if not run["confusion"]["complete"]:
        text += f" Only the {MATRIX_CLASSES} most confused classes are shown."
    if (included := run["pictures"]["errors"]) < run["errors"]:
        room = f"{PICTURE_BYTES // 2**20} MiB"
        text += (
            f" The page has room for {room} of images: the worst {included:,} of"
            f" {run['errors']:,} mistakes."
        )
    if "weights" not in run:
        text += " The model is too large to be tried on this page."
    return text


def _what_it_looks_for(data: PageData) -> str:
    if data.features == "pixels":
        return "Each pixel's weight for a class, minus the mean of its weights for all classes."
    return (
        "The edges that speak for and against each class, cell by cell: the weight of an edge,"
        " minus the mean over the classes, times the usual strength of such edges. Pairs of"
        " edges, which also count, are not drawn."
    )


def _run(data: PageData) -> dict[str, Any]:
    """All the data that the scripts get."""
    included = _included(data)
    box = _box(data.image_shape)
    pictures = reduced(data.images[included.tests], box)
    counts = data.confusion_counts
    classes = list(data.classes)
    run: dict[str, Any] = {
        "bins": data.params.get("evaluate", {}).get("calibration_bins", len(data.reliability)),
        "card": [asdict(section) for section in sections(data)],
        "classes": classes,
        "confusion": _confusion(counts),
        "errors": int((data.actual != data.predicted).sum()),
        "history": [[row[0], *_rounded(row[1:])] for row in data.history],
        "ink": ink_of(data.images) if _can_be_drawn(data.image_shape) else None,
        "model": {
            "deskew": data.deskew,
            "features": data.features,
            "fit": data.fit,
            "shape": data.image_shape,
        },
        "params": data.rows_of_params,
        "perClass": _per_class(counts),
        "picks": {"right": included.right, "wrong": included.wrong},
        "pictures": {
            "bytes": _base64(pictures),
            "errors": included.errors,
            "shape": pictures.shape[1:],
            "fullSize": box == 1,
        },
        "reliability": [
            [*_rounded((confidence, accuracy)), n, *wilson_interval(round(accuracy * n), n)]
            for confidence, accuracy, n in data.reliability
        ],
        "tests": [
            [
                data.pictures[i],
                int(data.actual[i]),
                int(data.predicted[i]),
                round(float(data.confidence[i]), 6),
                round(float(data.actual_probability[i]), 6),
            ]
            for i in included.tests.tolist()
        ],
    }
    if box > 1:
        to_pick = included.tests[included.right + included.wrong]
        run["picks"]["bytes"] = _base64(data.images[to_pick])
    if data.weight.size * 4 <= WEIGHT_BYTES:
        run["biases"] = _base64(data.bias.astype("<f4"))
        run["weights"] = _base64(data.weight.astype("<f4"))
    return run


@dataclass(frozen=True)
class _Included:
    """The test images that the page includes, the lowest probability of the actual class first.

    tests: their indices.  errors: how many of them are mistakes.  right, wrong: those that can be
    picked, as indices into `tests`.
    """

    tests: NDArray[np.int64]
    errors: int
    right: list[int]
    wrong: list[int]


def _included(data: PageData) -> _Included:
    """As many as there is room for: some correct ones of each class, and the worst mistakes."""
    loss = losses(data)
    channels, height, width = data.image_shape
    box = _box(data.image_shape)
    room = max(2, PICTURE_BYTES // (channels * -(-height // box) * -(-width // box)))
    size = channels * height * width
    picks = PICKS if box == 1 else min(PICKS, max(1, PICK_BYTES // (2 * size)))

    right, first_of_each = _right(data, loss, room // 4)
    wrong = np.flatnonzero(data.actual != data.predicted)
    wrong = wrong[np.argsort(-loss[wrong], kind="stable")][: room - len(right)]
    tests = np.array(sorted({*right, *wrong.tolist()}), np.int64)
    tests = tests[np.argsort(-loss[tests], kind="stable")]
    position = {test: i for i, test in enumerate(tests.tolist())}
    return _Included(
        tests,
        len(wrong),
        [position[test] for test in first_of_each[:picks]],
        [position[test] for test in wrong[:picks].tolist()],
    )


def losses(data: PageData) -> NDArray[np.float64]:
    """The loss of each test image, (N,), in nats with six decimals, as published."""
    loss: NDArray[np.float64] = -np.log(np.maximum(data.actual_probability, 1e-300))
    return loss.round(6)


def _box(shape: tuple[int, int, int]) -> int:
    """The side of the box of pixels that becomes one pixel in a list of pictures."""
    return -(-max(shape[1:]) // LISTED_SIDE)


def _right(data: PageData, loss: NDArray[np.float64], room: int) -> tuple[list[int], list[int]]:
    """Images answered correctly: the first two of each class, then those it was least sure of.

    Returns all of them, and the first of each class.
    """
    per_class = min(RIGHT_PER_CLASS, max(1, RIGHT // len(data.classes)))
    rounds: list[list[int]] = [[] for _ in range(per_class)]
    correct = np.flatnonzero(data.actual == data.predicted)
    by_class = np.argsort(data.actual[correct], kind="stable")
    ends = np.searchsorted(data.actual[correct][by_class], np.arange(len(data.classes) + 1))
    for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        of_class = correct[by_class[start:end]]
        unsure = of_class[np.argsort(-loss[of_class], kind="stable")][:per_class]
        chosen = list(dict.fromkeys([*of_class[:2].tolist(), *unsure.tolist()]))
        for nth_of_each, test in zip(rounds, chosen, strict=False):
            nth_of_each.append(test)
    right = [test for nth_of_each in rounds for test in nth_of_each][: max(1, room)]
    return right, [test for test in rounds[0] if test in set(right)]


def _confusion(counts: NDArray[np.int64]) -> dict[str, Any]:
    """The matrix; if there are too many classes, that of the most confused ones."""
    wrong = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
    shown = np.sort(np.argsort(-wrong, kind="stable")[:MATRIX_CLASSES])
    return {
        "complete": len(shown) == len(counts),
        "counts": counts[np.ix_(shown, shown)].tolist(),
        "of": counts.sum(1).tolist(),
        "shown": shown.tolist(),
    }


def _per_class(counts: NDArray[np.int64]) -> list[list[Any]]:
    """For each class: images, precision, recall with its 95 % interval, F1; None for 0 / 0."""
    hits, actual, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)

    def share(part: int, of: int) -> float | None:
        return round(part / of, 6) if of else None

    return [
        [
            n,
            share(hit, answers),
            share(hit, n),
            wilson_interval(hit, n) if n else None,
            share(2 * hit, n + answers),
        ]
        for hit, n, answers in zip(hits.tolist(), actual.tolist(), predicted.tolist(), strict=True)
    ]


def reduced(images: NDArray[np.uint8], box: int) -> NDArray[np.uint8]:
    """Images whose pixels are the means of boxes of `box` x `box` pixels, fewer at the edges."""
    return np.rint(box_means(images, box)).astype(np.uint8)


def _can_be_drawn(shape: tuple[int, int, int]) -> bool:
    channels, height, width = shape
    return channels == 1 and height == width <= DRAWN_SIDE


def ink_of(images: NDArray[np.uint8]) -> dict[str, Any]:
    """How a data set of grey squares places its ink, measured on the first SAMPLE images.

    tone: light or dark, whichever the margin is not.  side: the longer side of the box around the
    ink.  centredBy: mass or box, whichever of the two centres varies less.  centre: the median of
    that centre, (y, x).  penWidth: the width of a stroke, twice its area divided by the length of
    its outline.  thin: whether strokes are as thin as a pen's. Lengths are in pixels. All are
    medians of ratios of integers, the same on every machine.
    """
    pixels = images[:SAMPLE, 0].astype(np.int64)  # (n, H, W)
    size = pixels.shape[1]
    edge = np.concatenate([pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], axis=1)
    light = bool(np.median(edge) < 128)
    ink = pixels if light else 255 - pixels
    ink = ink[ink.max((1, 2)) > 32]  # leave out blank images
    if not len(ink):
        ink = np.full((1, size, size), 255)
    at = np.arange(size)
    mass = ink.sum((1, 2))[:, None]
    by_mass = np.stack([ink.sum(2) @ at, ink.sum(1) @ at], axis=1) / mass  # (n, 2)
    occupied = np.stack([(ink > 32).any(2), (ink > 32).any(1)], axis=1)  # (n, 2, size)
    first, last = occupied.argmax(2), size - 1 - occupied[..., ::-1].argmax(2)  # (n, 2)
    by_box = (first + last) / 2
    mass_varies_less = by_mass.var(0).sum() <= by_box.var(0).sum()
    centres = by_mass if mass_varies_less else by_box
    outline = np.abs(np.diff(ink, axis=1, prepend=0, append=0)).sum((1, 2))
    outline += np.abs(np.diff(ink, axis=2, prepend=0, append=0)).sum((1, 2))
    # Averaged over all directions, |dx| + |dy| is 4 / pi times the length of a step.
    pen = float(np.median(mass[:, 0] / outline)) * 2 * 1.2732
    return {
        "centre": np.round(np.median(centres, axis=0), 1).tolist(),
        "centredBy": "mass" if mass_varies_less else "box",
        "penWidth": round(min(max(pen, 1.0), size / 6), 1),
        "side": int(np.median((last - first + 1).max(1))),
        "thin": pen <= size / 8,
        "tone": "light" if light else "dark",
    }
