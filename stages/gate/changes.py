"""What besides the metrics differs between a base and the working tree: params, code and data."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from stages.gate.lockfile import PIPELINE, Lockfile, equal, load_params
from stages.gate.revisions import WORKING_TREE, Revision, last_line
from stages.gate.rules import SECTION

PACKAGES = "requirements.lock"

# By name, the value at the base and now; None on a side that has none.
Differences: TypeAlias = dict[str, tuple[Any, Any]]


@dataclass(frozen=True)
class Changes:
    """params, rules: by key of params.yaml, the rules being the gate's own.  code: paths.

    data: MD5 of what the stages made, and of the folders they read, by path.
    """

    params: Differences
    rules: Differences
    code: list[str]
    data: Differences


def what_changed(base: Revision) -> Changes:
    """The differences from `base` to the working tree.

    Code means the files that the stages read from git, the pipeline and the locked packages.
    """
    before, after = Lockfile.load(base), Lockfile.load(WORKING_TREE)
    params = differences(load_params(base), load_params(WORKING_TREE))
    rules = {name: values for name, values in params.items() if name.startswith(f"{SECTION}.")}
    return Changes(
        params={name: values for name, values in params.items() if name not in rules},
        rules=rules,
        code=list(differences(_code(before), _code(after))),
        data=differences(before.data, after.data),
    )


def differences(base: Mapping[str, Any], now: Mapping[str, Any]) -> Differences:
    """The entries that differ, sorted by name."""
    return {
        name: (base.get(name), now.get(name))
        for name in sorted(base.keys() | now.keys())
        if not equal(base.get(name), now.get(name))
    }


def modified_data() -> list[str]:
    """The outputs in the working tree that dvc.lock does not record, sorted.

    Outputs that are not here are not listed: a clone need not hold the data. Raises OSError if DVC
    cannot tell.
    """
    command = [sys.executable, "-m", "dvc", "data", "status", "--json"]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if result.returncode:
        raise OSError(f"dvc data status: {last_line(result)}")
    status = json.loads(result.stdout or b"{}")
    return sorted(status.get("uncommitted", {}).get("modified", []))


def _code(lockfile: Lockfile) -> dict[str, Any]:
    in_git = {path: lockfile.revision.read(path) for path in (PIPELINE, PACKAGES)}
    return {**lockfile.code, **in_git}
