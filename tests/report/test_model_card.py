import re
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stages.report.model_card import escaped, model_card, sections
from stages.report.page_data import PageData, as_text, percent, percent_range
from tests.report.runs import HOSTILE, a_run, blocks, handwriting


@pytest.fixture(scope="module")
def run() -> PageData:
    images, labels = handwriting(100)
    return a_run(images, labels, mislabelled=0.2, deskewed=True, title="MNIST")


def metadata(card: str) -> Any:
    start, block, _ = card.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(block)


def test_the_cards_metadata_names_task_data_set_and_accuracy_for_hubs(run: PageData) -> None:
    about = metadata(model_card(run))
    assert about["pipeline_tag"] == "image-classification"
    (result,) = about["model-index"][0]["results"]
    assert result["dataset"]["name"] == "MNIST"
    assert result["metrics"] == [{"type": "accuracy", "value": run.metrics["accuracy"]}]


def test_the_card_has_data_results_params_limits_and_how_to_cite(run: PageData) -> None:
    card = model_card(run)
    titles = [line for line in card.splitlines() if line.startswith("## ")]
    for title in ("Data", "Results", "Limits", "What it is not for", "How to cite it"):
        assert f"## {title}" in titles
    assert "| Licence | CC0 |" in card
    assert "| Source | not known |" in card
    assert "| Images, validation | 100 |" in card
    assert f"| Accuracy, 95 % interval | {percent_range(run.accuracy_interval)} |" in card
    assert "A test set of 100 cannot tell the accuracy more exactly." in card
    assert f"| Errors | {run.metrics['errors']} of 100 |" in card
    assert "| learning\\_rate | 0.003 |" in card


def test_the_markdown_card_has_all_text_of_the_pages_card(run: PageData) -> None:
    card = model_card(run)
    for section in sections(run):
        for text in (section.title, *section.text, *(word for row in section.rows for word in row)):
            assert escaped(text) in card


def test_the_weakest_class_and_the_most_frequent_confusion_are_named(run: PageData) -> None:
    actual = run.actual.copy()
    predicted = run.actual.copy()
    predicted[actual == 3] = 8
    text = model_card(replace(run, predicted=predicted))
    number = int((actual == 3).sum())
    assert f"finds least often is 3: 0.00 % of its {number} test images" in text
    assert f"takes 3 for 8, {number} times" in text


def test_a_model_without_mistakes_has_no_weakest_class(run: PageData) -> None:
    assert "It made no mistake" in model_card(replace(run, predicted=run.actual))


def test_hostile_names_in_the_card_stay_text() -> None:
    images, labels = blocks(60, len(HOSTILE), (3, 16, 16))
    card = model_card(a_run(images, labels, names=HOSTILE, title="a\n---\n# b | <img src=x>\ud800"))
    assert metadata(card)["model-index"][0]["name"].startswith("Logistic regression on a --- # b")
    body = card.split("---\n", 2)[2]
    assert "<img" not in body.replace("\\<img", "")
    assert all(line.count("|") - line.count("\\|") in (0, 3) for line in body.splitlines())
    card.encode()


@given(st.text())
def test_any_text_is_escaped_to_one_line_without_markup(text: str) -> None:
    line = escaped(text)
    line.encode()
    assert len(line.splitlines()) <= 1
    assert not re.search(r"[`<|*\[_]", re.sub(r"\\.", "", line))


def test_params_are_written_as_in_the_params_file() -> None:
    values = (None, True, 0.003, 5, "adamw", [28, 28])
    assert list(map(as_text, values)) == ["null", "true", "0.003", "5", "adamw", "[28, 28]"]


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (1.0, "100.00 %"),
        (0.99999, "> 99.99 %"),
        (0.99994, "99.99 %"),
        (0.9953, "99.53 %"),
        (0.00001, "< 0.01 %"),
        (0.0, "0.00 %"),
    ],
)
def test_percentages_show_0_and_100_only_for_exactly_none_and_all(share: float, text: str) -> None:
    assert percent(share) == text
