"""What DVC itself says of the working tree, by its commands' JSON."""

import json
import subprocess
import sys
from typing import Any

from stages.gate.revisions import last_line


def params_diff(commit: str) -> dict[str, dict[str, dict[str, Any]]]:
    """The params that differ since `commit`, {file: {name: {"old", "new"}}}. Raises OSError."""
    return _json("params", "diff", "--json", commit)


def modified_data() -> list[str]:
    """The outputs in the working tree that dvc.lock does not record, sorted. Raises OSError.

    Outputs that are not here are not listed: a clone need not hold the data.
    """
    return sorted(_json("data", "status", "--json").get("uncommitted", {}).get("modified", []))


def _json(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "dvc", *arguments]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    # DVC leaves out what it cannot read, with a warning and exit code 0.
    if result.returncode or b"failed to load params" in result.stderr:
        raise OSError(f"dvc {arguments[0]} {arguments[1]}: {last_line(result)}")
    document: dict[str, Any] = json.loads(result.stdout or b"{}")
    return document
