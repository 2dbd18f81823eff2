"""Who may import whom: commands, what they are made of, formats, base; and torch for training."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

FILES = sorted((ROOT / "stages").rglob("*.py"))
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
COMMANDS = {
    *(name for name, path in MODULES.items() if path.parent.name == "stages"),
    *("stages.gate.__main__", "stages.gate.best"),
} - {"stages.__init__"}
# What each package may import, besides itself; a command may import them all.
ALLOWED = {
    "base": [],
    "formats": ["base"],
    "images": ["formats", "base"],
    "sources": ["formats", "base", "images.folders"],
    "training": ["formats", "base"],
    "report": ["formats", "base"],
    "gate": ["formats", "base"],
}
FREE_OF_TORCH = ["download", "tensorize", "evaluate", "predict", "gate.__main__"]


def imports_of(path: Path) -> set[str]:
    """The names of the modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: found a relative import"
            within = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (within & MODULES.keys()) or {str(node.module)}
    return found


def is_within(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"stages.{package}.")


def forbidden(module: str, imported: str) -> bool:
    """Whether `module` may not import `imported`, both of ours."""
    if imported in COMMANDS:
        return imported != module
    if module in COMMANDS:
        return False
    package = module.split(".")[1]
    return not any(is_within(imported, other) for other in [package, *ALLOWED[package]])


def test_modules_import_only_what_stands_below_them() -> None:
    assert {path.parent.name for path in FILES} == {"stages", *ALLOWED}
    assert [
        f"{module} imports {imported}"
        for module, path in MODULES.items()
        for imported in sorted(imports_of(path))
        if imported.split(".")[0] == "stages" and forbidden(module, imported)
    ] == []


def test_only_training_imports_torch() -> None:
    users = {
        module
        for module, path in MODULES.items()
        if any(
            name.split(".")[0] == "torch" or name == "safetensors.torch"
            for name in imports_of(path)
        )
    }
    of_training = {module for module in MODULES if is_within(module, "training")}
    assert users <= of_training | {"stages.train", "stages.explain", "stages.verify"}


@pytest.mark.parametrize("command", FREE_OF_TORCH)
def test_a_command_that_trains_nothing_loads_no_torch(command: str) -> None:
    code = f"import sys, stages.{command}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
