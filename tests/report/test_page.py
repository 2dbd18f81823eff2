import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from stages.report.intervals import wilson_interval
from stages.report.page import (
    ASSETS,
    FILES,
    PICTURE_BYTES,
    ink_of,
    losses,
    reduced,
    render,
)
from stages.report.page_data import PageData, percent
from stages.report.svg import BLUE, ORANGE
from tests.report.runs import HOSTILE, Array, a_run, blocks, handwriting


class Page(HTMLParser):
    """The elements of a page, (tag, attributes), the text of scripts and styles, and text by id."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.text: dict[str, str] = {}
        self._open = ("", "")  # tag and id of the element that started last, until it ends
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag in self.raw:
            self.raw[tag].append("")
        self._open = (tag, attributes.get("id") or "")

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002  # named by the base class
        self._open = ("", "")

    def handle_data(self, data: str) -> None:
        tag, name = self._open
        if tag in self.raw:
            self.raw[tag][-1] += data
        elif name:
            self.text[name] = self.text.get(name, "") + data

    @property
    def run(self) -> Any:
        return json.loads(self.raw["script"][0])


def a_small_run(**changes: Any) -> PageData:
    images, labels = handwriting(60)
    return replace(a_run(images, labels, mislabelled=0.2, deskewed=True), **changes)


def reversed_mapping(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: reversed_mapping(value[key]) for key in reversed(value)}


def test_the_pages_bytes_depend_on_the_content_alone() -> None:
    run = a_small_run()
    shuffled = replace(
        run,
        params=reversed_mapping(run.params),
        metrics=reversed_mapping(run.metrics),
        counts=reversed_mapping(run.counts),
        images=np.asfortranarray(run.images),
        weight=np.asfortranarray(run.weight),
    )
    assert render(run) == render(run) == render(shuffled)


def test_digits_beyond_the_sixth_decimal_change_no_byte_of_the_page() -> None:
    run = a_small_run()
    assert render(run) == render(
        replace(
            run,
            confidence=run.confidence.round(6) + 2e-7,
            actual_probability=run.actual_probability * (1 + 1e-12),
            reliability=[(c + 1e-12, a, n) for c, a, n in run.reliability],
            history=[(i, loss + 1e-12, a, b) for i, loss, a, b in run.history],
        )
    )


def test_every_file_in_page_assets_is_used() -> None:
    assert sorted(path.name for path in ASSETS.iterdir()) == sorted(FILES)


def test_the_content_policy_allows_only_the_pages_own_scripts_and_style() -> None:
    page = Page(render(a_small_run()))
    policy = next(
        attributes["content"]
        for tag, attributes in page.elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))

    def hashes(texts: list[str]) -> str:
        digests = [hashlib.sha256(text.encode()).digest() for text in texts]
        return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)

    assert directives == {
        "default-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "img-src": "data:",
        "style-src": hashes(page.raw["style"]),
        "script-src": hashes(page.raw["script"][1:]),
    }


def test_the_page_loads_nothing_and_its_markup_executes_nothing() -> None:
    page = Page(render(a_small_run()))
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in ("src", "srcset", "style", "action"), (tag, name)
            if name == "href":
                assert (value or "").startswith(("#", "data:,")), value
    code = "".join(page.raw["script"][1:] + page.raw["style"])
    for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "fetch("):
        assert word not in code
    assert re.findall(r"https?://[^\s\"]+", code) == ["http://www.w3.org/2000/svg"]


def test_hostile_names_in_the_page_stay_text() -> None:
    images, labels = blocks(60, len(HOSTILE), (3, 16, 16))
    html = render(a_run(images, labels, names=HOSTILE, title=f"{HOSTILE[0]}{HOSTILE[4]}\0\ud800"))
    plain = Page(render(a_run(images, labels, names=[f"name {i}" for i in range(5)])))
    page = Page(html)
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    assert page.run["classes"] == list(HOSTILE)
    assert html.count("</script") == len(page.raw["script"])
    assert "<" not in page.raw["script"][0]
    html.encode()


def test_the_accuracy_is_in_the_pages_markup() -> None:
    run = a_small_run()
    page = Page(render(run))
    accuracy = run.metrics["accuracy"]
    assert page.text["accuracy"] == f"{accuracy:.2%}".replace("%", "\N{NO-BREAK SPACE}%")
    values = [attributes.get("value") for _, attributes in page.elements]
    assert str(accuracy) in values


@pytest.mark.parametrize(("n", "small"), [(20, True), (10_000, False)])
def test_the_page_gives_the_accuracys_interval_and_says_if_the_test_set_is_small(
    n: int, small: bool
) -> None:
    errors = n // 20
    metrics = {**a_small_run().metrics, "images": n, "errors": errors, "accuracy": 0.95}
    html = render(a_small_run(metrics=metrics))
    low, high = map(percent, wilson_interval(n - errors, n))
    assert f"{low} to {high}".replace(" ", "\N{NO-BREAK SPACE}") in html
    assert (f"A test set of {n:,} cannot tell the accuracy more exactly." in html) == small


def test_the_figures_and_the_page_have_the_same_colours() -> None:
    css = (ASSETS / "page.css").read_text(encoding="utf-8")
    for name, colour in {"for": BLUE, "against": ORANGE}.items():
        assert f"--{name}: #{bytes(colour).hex()};" in css


def included_in(run: PageData) -> list[tuple[int, int, int]]:
    """The images in the page: actual and predicted class, index."""
    return [
        (actual, predicted, int(name.rpartition("/")[2]))
        for name, actual, predicted, _, _ in Page(render(run)).run["tests"]
    ]


def test_the_page_holds_all_mistakes_worst_first_and_some_correct_images_of_each_class() -> None:
    images, labels = handwriting(400)
    run = a_run(images, labels, mislabelled=0.2)
    included = included_in(run)
    wrong = np.flatnonzero(run.actual != run.predicted)
    worst = wrong[np.argsort(-losses(run)[wrong], kind="stable")]
    assert len(wrong) > 20
    assert [index for actual, predicted, index in included if actual != predicted] == worst.tolist()
    right = [actual for actual, predicted, _ in included if actual == predicted]
    assert set(right) == set(run.actual[run.actual == run.predicted].tolist())


def test_the_pictures_in_the_page_are_those_of_the_split() -> None:
    run = a_small_run()
    page = Page(render(run)).run
    pixels = np.frombuffer(base64.b64decode(page["pictures"]["bytes"]), np.uint8)
    included = [index for _, _, index in included_in(run)]
    assert page["pictures"]["fullSize"]
    assert np.array_equal(pixels.reshape(-1, 1, 28, 28), run.images[included])


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 224, 224)])
def test_a_page_with_many_mistakes_is_bounded_in_size_and_says_so(
    shape: tuple[int, int, int],
) -> None:
    n = 10_000
    images, labels = blocks(50, 10, shape)
    run = a_run(images, labels)
    rows = np.arange(n) % 50
    everything_wrong = replace(
        run,
        images=np.broadcast_to(images[:1], (n, *shape)),
        pictures=[f"test/{i}" for i in range(n)],
        actual=run.actual[rows],
        predicted=(run.actual[rows] + 1) % 10,
        confidence=run.confidence[rows],
        actual_probability=run.actual_probability[rows],
        metrics={**run.metrics, "errors": n, "images": n, "accuracy": 0.0},
    )
    html = render(everything_wrong)
    page = Page(html).run
    assert len(html.encode()) < 2.5e6
    assert 0 < page["pictures"]["errors"] < n
    size = int(np.prod(page["pictures"]["shape"]))
    assert len(page["tests"]) * size <= PICTURE_BYTES
    assert f"the worst {page['pictures']['errors']:,} of {n:,} mistakes" in html


def test_a_model_too_large_to_be_tried_is_left_out_and_the_page_says_so() -> None:
    images, labels = blocks(20, 4, (3, 480, 480))
    html = render(a_run(images, labels, features="pixels"))
    assert "weights" not in Page(html).run
    assert "too large to be tried on this page" in html
    assert len(html.encode()) < 2.5e6


def test_the_page_has_precision_recall_and_f1_of_each_class() -> None:
    run = a_small_run(
        actual=np.array([0, 0, 0, 1, 1, 2]),
        predicted=np.array([0, 0, 1, 1, 1, 1]),
        classes=("a", "b", "c", "d"),
        images=np.zeros((6, 1, 28, 28), np.uint8),
        confidence=np.full(6, 0.5),
        actual_probability=np.full(6, 0.5),
    )
    assert Page(render(run)).run["perClass"] == [
        [3, 1.0, round(2 / 3, 6), [*wilson_interval(2, 3)], 0.8],
        [2, 0.5, 1.0, [*wilson_interval(2, 2)], round(2 / 3, 6)],
        [1, None, 0.0, [*wilson_interval(0, 1)], 0.0],
        [0, None, None, None, None],
    ]


def test_with_many_classes_the_matrix_shows_the_most_confused() -> None:
    k = 120
    images = np.zeros((2 * k, 1, 8, 8), np.uint8)
    images[:, 0, 0, 0] = np.arange(2 * k)
    actual = np.repeat(np.arange(k), 2)
    run = a_run(images, actual, features="pixels")
    predicted = actual.copy()
    predicted[-40:] = np.roll(actual[-40:], 2)
    html = render(replace(run, predicted=predicted))
    confusion = Page(html).run["confusion"]
    assert len(confusion["shown"]) == 100
    assert set(range(k - 20, k)) <= set(confusion["shown"])
    assert "Only the 100 most confused classes" in html


def test_without_a_validation_split_there_is_no_validation_curve() -> None:
    run = a_small_run(history=[(100, 0.5, None, None)])
    assert Page(render(run)).run["history"] == [[100, 0.5, None, None]]


@pytest.mark.parametrize("inverted", [False, True])
def test_how_a_data_set_places_its_ink_is_measured(inverted: bool) -> None:
    images, _ = handwriting(300)
    ink = ink_of(255 - images if inverted else images)
    assert ink["tone"] == ("dark" if inverted else "light")
    assert ink["centredBy"] == "mass"
    assert ink["thin"]
    assert 19 <= ink["side"] <= 21
    assert ink["centre"] == pytest.approx([14, 14], abs=0.2)
    assert ink["penWidth"] == pytest.approx(2.4, abs=0.4)


def test_a_data_set_that_centres_the_box_of_its_ink_is_recognized() -> None:
    random = np.random.default_rng(0)
    images = np.zeros((200, 1, 30, 30), np.uint8)
    images[:, 0, 5, 5] = images[:, 0, 24, 24] = 255
    images[:, 0, 6:24, 6:24] = random.integers(0, 2, (200, 1, 18)) * 255
    ink = ink_of(images)
    assert (ink["centredBy"], ink["side"], ink["centre"]) == ("box", 20, [14.5, 14.5])


@pytest.mark.parametrize("images", [np.zeros((3, 1, 8, 8)), np.full((1, 1, 1, 1), 255)])
def test_blank_images_also_get_an_ink_placement(images: Array) -> None:
    assert ink_of(images.astype(np.uint8))["side"] >= 1


def test_large_pictures_are_reduced_to_the_means_of_boxes() -> None:
    image = np.arange(15, dtype=np.uint8).reshape(1, 1, 3, 5)
    expected = [[[[3, 5, 6], [10, 12, 14]]]]  # of 0 1 5 6, of 2 3 7 8, of 4 9; then of halves
    assert reduced(image, 2).tolist() == expected
