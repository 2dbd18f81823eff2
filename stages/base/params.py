"""One section of params.yaml -> one typed, frozen object."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, FiniteFloat, ValidationError
from pydantic_core import ErrorDetails

MAX_QUOTED = 200  # characters of the user's text in a message


def number(value: Any) -> Any:
    """Read as a number what is one: `1e-3` is text to YAML 1.1, a number to DVC and to people."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    return int(value) if isinstance(value, float) and value.is_integer() else value


Integer = Annotated[int, BeforeValidator(number)]
Real = Annotated[FiniteFloat, BeforeValidator(number)]


class Params(BaseModel):
    """The base of each stage's params: frozen, and strict about names, types and ranges."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def load(cls, path: Path, section: str) -> Self:
        """Read `section` of the YAML file at `path`.

        Raises FileNotFoundError, or a ValueError that names every key that is unknown, missing,
        of another type or out of range, with the value found and what is allowed.
        """
        try:
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{path}: no such file; expected the pipeline's params"
            ) from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{path}: not valid YAML: {_cut(' '.join(str(error).split()))}"
            ) from None
        values = document.get(section) if isinstance(document, dict) else None
        if not isinstance(values, dict):
            keys = ", ".join(cls.model_fields)
            found = "missing" if values is None else f"found {_cut(repr(values))}"
            raise ValueError(f"{path}: {section}: {found}; expected a section with the keys {keys}")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = "; ".join(cls._problem(section, detail) for detail in error.errors())
            raise ValueError(f"{path}: {problems}") from None

    @classmethod
    def _problem(cls, section: str, detail: ErrorDetails) -> str:
        key = _cut(".".join(str(part) for part in (section, *detail["loc"])))
        if detail["type"] == "missing":
            field = cls.model_fields[str(detail["loc"][0])]
            return f"{key}: missing; expected {field.description}"
        if detail["type"] == "extra_forbidden":
            close = difflib.get_close_matches(str(detail["loc"][0]), cls.model_fields, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(cls.model_fields)}"
            return f"{key}: unknown key; {hint}"
        expected = detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
        if not detail["loc"]:
            return f"{section}: {expected}"
        return f"{key}: found {_cut(repr(detail['input']))}; expected {expected}"


def _cut(text: str) -> str:
    """`text`, which the user wrote, short enough for a message."""
    return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}... ({len(text)} characters)"
