"""The commands and links in the README and docs/ exist."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import ROOT

DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: path.name)
def test_every_command_and_link_in_the_docs_exists(doc: Path) -> None:
    text = doc.read_text(encoding="utf-8")
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(
        re.findall(r"\bmake ([a-z]+)`", text) + re.findall(r"^make ([a-z]+)", text, re.M)
    ) <= {*targets}
    for module in re.findall(r"python -m (stages[.\w]*)", text):
        assert find_spec(module.rstrip(".")), module
    for link in re.findall(r"\]\(([\w/.]+)\)", text):
        assert (doc.parent / link).exists(), link


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: path.name)
def test_no_placeholder_is_left_in_the_docs(doc: Path) -> None:
    assert not re.search(r"@[A-Z]+@", doc.read_text(encoding="utf-8"))


@pytest.mark.usefixtures("about_mnist")
def test_the_readmes_first_figures_are_the_committed_metrics() -> None:
    metrics = json.loads((ROOT / "data/metrics.json").read_text(encoding="utf-8"))
    accuracy, errors = f"{metrics['accuracy']:.2%}".replace("%", " %"), metrics["errors"]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"| {accuracy} | {errors} | `make repro` |" in text
    assert f"{errors} errors in MNIST's" in text
    summary = f"accuracy {metrics['accuracy']:.2%}, {errors} errors in {metrics['images']} images"
    assert summary in text


def test_the_readmes_verdicts_of_the_gate_are_those_of_its_worked_example() -> None:
    readme, worked = (
        (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/gate.md")
    )
    verdicts = [line.split() for line in readme.splitlines() if line.startswith("accuracy  ")]
    assert len(verdicts) == 2
    assert all(verdict in map(str.split, worked.splitlines()) for verdict in verdicts)
