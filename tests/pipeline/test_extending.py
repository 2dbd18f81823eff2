"""docs/extending.md, tried: each diff applies, and the commands below it succeed."""

import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.pipelines import commit, copy_of_the_pipeline, run

pytestmark = pytest.mark.slow

TEXT = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S))


@pytest.mark.parametrize("title", ["A data set", "A feature", "An optimizer", "A metric"])
def test_the_diffs_of_extending_md_apply_and_the_commands_below_them_succeed(
    title: str, tmp_path: Path
) -> None:
    folder = copy_of_the_pipeline(tmp_path / "copy", own_params_and_pictures=False)
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "data/metrics.json", "data/predictions.csv"):
        shutil.copy(ROOT / name, folder / name)
    commit(folder)
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", SECTIONS[title], re.M | re.S)
    assert [kind for kind, _ in blocks if kind != "python"][:2] == ["diff", ""]
    for kind, content in blocks:
        if kind == "python":
            (folder / "digits.py").write_text(content, encoding="utf-8")
        elif kind == "diff":
            (folder / "a.diff").write_text(content, encoding="utf-8")
            run(folder, "git", "apply", "a.diff")
            run(folder, "ruff", "check", "stages", "tests")
            run(folder, "ruff", "format", "--check", "stages", "tests")
        else:
            for line in content.splitlines():
                run(folder, "sh", "-c", line)
