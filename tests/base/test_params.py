from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from stages.base.params import Integer, Params, Real


class Example(Params):
    kind: Literal["a", "b"] = Field(description="a or b")
    rate: Real = Field(gt=0, description="above 0")
    size: Integer = Field(ge=1, description="1 or more")
    flag: bool = Field(description="true or false")


def load(tmp_path: Path, text: str) -> Example:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return Example.load(path, "example")


def with_values(**changes: str) -> str:
    values = {"kind": "a", "rate": "0.5", "size": "3", "flag": "true"} | changes
    return "example: {" + ", ".join(f"{key}: {value}" for key, value in values.items()) + "}"


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("1e-05", 1e-5), ('"0.1"', 0.1), ("1", 1.0), ("1_0.5", 10.5), ("2e3", 2000)],
)
def test_reads_as_a_number_what_dvc_reads_as_one(tmp_path: Path, text: str, value: float) -> None:
    assert load(tmp_path, with_values(rate=text)).rate == value


@pytest.mark.parametrize("text", ["100", "1e2", '"100"', "100.0"])
def test_reads_whole_numbers_as_integers(tmp_path: Path, text: str) -> None:
    size = load(tmp_path, with_values(size=text)).size
    assert size == 100
    assert isinstance(size, int)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": "0"}, "example.size: found 0; expected greater than or equal to 1"),
        ({"size": "1.5"}, "example.size: found 1.5; expected a valid integer"),
        ({"size": "true"}, "example.size: found True; expected a valid integer"),
        ({"size": "null"}, "example.size: found None; expected a valid integer"),
        ({"rate": "0"}, "example.rate: found 0; expected greater than 0"),
        ({"rate": ".nan"}, "example.rate: found nan; expected a finite number"),
        ({"rate": "1e999"}, "example.rate: found inf; expected a finite number"),
        ({"rate": "fast"}, "example.rate: found 'fast'; expected a valid number"),
        ({"rate": "[1]"}, "example.rate: found [1]; expected a valid number"),
        ({"flag": "1"}, "example.flag: found 1; expected a valid boolean"),
        ({"kind": "c"}, "example.kind: found 'c'; expected 'a' or 'b'"),
        ({"sise": "3"}, "example.sise: unknown key; did you mean size?"),
        ({"zzz": "3"}, "example.zzz: unknown key; known: kind, rate, size, flag"),
    ],
)
def test_names_the_key_the_value_and_what_is_allowed(
    tmp_path: Path, change: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match="example") as caught:
        load(tmp_path, with_values(**change))
    assert message in str(caught.value)


def test_tells_all_problems_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="example") as caught:
        load(tmp_path, "example: {kind: c, size: 0, rte: 1, flag: true}")
    message = str(caught.value)
    assert "\n" not in message
    for part in ("example.kind", "example.size", "example.rte", "example.rate: missing; expected"):
        assert part in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("other: 1", "example: missing; expected a section with the keys kind, rate, size, flag"),
        ("example: 3", "example: found 3; expected a section"),
        ("", "example: missing"),
        ("- 1", "example: missing"),
        ("example: {kind: a", "not valid YAML"),
    ],
)
def test_names_a_file_that_is_no_params_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match="example|YAML") as caught:
        load(tmp_path, text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml: no such file"):
        Example.load(tmp_path / "nowhere.yaml", "example")


@pytest.mark.parametrize(
    "text",
    [
        with_values(kind="x" * 20_000),
        with_values(**{"x" * 1000: "1"}),
        with_values(kind=f"[{'1, ' * 20_000}]"),
        f"example: {'x' * 20_000}",
        f"example: *{'x' * 20_000}",
    ],
    ids=["value", "unknown key", "list", "section", "undefined alias"],
)
def test_long_input_is_cut_in_the_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"\.\.\. \([0-9]+ characters\)") as caught:
        load(tmp_path, text)
    assert len(str(caught.value).replace(str(tmp_path), "")) < 500


def test_is_frozen(tmp_path: Path) -> None:
    example = load(tmp_path, with_values())
    with pytest.raises(ValueError, match="frozen"):
        example.size = 4
