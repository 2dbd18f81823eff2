"""What dvc.lock records, and whether the files of the same revision are the recorded ones.

`dvc status` would need the data as well, and a pull request holds only what is in git.
"""

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError

from stages.base.params import parse_yaml
from stages.gate.revisions import Revision

PIPELINE, LOCK = "dvc.yaml", "dvc.lock"
MAX_BYTES = 2**22  # of YAML, which is slow to read
REMEDY = "run `dvc repro` and commit what it writes"


class _File(BaseModel):
    path: str = Field(max_length=1024)
    md5: str | None = None


class _Stage(BaseModel):
    cmd: str | list[str]
    deps: list[_File] = []
    params: dict[str, dict[str, Any]] = {}
    outs: list[_File] = []


class _Lock(BaseModel):
    stages: dict[str, _Stage] = {}


class _PipelineStage(BaseModel):
    cmd: str | list[str]
    metrics: list[str | dict[str, Any]] = []


class _Pipeline(BaseModel):
    stages: dict[str, _PipelineStage] = {}
    metrics: list[str] = []

    def all_metrics(self) -> list[str]:
        """The metrics files, which may stand at the top level or in a stage, there with options."""
        of_stages = [entry for stage in self.stages.values() for entry in stage.metrics]
        paths = [
            path for entry in of_stages for path in ([entry] if isinstance(entry, str) else entry)
        ]
        return list(dict.fromkeys([*self.metrics, *paths]))


Document = TypeVar("Document", bound=BaseModel)


@dataclass(frozen=True)
class Lockfile:
    """dvc.yaml and dvc.lock of one revision."""

    revision: Revision
    pipeline: _Pipeline
    lock: _Lock

    @classmethod
    def load(cls, revision: Revision) -> Self:
        """Read both; a missing file counts as empty. Raises ValueError if DVC did not write it."""
        return cls(revision, _load(revision, PIPELINE, _Pipeline), _load(revision, LOCK, _Lock))

    @property
    def outs(self) -> Mapping[str, str | None]:
        """The MD5 of every file or folder that a stage made, by path."""
        return {out.path: out.md5 for stage in self.lock.stages.values() for out in stage.outs}

    @property
    def code(self) -> Mapping[str, str | None]:
        """The MD5 of every file that a stage read and none made, by path."""
        return {path: md5 for path, md5 in self._read.items() if not _is_folder(md5)}

    @property
    def data(self) -> Mapping[str, str | None]:
        """The MD5 of everything the stages made and of every folder they read, by path."""
        folders = {path: md5 for path, md5 in self._read.items() if _is_folder(md5)}
        return {**self.outs, **folders}

    @property
    def _read(self) -> Mapping[str, str | None]:
        deps = {dep.path: dep.md5 for stage in self.lock.stages.values() for dep in stage.deps}
        return {path: md5 for path, md5 in deps.items() if path not in self.outs}

    @property
    def params(self) -> dict[str, Any]:
        """The params that the stages read, by their full names."""
        params: dict[str, Any] = {}
        for stage in self.lock.stages.values():
            for section in stage.params.values():
                for name, value in section.items():  # a key may stand here and in its section
                    params |= flat({name: value})
        return params

    def options(self, stage: str) -> dict[str, str]:
        """The options of a stage's command and their values. Raises ValueError if it never ran."""
        if stage not in self.lock.stages:
            raise ValueError(f"{self.revision.where(LOCK)}: {stage} has never run; {REMEDY}")
        command = self.lock.stages[stage].cmd
        arguments = shlex.split(command if isinstance(command, str) else command[0])
        return dict(zip(arguments[3::2], arguments[4::2], strict=False))  # python -m MODULE

    def results(self) -> tuple[str, str] | None:
        """The paths of the metrics and of the predictions, or None if nothing was measured yet.

        The metrics are the file under `metrics:` from a stage whose outputs no other stage reads,
        the predictions the CSV file from the same stage. Raises ValueError if there is not exactly
        one of each, or if no stage made them.
        """
        if not self.pipeline.all_metrics() or not self.lock.stages:
            return None
        metrics = [path for path in self.pipeline.all_metrics() if not self._is_intermediate(path)]
        if len(metrics) != 1:
            raise ValueError(
                f"{self.revision.where(PIPELINE)}: metrics of the last stage: found"
                f" {', '.join(metrics) or 'none'}; expected one file"
            )
        outs = self._maker(metrics[0]).outs
        tables = [out.path for out in outs if PurePosixPath(out.path).suffix == ".csv"]
        if len(tables) != 1:
            raise ValueError(
                f"{self.revision.where(LOCK)}: found {len(tables)} CSV files made by the stage that"
                f" makes {metrics[0]}; expected one, the predictions"
            )
        return metrics[0], tables[0]

    def validation_metrics(self) -> list[str]:
        """The paths of the metrics files from earlier stages, measured while training."""
        return [path for path in self.pipeline.all_metrics() if self._is_intermediate(path)]

    def _is_intermediate(self, path: str) -> bool:
        """Whether another stage reads an output of the stage that made `path`."""
        made = {out.path for out in self._maker(path).outs}
        return any(dep.path in made for stage in self.lock.stages.values() for dep in stage.deps)

    def param(self, path: str, key: str) -> Any:
        """The value of a param, by its full name, of the stage that made `path`; None without."""
        found = [_lookup(params, key) for params in self._maker(path).params.values()]
        return next((value for value in found if value is not None), None)

    def _maker(self, path: str) -> _Stage:
        """The stage that made `path`. Raises ValueError if none did."""
        for stage in self.lock.stages.values():
            if path in [out.path for out in stage.outs]:
                return stage
        raise ValueError(f"{self.revision.where(LOCK)}: no stage has made {path}; {REMEDY}")

    def check(self) -> None:
        """Raise ValueError unless the files in git are the ones that dvc.lock records.

        Checked are the results, the code, params and commands that made them, and that each stage
        read what the stages before it made. Data that only DVC's cache holds is not read.
        """
        stale = [
            *self._stale_commands(),
            *self._stale_params(),
            *self._stale_code(),
            *self._stale_data(),
        ]
        if stale:
            more = f" and {len(stale) - 3} more" if len(stale) > 3 else ""
            first = ", ".join(line[:200] for line in stale[:3])
            raise ValueError(f"{self.revision.where(LOCK)} is out of date: {first}{more}; {REMEDY}")

    def _stale_commands(self) -> list[str]:
        stages = self.lock.stages
        return [
            f"the command of {name} has changed" if name in stages else f"{name} has never run"
            for name, stage in self.pipeline.stages.items()
            if name not in stages or stage.cmd != stages[name].cmd
        ]

    def _stale_params(self) -> list[str]:
        stale = []
        for stage in self.lock.stages.values():
            for path, recorded in stage.params.items():
                found = load_yaml(self.revision, path)
                stale += [
                    f"{key} in {path} has changed"
                    for key, value in recorded.items()
                    if not _equal(_lookup(found, key), value)
                ]
        return stale

    def _stale_code(self) -> list[str]:
        return [
            f"{path} has changed"
            for path, recorded in self.code.items()
            if recorded is not None and self._md5(path) != recorded
        ]

    def _stale_data(self) -> list[str]:
        handed_over = [
            f"{dep.path} has changed since {name} read it"
            for name, stage in self.lock.stages.items()
            for dep in stage.deps
            if self.outs.get(dep.path, dep.md5) != dep.md5
        ]
        return handed_over + [
            f"{path} is not the recorded file"
            for path in (*(self.results() or ()), *self.validation_metrics())
            if self._md5(path) != self.outs[path]
        ]

    def _md5(self, path: str) -> str | None:
        content = self.revision.read(path)
        return None if content is None else hashlib.md5(content, usedforsecurity=False).hexdigest()


def _is_folder(md5: str | None) -> bool:
    return md5 is not None and md5.endswith(".dir")  # how DVC marks the hash of a folder


def load_yaml(revision: Revision, path: str) -> Any:
    """The document at `path`, None if there is no file. Raises ValueError if it is not YAML."""
    content = revision.read(path)
    if content is not None and len(content) > MAX_BYTES:
        raise ValueError(f"{revision.where(path)}: found more than {MAX_BYTES:,} bytes of YAML")
    return None if content is None else parse_yaml(content, revision.where(path))


def _load(revision: Revision, path: str, model: type[Document]) -> Document:
    content = load_yaml(revision, path)
    try:
        return model.model_validate({} if content is None else content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "its content"
        raise ValueError(
            f"{revision.where(path)}: not written by DVC: {key}: {first['msg']};"
            " `dvc repro` shows the details"
        ) from None


def flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested objects by dotted name, such as `recall.8`.

    Raises ValueError if two of them have the same name.
    """
    values: dict[str, Any] = {}
    for name, value in document.items():
        full = f"{prefix}{name}"
        inner = flat(value, f"{full}.") if isinstance(value, dict) else {full: value}
        if values.keys() & inner.keys():
            raise ValueError(f"found {full[:40]!r} twice")
        values |= inner
    return values


def _lookup(document: Any, key: str) -> Any:
    """The value under `key`, which may be dotted, or None."""
    if isinstance(document, dict) and key in document:
        return document[key]
    for part in key.split("."):
        document = document.get(part) if isinstance(document, dict) else None
    return document


def _equal(one: Any, other: Any, compared: set[tuple[int, int]] | None = None) -> bool:
    """Whether two values in YAML are the same; true is not 1, though Python says so.

    compared: the pairs met so far. Aliases in YAML can repeat a pair without end.
    """
    compared = set() if compared is None else compared
    pair = (id(one), id(other))
    if pair in compared:
        return True
    if isinstance(one, dict) and isinstance(other, dict):
        compared.add(pair)
        same_keys = one.keys() == other.keys()
        return same_keys and all(_equal(one[key], other[key], compared) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        compared.add(pair)
        return len(one) == len(other) and all(
            _equal(*both, compared) for both in zip(one, other, strict=True)
        )
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
