"""Copies of this pipeline in git repositories of their own, and commands run there.

A copy has params, pictures and a DVC configuration of the tests' own: the repository's belong to
whoever works in it.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from filelock import FileLock
from PIL import Image

from tests.conftest import ROOT

PARAMS = ROOT / "tests/pipeline/params.yaml"
DVC_CONFIG = """\
[core]
    analytics = false
    check_update = false
[cache]
    type = "reflink,hardlink,copy"
[plots]
    html_template = plots/page.html
"""  # without the remotes and the shared cache that a fork may have
OWN_PICTURES = """\
make pictures FROM=~/animals
git add . && git commit -m "A model of my animals"
"""  # as in the documentation


def run(folder: Path, *command: str, **environment: str) -> str:
    """Run a command that must succeed, with this interpreter's programs first on the PATH."""
    variables = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_SITE_CACHE_DIR": str(folder / ".dvc/tmp/site"),  # else in /var/tmp, for good
    }
    result = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | variables | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    output = result.stdout + result.stderr
    if result.returncode:
        raise AssertionError(f"{command} exited {result.returncode}:\n{output}")
    return output


def stages_run(output: str) -> list[str]:
    return re.findall(r"^Running stage '(\w+)'", output, re.MULTILINE)


def copy_of_the_pipeline(folder: Path, *, own_params_and_pictures: bool = True) -> Path:
    """The files that the pipeline consists of, in a git repository of their own.

    Unless `own_params_and_pictures`, params.yaml, pictures/ and .dvc/config are the repository's.
    """
    folder.mkdir()
    for name in ("stages", "data/.gitignore", ".dvc/.gitignore", ".dvc/plots"):
        source, target = ROOT / name, folder / name
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", ".gitattributes"):
        shutil.copy(ROOT / name, folder / name)
    if own_params_and_pictures:
        shutil.copy(PARAMS, folder / "params.yaml")
        (folder / ".dvc/config").write_text(DVC_CONFIG)
        (folder / "pictures").mkdir()
        (folder / "pictures/README.md").write_text("Put your pictures here.\n")
    else:
        shutil.copy(ROOT / "params.yaml", folder)
        shutil.copy(ROOT / ".dvc/config", folder / ".dvc")
        shutil.copytree(ROOT / "pictures", folder / "pictures")
    run(folder, "git", "init", "--quiet", "--initial-branch=main")
    run(folder, "git", "config", "user.name", "Test")
    run(folder, "git", "config", "user.email", "test@example.org")
    run(folder, "git", "config", "gc.auto", "0")
    return folder


def commit(folder: Path) -> None:
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "state")


def set_params(folder: Path, values: Mapping[str, Any]) -> None:
    """Change params.yaml: `{"train.seed": 1}`."""
    path = folder / "params.yaml"
    document = yaml.safe_load(path.read_text())
    for name, value in values.items():
        section, key = name.split(".")
        assert key in document[section], name
        document[section][key] = value
    path.write_text(yaml.safe_dump(document, sort_keys=False))


def built_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """The folder `name`, built by the first of pytest-xdist's workers that asks for it.

    No test may change it: others read it at the same time.
    """
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # of all workers of this session
    folder, unfinished = shared / name, shared / f"{name}, unfinished"
    with FileLock(shared / f"{name}.lock"):
        if not folder.is_dir():
            shutil.rmtree(unfinished, ignore_errors=True)
            build(unfinished)
            unfinished.rename(folder)
    return folder


def build_tiny_pipeline(folder: Path) -> None:
    """Do as the documentation says, in a path with a space, with about 60 drawn pictures."""
    copy_of_the_pipeline(folder)
    commit(folder)
    home = folder.with_name("home of the tiny pipeline")
    draw_animals(home / "animals")
    first, second = OWN_PICTURES.splitlines()
    without_make = first.replace("make pictures FROM=", "python -m stages.pictures ")
    run(folder, "sh", "-c", without_make, HOME=str(home))
    few = {"train.iterations": 30, "train.eval_every": 10, "tensorize.validation": 0.1}
    set_params(folder, few)
    run(folder, "dvc", "repro")
    run(folder, "sh", "-c", second, HOME=str(home))


def copy_of_the_tiny_pipeline(factory: pytest.TempPathFactory, folder: Path) -> Path:
    """A copy to change at will of a pipeline that has run, and is committed.

    It has three classes of pictures in pictures/animals, which DVC tracks; none of its stages takes
    longer than its imports.
    """
    shutil.copytree(
        built_once(factory, "a tiny pipeline", build_tiny_pipeline), folder, symlinks=True
    )
    return folder


def draw_animals(folder: Path, pictures_per_class: int = 20) -> None:
    """Colour pictures of three classes in many formats, modes and sizes."""
    random = np.random.default_rng(0)
    for channel, name in enumerate(("猫 咪", "a dog", "Äpfel")):
        (folder / name).mkdir(parents=True)
        for i in range(pictures_per_class):
            height, width = random.integers(20, 90, 2)
            pixels = random.integers(0, 120, (height, width, 3), dtype=np.uint8)
            pixels[..., channel] += 120
            save_in_some_format(Image.fromarray(pixels), folder / name / f"图片 {i:02}", i)


def save_in_some_format(image: Image.Image, path: Path, which: int) -> None:
    match which % 10:
        case 0:
            image.save(f"{path}.jpg")
        case 1:
            image.save(f"{path}.webp")
        case 2:
            image.save(f"{path}.gif")
        case 3:
            image.quantize(64).save(f"{path}.png")
        case 4:
            image.convert("CMYK").save(f"{path}.JPEG")
        case 5:
            image.putalpha(200)
            image.save(f"{path}.png")
        case 6:
            image.quantize(64).save(f"{path}.png", transparency=0)
        case 7:
            image.save(f"{path}.tif")
        case 8:
            image.save(f"{path}.bmp")
        case _:
            image.save(f"{path}.png")
