"""The JSON objects in the metadata of safetensors files, which are not trusted to be valid."""

import json
from collections.abc import Set as AbstractSet
from typing import Any


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
