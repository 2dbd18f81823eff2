"""Whether training and evaluation on 64-bit Arm, emulated, make the files that they make here.

`python -m benchmarks.aarch64 FOLDER`, as root, in the root of the repository, after `dvc repro`.
It needs Debian's packages debootstrap and qemu-user-static, and 1 GB in FOLDER. QEMU's user mode
executes the instructions of the Arm libraries and rounds as IEEE 754 says: it shows what they
compute, not how fast.
"""

import hashlib
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from typer import Argument

from benchmarks.tables import markdown
from stages.base.command import run

STAGES = ("train", "evaluate")
DEBIAN, PYTHON = "bookworm", "3.11"
# The last release whose wheel for Arm on the package index is a CPU build. The locked one is a CUDA
# build there, which cannot be imported without CUDA's libraries.
TORCH = "2.9.1"


def install_debian(folder: Path) -> None:
    """Unpack Python and its libraries for Arm; emulated programs need no system that boots."""
    command = ["debootstrap", "--foreign", "--arch=arm64", "--variant=minbase"]
    packages = f"--include=python{PYTHON},libgomp1,libstdc++6"
    subprocess.run([*command, packages, DEBIAN, str(folder)], check=True)
    for package in folder.glob("var/cache/apt/archives/*.deb"):
        subprocess.run(["dpkg-deb", "--extract", str(package), str(folder)], check=True)


def install_packages(folder: Path) -> None:
    """Install for Arm what the stages import, as locked, but torch of TORCH."""
    lock = Path("requirements.lock").read_text(encoding="utf-8")
    constraints = folder.with_name("constraints.txt")
    constraints.write_text(re.sub(r"^torch==.*\n( .*\n)*", "", lock, flags=re.M), encoding="utf-8")
    command = ["uv", "pip", "install", "--only-binary", ":all:", "--target", str(folder)]
    platform = ["--python-platform", "aarch64-manylinux_2_28", "--python-version", PYTHON]
    packages = ["-r", "pyproject.toml", f"torch=={TORCH}", "--constraints", str(constraints)]
    subprocess.run([*command, *platform, *packages], check=True)


def run_emulated(command: str, debian: Path, packages: Path, folder: Path) -> None:
    """Run a stage's command in `folder`."""
    python, *arguments = shlex.split(command)
    emulator = ["qemu-aarch64-static", "-L", str(debian), str(debian / f"usr/bin/{python}{PYTHON}")]
    variables = {
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(packages),
    }
    subprocess.run([*emulator, *arguments], cwd=folder, env=os.environ | variables, check=True)


def files_of(stage: dict[str, Any]) -> Iterator[Path]:
    """The files that a stage of dvc.yaml makes, as they are in the working tree."""
    for key in ("outs", "metrics", "plots"):
        for out in stage.get(key, []):
            path = Path(out if isinstance(out, str) else next(iter(out)))
            yield from sorted(path.iterdir()) if path.is_dir() else [path]


def main(
    folder: Annotated[Path, Argument(help="a new folder for the Arm system and its results")],
) -> None:
    """Train and evaluate on emulated Arm, and compare with the working tree's files.

    Exit codes: 0 all files are equal; 1 one differs; 2 bad input.
    """
    stages = [yaml.safe_load(Path("dvc.yaml").read_text())["stages"][name] for name in STAGES]
    files = [file for stage in stages for file in files_of(stage)]
    here = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    debian, packages, run_in = (folder.resolve() / name for name in ("debian", "packages", "run"))
    (run_in / "data").mkdir(parents=True)
    for path in ("stages", "params.yaml", "data/tensors"):
        (run_in / path).symlink_to(Path(path).resolve())
    install_debian(debian)
    install_packages(packages)
    for stage in stages:
        run_emulated(stage["cmd"], debian, packages, run_in)
    there = [hashlib.sha256((run_in / file).read_bytes()).hexdigest() for file in files]
    rows = [(str(file), a[:12], b[:12]) for file, a, b in zip(files, here, there, strict=True)]
    print(markdown(("SHA-256, first 12 digits", "here", "on Arm"), rows))
    if here != there:
        raise typer.Exit(1)


if __name__ == "__main__":
    run(main)
