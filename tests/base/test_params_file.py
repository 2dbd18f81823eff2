from pathlib import Path

import pytest

from stages.base.params_file import ParamsFile
from tests.conftest import ROOT

TEXT = """\
# At the top.

train:
  rate: 0.007    # a comment
  rule: null     # none
  name: 'quoted'
  seed: 1e-3     # text to some, a number to others
  size: [24, 32]
# Between.
gate:
  accuracy: {floor: 0.9}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_comments_order_and_spelling_of_the_rest_are_kept(path: Path) -> None:
    params = ParamsFile(path)
    assert params.change({"train.rate": 0.004}) == ["train.rate 0.004 (was 0.007)"]
    assert path.read_text(encoding="utf-8") == TEXT
    params.save()
    assert path.read_text(encoding="utf-8") == TEXT.replace("0.007 ", "0.004 ")


def test_a_file_without_changes_is_not_written(path: Path) -> None:
    before = path.stat().st_mtime_ns, path.stat().st_ino
    params = ParamsFile(path)
    assert params.change({"train.rate": 0.007, "train.name": "quoted", "train.rule": None}) == []
    params.save()
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


def test_true_is_another_value_than_1_and_is_named_as_in_yaml(path: Path) -> None:
    path.write_text("a: {b: 1}\n")
    params = ParamsFile(path)
    assert params.change({"a.b": True, "a.c": None}) == [
        "a.b true (was 1)",
    ]


def test_a_key_that_is_missing_is_added(path: Path) -> None:
    params = ParamsFile(path)
    assert params.change({"train.new": "a: b"}) == ["train.new a: b (was null)"]
    params.save()
    assert ParamsFile(path).get("train.new") == "a: b"


def test_the_projects_own_params_pass_through_unchanged() -> None:
    path = ROOT / "params.yaml"
    text = path.read_text(encoding="utf-8")
    params = ParamsFile(path)
    value = params.get("train.seed")
    params.change({"train.seed": value + 1})
    params.change({"train.seed": value})
    params.save()
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [", "not valid YAML"),
        (b"a: {b: 1}\na: {b: 2}\n", "not valid YAML"),
        (b"\xff\xfe", "not valid YAML"),
        (b"- 1\n", "expected the pipeline's params, in sections"),
        (b"", "expected the pipeline's params, in sections"),
        (b"a: 1\n", "a: expected a section of params"),
        (b"b: {}\n", "a: expected a section of params"),
    ],
)
def test_another_file_is_an_error_that_names_it(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        ParamsFile(path).get("a.b")
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
