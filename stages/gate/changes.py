"""What besides the metrics differs between a base and the working tree: params, code and data."""

from dataclasses import dataclass
from typing import Any

from stages.gate.dvc_commands import params_diff
from stages.gate.lockfile import PIPELINE, Lockfile
from stages.gate.revisions import WORKING_TREE, Revision
from stages.gate.rules import SECTION

PACKAGES = "requirements.lock"
RULES = f"{SECTION}."


@dataclass(frozen=True)
class Change:
    """A value at the base and now; None on a side that has none."""

    name: str
    base: Any
    now: Any


@dataclass(frozen=True)
class Changes:
    """params, rules: by key of params.yaml, the rules being the gate's own.  code: paths.

    data: MD5 of what the stages made, and of the folders they read, by path.
    """

    params: list[Change]
    rules: list[Change]
    code: list[str]
    data: list[Change]


def what_changed(base: Revision) -> Changes:
    """The differences from `base` to the working tree, sorted by name.

    Code means the files that the stages read from git, the pipeline and the locked packages.
    Raises OSError if `dvc params diff` fails.
    """
    params = _params_diff(base)
    before, after = Lockfile.load(base), Lockfile.load(WORKING_TREE)
    code = {
        path
        for path in (before.code.keys() | after.code.keys())
        if before.code.get(path) != after.code.get(path)
    }
    code |= {path for path in (PIPELINE, PACKAGES) if base.read(path) != WORKING_TREE.read(path)}
    return Changes(
        params=[change for change in params if not change.name.startswith(RULES)],
        rules=[change for change in params if change.name.startswith(RULES)],
        code=sorted(code),
        data=[
            Change(path, before.data.get(path), after.data.get(path))
            for path in sorted(before.data.keys() | after.data.keys())
            if before.data.get(path) != after.data.get(path)
        ],
    )


def _params_diff(base: Revision) -> list[Change]:
    files = params_diff(str(base.commit))
    return sorted(
        (
            Change(name, change.get("old"), change.get("new"))
            for changes in files.values()
            for name, change in changes.items()
        ),
        key=lambda change: change.name,
    )
