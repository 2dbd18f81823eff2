"""Values in params.yaml changed, with its comments, its order and everything else as they were."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.base.whole_files import write_text


class ParamsFile:
    """The YAML file at `path`; nothing is written before `save`.

    Raises FileNotFoundError, or ValueError if it is not a mapping of sections.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._yaml = YAML()
        self._yaml.width = 100
        self._yaml.preserve_quotes = True
        self._yaml.representer.add_representer(type(None), _null)
        try:
            self._text = path.read_text(encoding="utf-8")
            self._document = self._yaml.load(self._text)
        except (YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
        if not isinstance(self._document, dict):
            raise ValueError(f"{path}: expected the pipeline's params, in sections")

    def section(self, name: str) -> Any:
        """The mapping called `name`. Raises ValueError if there is none."""
        section = self._document.get(name)
        if not isinstance(section, dict):
            raise ValueError(f"{self._path}: {name}: expected a section of params")
        return section

    def get(self, name: str) -> Any:
        """The value of `section.key`; None if there is none."""
        section, key = name.split(".")
        return self.section(section).get(key)

    def change(self, values: Mapping[str, Any]) -> list[str]:
        """Set `section.key` for each of `values`; describe those that had another value."""
        changed = []
        for name, value in values.items():
            section, key = name.split(".")
            if (old := self.get(name)) != value or isinstance(old, bool) != isinstance(value, bool):
                self.section(section)[key] = value
                changed.append(f"{name} {_plain(value)} (was {_plain(old)})")
        return changed

    def save(self) -> None:
        """Write the file, whole or not at all, unless it would not change."""
        text = io.StringIO()
        self._yaml.dump(self._document, text)
        if text.getvalue() != self._text:
            write_text(self._path, text.getvalue())


def _null(representer: Any, _: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")  # else it is left out


def _plain(value: Any) -> str:
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)
