"""One section of params.yaml -> one typed, frozen object."""

import difflib
import re
from pathlib import Path
from reprlib import Repr
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError
from pydantic_core import ErrorDetails

MAX_BYTES = 2**20  # of params.yaml
SHORT = Repr()  # of values in messages
SHORT.maxstring = SHORT.maxlong = SHORT.maxother = 60
SHORT.maxlevel = 2


class _Loader(yaml.SafeLoader):
    """Reads numbers as DVC does, by YAML 1.2: `010` is 10 and `1:2:3` is text, not 8 and 3,723."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # as in its base class
        first: [
            (tag, pattern) for tag, pattern in resolvers if not tag.endswith((":int", ":float"))
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


for _tag, _pattern in {
    "int": r"[-+]?(0|[1-9][0-9]*)$",
    "float": r"[-+]?((\.[0-9]+|[0-9]+(\.[0-9]*)?)(e[-+]?[0-9]+)?|\.inf)$|\.nan$",
}.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(_pattern, re.IGNORECASE), list("-+.0123456789")
    )


def number(value: Any) -> Any:
    """Convert text that is a number: `1e-3` is text in YAML 1.1 but a number to DVC and people."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    return int(value) if isinstance(value, float) and value.is_integer() else value


Integer = Annotated[int, Field(le=2**31 - 1), BeforeValidator(number)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1), BeforeValidator(number)]
Real = Annotated[FiniteFloat, BeforeValidator(number)]


def parse_yaml(content: bytes, where: str) -> Any:
    """The document in a YAML file, with numbers as DVC reads them.

    Raises ValueError that names the file, `where`, if it is not valid YAML.
    """
    try:
        return yaml.load(content.decode(), _Loader)  # noqa: S506  # a SafeLoader
    except RecursionError:
        raise ValueError(f"{where}: not valid YAML: nested too deeply") from None
    except Exception as error:  # PyYAML raises LookupError and others for a bad `!!int`
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{where}: not valid YAML: {reason}") from None


def _read_yaml(path: Path) -> Any:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; expected the pipeline's params")
    if not path.is_file():
        raise ValueError(f"{path}: not a regular file; expected the pipeline's params")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: found more than {MAX_BYTES:,} bytes; expected a page of params")
    return parse_yaml(path.read_bytes(), str(path))


class Params(BaseModel):
    """The base of each stage's params: frozen, and strict about names, types and ranges."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def load(cls, path: Path, section: str) -> Self:
        """Read `section` of the YAML file at `path`.

        Raises FileNotFoundError, or ValueError that names every key that is unknown, missing,
        of the wrong type or out of range, with the value found and what is allowed.
        """
        document = _read_yaml(path)
        values = document.get(section) if isinstance(document, dict) else None
        if not isinstance(values, dict):
            keys = ", ".join(cls.model_fields)
            expected = f"a section with the keys {keys}" if keys else "a section"
            found = "missing" if values is None else f"found {SHORT.repr(values)}"
            raise ValueError(f"{path}: {section}: {found}; expected {expected}")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = "; ".join(cls._problem(section, detail) for detail in error.errors())
            raise ValueError(f"{path}: {problems}") from None

    @classmethod
    def _problem(cls, section: str, detail: ErrorDetails) -> str:
        key = ".".join(str(part)[:60] for part in (section, *detail["loc"]))
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
        return f"{key}: found {SHORT.repr(detail['input'])}; expected {expected}"
