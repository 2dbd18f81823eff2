"""Reading safetensors files and the JSON in their metadata, neither trusted to be valid."""

import json
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError

Record = TypeVar("Record")


@contextmanager
def valid(path: Path, what: str, stage: str) -> Iterator[None]:
    """Within it, whatever is wrong with the file that `stage` made is one ValueError, in one line.

    Raises FileNotFoundError if there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; `dvc repro {stage}` makes it")
    try:
        yield
    except (SafetensorError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path}: not a {what} of this pipeline ({reason}); `dvc repro -f -s {stage}`"
            " regenerates it"
        ) from None


def metadata(file: Any, name: str, keys: AbstractSet[str]) -> dict[str, Any]:
    """The JSON object `name` in the metadata of an open safetensors file.

    Raises ValueError, or RecursionError, if there is no such object with these keys.
    """
    about = json.loads((file.metadata() or {}).get(name, "null"))
    if not isinstance(about, dict) or not keys <= about.keys():
        raise ValueError(
            f"metadata {name}: found {about!r:.200};"
            f" expected an object with the keys {', '.join(sorted(keys))}"
        )
    return about


def class_names(about: dict[str, Any]) -> tuple[str, ...]:
    """The classes in a file's metadata; raises ValueError if they are not a list of names."""
    classes = about["classes"]
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"classes: found {classes!r:.200}; expected a list of names")
    return tuple(classes)


def record(kind: type[Record], name: str, about: Any) -> Record:
    """The dataclass `kind` from an object with its fields; raises ValueError for anything else."""
    keys = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # a dataclass
    if not isinstance(about, dict) or sorted(about) != sorted(keys):
        raise ValueError(
            f"{name}: found {about!r:.200}; expected an object with the keys {', '.join(keys)}"
        )
    return kind(**about)
