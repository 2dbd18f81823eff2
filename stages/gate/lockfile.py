"""What dvc.lock records, and whether the files of the same revision are the recorded ones.

`dvc status` would need the data as well, and a pull request holds only what is in git.
"""

import hashlib
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError

from stages.base.params import parse_yaml
from stages.gate.revisions import Revision

PIPELINE, LOCK, PARAMS = "dvc.yaml", "dvc.lock", "params.yaml"
MAX_BYTES = 2**22  # of YAML
MAX_VALUES, MAX_DEPTH = 2**20, 100  # in one document
REMEDY = "run `dvc repro` and commit what it writes"


class _File(BaseModel):
    path: str = Field(max_length=1024)
    md5: str | None = None


class _Command(BaseModel):
    cmd: str | list[str]


class _Stage(_Command):
    deps: list[_File] = []
    params: dict[str, dict[str, Any]] = {}
    outs: list[_File] = []


class _Lock(BaseModel):
    stages: dict[str, _Stage] = {}


class _Pipeline(BaseModel):
    stages: dict[str, _Command] = {}


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
        outs = self.outs
        return {
            path: md5
            for path, md5 in self._files.items()
            if path not in outs and not (md5 or "").endswith(".dir")  # how DVC marks a folder
        }

    @property
    def data(self) -> Mapping[str, str | None]:
        """The MD5 of everything the stages made and of every folder they read, by path."""
        code = self.code
        return {path: md5 for path, md5 in self._files.items() if path not in code}

    @property
    def _files(self) -> Mapping[str, str | None]:
        deps = {dep.path: dep.md5 for stage in self.lock.stages.values() for dep in stage.deps}
        return {**deps, **self.outs}

    def options(self, stage: str) -> dict[str, str]:
        """The options of a stage's command and their values. Raises ValueError if it never ran."""
        if stage not in self.lock.stages:
            raise ValueError(f"{self.revision.where(LOCK)}: {stage} has never run; {REMEDY}")
        command = self.lock.stages[stage].cmd
        arguments = shlex.split(command if isinstance(command, str) else command[0])
        return dict(zip(arguments[3::2], arguments[4::2], strict=False))  # python -m MODULE

    def results(self) -> list[str]:
        """The paths of the metrics, of the predictions and of the validation metrics.

        Empty if nothing was measured yet. Raises ValueError if `evaluate` and `train` made none.
        """
        if not self.lock.stages:
            return []
        options = [("evaluate", "--metrics"), ("evaluate", "--predictions"), ("train", "--metrics")]
        return [self._output(stage, option) for stage, option in options]

    def _output(self, stage: str, option: str) -> str:
        path = self.options(stage).get(option, f"the {option[2:]} of {stage}")
        if path in self.outs:
            return path
        raise ValueError(f"{self.revision.where(LOCK)}: no stage has made {path}; {REMEDY}")

    def check(self) -> None:
        """Raise ValueError unless the files in git are the ones that dvc.lock records.

        Checked are the results, the code, params and commands that made them, and that each stage
        read what the stages before it made. Data that only DVC's cache holds is not read.
        """
        stale = [*self._stale_stages(), *self._stale_files()]
        if stale:
            more = f" and {len(stale) - 3} more" if len(stale) > 3 else ""
            first = ", ".join(line[:200] for line in stale[:3])
            raise ValueError(f"{self.revision.where(LOCK)} is out of date: {first}{more}; {REMEDY}")

    def _stale_stages(self) -> Iterator[str]:
        for name, stage in self.pipeline.stages.items():
            if name not in self.lock.stages:
                yield f"{name} has never run"
            elif stage.cmd != self.lock.stages[name].cmd:
                yield f"the command of {name} has changed"
        for recorded in self.lock.stages.values():
            for path, params in recorded.params.items():
                found = load_yaml(self.revision, path)
                for key, value in params.items():
                    if not equal(_lookup(found, key), value):
                        yield f"{key} in {path} has changed"

    def _stale_files(self) -> Iterator[str]:
        for path, md5 in self.code.items():
            if md5 is not None and self._md5(path) != md5:
                yield f"{path} has changed"
        for name, stage in self.lock.stages.items():
            for dep in stage.deps:
                if self.outs.get(dep.path, dep.md5) != dep.md5:
                    yield f"{dep.path} has changed since {name} read it"
        for path in self.results():
            if self._md5(path) != self.outs[path]:
                yield f"{path} is not the recorded file"

    def _md5(self, path: str) -> str | None:
        content = self.revision.read(path)
        return None if content is None else hashlib.md5(content, usedforsecurity=False).hexdigest()


def load_yaml(revision: Revision, path: str) -> Any:
    """The document at `path`, None if there is no file. Raises ValueError if it is not YAML."""
    content = revision.read(path)
    return None if content is None else _parsed(content, revision.where(path))


@cache  # PyYAML is slow
def _parsed(content: bytes, where: str) -> Any:
    if len(content) > MAX_BYTES:
        raise ValueError(f"{where}: found more than {MAX_BYTES:,} bytes of YAML")
    return bounded(parse_yaml(content, where), where)


def bounded(document: Any, where: str) -> Any:
    """`document` itself. Raises ValueError if it is too large, as aliases in YAML can make it."""
    level, size = [document], 1
    for _ in range(MAX_DEPTH):
        inner = [
            v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list)
        ]
        size += sum(map(len, inner))
        if not inner:
            return document
        if size > MAX_VALUES:
            break
        level = [value for values in inner for value in values]
    raise ValueError(
        f"{where}: found more than {MAX_VALUES:,} values, or more than {MAX_DEPTH} levels"
    )


def load_params(revision: Revision) -> dict[str, Any]:
    """All values in params.yaml, by their full names; raises as `load_yaml` and `flat` do."""
    document = load_yaml(revision, PARAMS)
    return flat(document, revision.where(PARAMS)) if isinstance(document, dict) else {}


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


def flat(document: Mapping[str, Any], where: str, prefix: str = "") -> dict[str, Any]:
    """The values of nested objects by dotted name, such as `recall.8`.

    Raises ValueError, which names the file `where`, if two of them have the same name.
    """
    values: dict[str, Any] = {}
    for name, value in document.items():
        full = f"{prefix}{name}"
        inner = flat(value, where, f"{full}.") if isinstance(value, dict) else {full: value}
        if values.keys() & inner.keys():
            raise ValueError(f"{where}: found {full[:40]!r} twice")
        values |= inner
    return values


def _lookup(document: Any, key: str) -> Any:
    """The value under `key`, which may be dotted, or None."""
    if isinstance(document, dict) and key in document:
        return document[key]
    for part in key.split("."):
        document = document.get(part) if isinstance(document, dict) else None
    return document


def equal(one: Any, other: Any) -> bool:
    """Whether two values in YAML are the same; true is not 1, though Python says so."""
    if isinstance(one, list) and isinstance(other, list):
        one, other = dict(enumerate(one)), dict(enumerate(other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
