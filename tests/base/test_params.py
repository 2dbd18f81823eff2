import os
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from stages.base.params import MAX_BYTES, Integer, Params, Real, Seed


class Example(Params):
    kind: Literal["a", "b"] = Field(description="a or b")
    rate: Real = Field(gt=0, description="above 0")
    size: Integer = Field(ge=1, description="1 or more")
    flag: bool = Field(description="true or false")
    seed: Seed = Field(0, description="0 to 2**63 - 1")


def load(tmp_path: Path, text: str) -> Example:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return Example.load(path, "example")


def with_values(**changes: str) -> str:
    values = {"kind": "a", "rate": "0.5", "size": "3", "flag": "true"} | changes
    return "example: {" + ", ".join(f"{key}: {value}" for key, value in values.items()) + "}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1e-05", 1e-5),
        ('"0.1"', 0.1),
        ("1", 1.0),
        ("1_0.5", 10.5),
        ("2e3", 2000),
        ("010", 10),
    ],
)
def test_numbers_are_read_as_dvc_reads_them(tmp_path: Path, text: str, value: float) -> None:
    assert load(tmp_path, with_values(rate=text)).rate == value


@pytest.mark.parametrize("text", ["100", "1e2", '"100"', "100.0"])
def test_whole_numbers_are_read_as_integers(tmp_path: Path, text: str) -> None:
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
        ({"size": "1:2:3"}, "example.size: found '1:2:3'; expected a valid integer"),
        ({"rate": "1:2:3.5"}, "example.rate: found '1:2:3.5'; expected a valid number"),
        ({"size": "1e99"}, "expected less than or equal to 2147483647"),
        ({"size": "9" * 400}, "expected less than or equal to 2147483647"),
        ({"seed": str(2**63)}, f"example.seed: found {2**63}; expected less than or equal to"),
        ({"rate": "0"}, "example.rate: found 0; expected greater than 0"),
        ({"rate": ".nan"}, "example.rate: found nan; expected a finite number"),
        ({"rate": "1e999"}, "example.rate: found inf; expected a finite number"),
        ({"rate": "fast"}, "example.rate: found 'fast'; expected a valid number"),
        ({"rate": "[1]"}, "example.rate: found [1]; expected a valid number"),
        ({"flag": "1"}, "example.flag: found 1; expected a valid boolean"),
        ({"kind": "c"}, "example.kind: found 'c'; expected 'a' or 'b'"),
        ({"sise": "3"}, "example.sise: unknown key; did you mean size?"),
        ({"zzz": "3"}, "example.zzz: unknown key; known: kind, rate, size, flag, seed"),
    ],
)
def test_a_params_error_names_the_key_the_value_and_what_is_allowed(
    tmp_path: Path, change: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match="example") as caught:
        load(tmp_path, with_values(**change))
    assert message in str(caught.value)


def test_all_problems_with_params_are_listed_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="example") as caught:
        load(tmp_path, "example: {kind: c, size: 0, rte: 1, flag: true}")
    message = str(caught.value)
    assert "\n" not in message
    for part in ("example.kind", "example.size", "example.rte", "example.rate: missing; expected"):
        assert part in message


# Each list holds the previous one ten times: 10**9 leaves in a few bytes.
ALIASES = "a0: &a0 [x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
ALIASES += "example: *a9"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "other: 1",
            "example: missing; expected a section with the keys kind, rate, size, flag, seed",
        ),
        ("example: 3", "example: found 3; expected a section"),
        ("", "example: missing"),
        ("- 1", "example: missing"),
        ("example: {kind: a", "not valid YAML"),
        (with_values(size="!!int ''"), "not valid YAML"),
        (with_values(rate="!!float ''"), "not valid YAML"),
        (with_values(flag="!!bool 'x'"), "not valid YAML"),
        (with_values(kind="!!timestamp 'x'"), "not valid YAML"),
        (with_values(size="9" * 5000), "not valid YAML"),
        ("example: " + "[" * 5000, "nested too deeply"),
        ("example: " + "{" * 500_000, "nested too deeply"),
        ("- " * 5000, "nested too deeply"),
        ("example: " + "a" * 20_000, "found 'aaa"),
        (with_values(kind="a" * 20_000), "found 'aaa"),
        (with_values(**{"b" * 1_000: "1"}), "unknown key"),
        ("#" * (MAX_BYTES + 1), "found more than 1,048,576 bytes"),
        (ALIASES, "found [["),
    ],
    ids=lambda text: text[:40],
)
def test_a_malformed_params_file_is_a_short_one_line_error(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(ValueError, match=r"params\.yaml: ") as caught:
        load(tmp_path, text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_params_file_that_is_not_a_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(ValueError, match=f"^{path}: not a regular file"):
            Example.load(path, "example")


def test_the_error_for_a_missing_params_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml: no such file"):
        Example.load(tmp_path / "nowhere.yaml", "example")


def test_params_are_frozen(tmp_path: Path) -> None:
    example = load(tmp_path, with_values())
    with pytest.raises(ValueError, match="frozen"):
        example.size = 4
