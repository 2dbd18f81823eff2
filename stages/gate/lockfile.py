"""What dvc.lock records of a revision, and whether the revision's files are still those.

DVC's own `dvc status` wants the data as well; in a pull request there are only files in git.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Self, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from stages.gate.revisions import Revision

PIPELINE, LOCK = "dvc.yaml", "dvc.lock"


class _File(BaseModel):
    path: str
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
        """The metrics files, which DVC takes at the top or in a stage, there also with options."""
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
        """Read both; what is missing is empty. Raises ValueError if one is not what DVC writes."""
        return cls(revision, _load(revision, PIPELINE, _Pipeline), _load(revision, LOCK, _Lock))

    @property
    def outs(self) -> Mapping[str, str | None]:
        """The MD5 of everything the stages made, by path."""
        return {out.path: out.md5 for stage in self.lock.stages.values() for out in stage.outs}

    @property
    def code(self) -> Mapping[str, str | None]:
        """The MD5 of every file the stages read and did not make, by path."""
        return {path: md5 for path, md5 in self._read.items() if not _is_folder(md5)}

    @property
    def data(self) -> Mapping[str, str | None]:
        """The MD5 of everything the stages made and of the folders they read, by path."""
        folders = {path: md5 for path, md5 in self._read.items() if _is_folder(md5)}
        return {**self.outs, **folders}

    @property
    def _read(self) -> Mapping[str, str | None]:
        deps = {dep.path: dep.md5 for stage in self.lock.stages.values() for dep in stage.deps}
        return {path: md5 for path, md5 in deps.items() if path not in self.outs}

    def results(self) -> tuple[str, str] | None:
        """The paths of the metrics and of the predictions, or None where nothing was measured yet.

        The metrics are the file under `metrics:`, the predictions the CSV file that the same stage
        makes. Raises ValueError if either is not exactly one, or if no stage made the metrics.
        """
        metrics = self.pipeline.all_metrics()
        if not metrics or not self.lock.stages:
            return None
        if len(metrics) > 1:
            raise ValueError(
                f"{self.revision.where(PIPELINE)}: metrics: found {', '.join(metrics)};"
                " expected one file"
            )
        made = [[out.path for out in stage.outs] for stage in self.lock.stages.values()]
        outs = next((paths for paths in made if metrics[0] in paths), None)
        if outs is None:
            raise ValueError(
                f"{self.revision.where(LOCK)}: no stage has made {metrics[0]}; run `dvc repro` and"
                " commit what it writes"
            )
        tables = [path for path in outs if PurePosixPath(path).suffix == ".csv"]
        if len(tables) != 1:
            raise ValueError(
                f"{self.revision.where(LOCK)}: the stage that makes {metrics[0]} makes"
                f" {len(tables)} CSV files; expected one, the predictions"
            )
        return metrics[0], tables[0]

    def check(self) -> None:
        """Raise ValueError unless the files in git are those that dvc.lock records.

        That is: the results, the code and the params that made them, the commands, and what one
        stage hands to the next. Data that only DVC's cache holds is not read.
        """
        stale = [
            *self._stale_commands(),
            *self._stale_params(),
            *self._stale_code(),
            *self._stale_data(),
        ]
        if stale:
            more = f" and {len(stale) - 3} more" if len(stale) > 3 else ""
            raise ValueError(
                f"{self.revision.where(LOCK)} is out of date: {', '.join(stale[:3])}{more};"
                " run `dvc repro` and commit what it writes"
            )

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
                    if _plain(_lookup(found, key)) != _plain(value)
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
            f"{dep.path} has been made anew since {name} read it"
            for name, stage in self.lock.stages.items()
            for dep in stage.deps
            if self.outs.get(dep.path, dep.md5) != dep.md5
        ]
        return handed_over + [
            f"{path} is not the file that it records"
            for path in self.results() or ()
            if self._md5(path) != self.outs[path]
        ]

    def _md5(self, path: str) -> str | None:
        content = self.revision.read(path)
        return None if content is None else hashlib.md5(content, usedforsecurity=False).hexdigest()


def _is_folder(md5: str | None) -> bool:
    return md5 is not None and md5.endswith(".dir")  # as DVC marks the hash of a list of files


def load_yaml(revision: Revision, path: str) -> Any:
    """The document at `path`, None where there is no such file. Raises ValueError if not YAML."""
    content = revision.read(path)
    if content is None:
        return None
    try:
        return yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{revision.where(path)}: not valid YAML: {reason}") from None


def _load(revision: Revision, path: str, model: type[Document]) -> Document:
    content = load_yaml(revision, path)
    try:
        return model.model_validate({} if content is None else content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "its content"
        raise ValueError(
            f"{revision.where(path)}: not what DVC writes: {key}: {first['msg']};"
            " `dvc repro` says more"
        ) from None


def _lookup(document: Any, key: str) -> Any:
    """The value under `key`, which may be dotted, or None."""
    if isinstance(document, dict) and key in document:
        return document[key]
    for part in key.split("."):
        document = document.get(part) if isinstance(document, dict) else None
    return document


def _plain(value: Any) -> Any:
    """`value` with numbers as floats: 1e-5, which DVC writes as 1e-05, is text to PyYAML."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, bool):
        return str(value)  # True is no 1 here
    try:
        return float(value)
    except (TypeError, ValueError):
        return value
