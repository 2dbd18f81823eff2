"""docs/extending.md, tried: each diff applies, and the commands below it succeed."""

import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.pipelines import commit, run

pytestmark = pytest.mark.slow

TEXT = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S))


def copy_of_the_repository(folder: Path) -> None:
    """What git has or would add, as it stands in the working tree, committed."""
    listed = run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # not deleted
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    run(folder, "git", "init", "--quiet")
    run(folder, "git", "config", "user.name", "Test")
    run(folder, "git", "config", "user.email", "test@example.org")
    commit(folder)


@pytest.mark.usefixtures("about_mnist")
@pytest.mark.parametrize("title", ["A data set", "A feature", "An optimizer", "A metric"])
def test_the_diffs_of_extending_md_apply_and_the_commands_below_them_succeed(
    title: str, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    copy_of_the_repository(folder)
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", SECTIONS[title], re.M | re.S)
    assert [kind for kind, _ in blocks if kind != "python"][:2] == ["diff", ""]
    for kind, content in blocks:
        if kind == "python":
            (folder / "digits.py").write_text(content, encoding="utf-8")
        elif kind == "diff":
            (tmp_path / "a.diff").write_text(content, encoding="utf-8")
            run(folder, "git", "apply", "../a.diff")
            for ruff in ("ruff check", "ruff format --check"):
                run(folder, "sh", "-c", f"git diff --name-only -- '*.py' | xargs {ruff}")
        else:
            for line in content.splitlines():
                run(folder, "sh", "-c", line)
