"""A fork: the repository with params, pictures and results of a user's own stays green."""

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.pipelines import run

USERS = re.compile(r'ROOT / "(params\.yaml|dvc\.lock|data|pictures)')


@pytest.fixture
def fork(pipeline: Path) -> Path:
    """The tiny pipeline, which has a user's params, pictures and results, with all the rest."""
    for name in ("tests", "docs", "benchmarks", "scripts"):
        shutil.copytree(ROOT / name, pipeline / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "Makefile",
        "pyproject.toml",
        "requirements.lock",
    ):
        shutil.copy(ROOT / name, pipeline)
    return pipeline


@pytest.mark.slow
def test_tests_that_read_the_repositorys_params_and_results_pass_or_are_skipped_in_a_fork(
    fork: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in [name for name in os.environ if name.startswith("PYTEST_")]:
        monkeypatch.delenv(variable)  # it is a session of its own
    files = [
        str(path.relative_to(fork))
        for path in fork.glob("tests/**/test_*.py")
        if USERS.search(path.read_text(encoding="utf-8"))
    ]
    assert {"tests/gate/test_rules.py", "tests/pipeline/test_mnist.py"} <= {*files}
    base = str(fork.with_name("of the fork's tests"))
    output = run(fork, "python", "-m", "pytest", "-m", "not slow", "--basetemp", base, *files)
    assert re.search(
        r"^SKIPPED \[\d+\] .*: the committed params and results are about pictures/animals, not"
        r" MNIST$",
        output,
        re.MULTILINE,
    )
    assert re.search(r"^=+ \d+ passed, \d+ skipped", output, re.MULTILINE)
