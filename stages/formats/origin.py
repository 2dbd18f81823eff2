"""Origin: where the images of a test split come from, for the report on a run."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from stages.formats.metadata import record


@dataclass(frozen=True)
class Origin:
    """The data set and how it was split.

    name: of the data set.  licence, source: None if not known.  counts: images by split.
    params: those of `tensorize`, by name.
    """

    name: str = "unnamed"
    licence: str | None = None
    source: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for text in ("name", "licence", "source"):
            value = getattr(self, text)
            if not isinstance(value, str) and (value is not None or text == "name"):
                raise ValueError(f"{text}: found {value!r:.200}; expected text")
        for mapping in (self.counts, self.params):
            if not isinstance(mapping, dict) or not all(isinstance(key, str) for key in mapping):
                raise ValueError(f"found {mapping!r:.200}; expected an object")
        if not all(type(count) is int and count >= 0 for count in self.counts.values()):
            raise ValueError(f"counts: found {self.counts!r:.200}; expected numbers of images")

    def to_json(self) -> dict[str, Any]:
        """The object that `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, about: Any) -> "Origin":
        """Read what `to_json` returned; raises ValueError if `about` is anything else."""
        return record(cls, "origin", about)


UNKNOWN = Origin()
