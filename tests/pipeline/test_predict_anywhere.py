"""The installed command `logreg-predict`, with its dependencies alone, in a folder of its own."""

import shutil
import subprocess
from email.parser import HeaderParser
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

from stages.formats.input_spec import InputSpec
from stages.formats.model_file import Model
from stages.images.inputs import feature_count
from stages.report.page import FILES
from tests.conftest import ROOT
from tests.pipelines import run

pytestmark = pytest.mark.slow
PIP = ("python", "-m", "pip", "--disable-pip-version-check", "--quiet")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built offline from a copy: setuptools leaves files where it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "stages", folder / "source/stages")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    run(folder, *PIP, "wheel", "--no-deps", "--no-build-isolation", "./source")
    (path,) = folder.glob("*.whl")
    return path


def required_by(wheel: Path) -> set[str]:
    """The names of the packages that pip installs with a wheel, if no extra is asked for."""
    with ZipFile(wheel) as file:
        (path,) = [name for name in file.namelist() if name.endswith(".dist-info/METADATA")]
        about = HeaderParser().parsestr(file.read(path).decode())
    found: set[str] = set()
    todo = list(map(Requirement, about.get_all("Requires-Dist", [])))
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name not in found and (not requirement.marker or requirement.marker.evaluate()):
            found.add(name)
            todo += map(Requirement, distribution(name).requires or [])
    return found


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """A virtual environment with the wheel and what it requires, linked from the tests' own."""
    folder = tmp_path_factory.mktemp("environment")
    run(folder, "python", "-m", "venv", "--without-pip", ".")
    (site,) = folder.glob("lib/python*/site-packages")
    for name in required_by(wheel):
        for entry in {file.parts[0] for file in distribution(name).files or []}:
            if entry not in ("..", "__pycache__"):
                (site / entry).symlink_to(str(distribution(name).locate_file(entry)))
    pip = (*PIP, "--python", str(folder / "bin/python"))
    run(folder, *pip, "install", "--no-deps", "--no-index", str(wheel))
    run(folder, *pip, "check")
    return folder


def predict(environment: Path, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [environment / "bin/logreg-predict", *arguments],
        cwd=folder,
        env={"PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("option", [("--model", "a model.safetensors"), ()], ids=["model", "none"])
def test_the_installed_command_answers_in_any_folder_without_dvc_and_torch(
    environment: Path, tmp_path: Path, option: tuple[str, ...]
) -> None:
    spec = InputSpec(1, 28, 28, deskew=True, features="gradients")
    weight = np.zeros((2, feature_count(spec)))
    Model(weight, np.array([0.0, np.log(3)]), ("cat", "dog"), spec).save(
        tmp_path / "a model.safetensors"
    )
    (tmp_path / "dvc.yaml").write_text(
        "artifacts: {mine: {path: a model.safetensors, type: model}}\n"
    )
    Image.radial_gradient("L").save(tmp_path / "x.jpg")
    result = predict(environment, tmp_path, "x.jpg", *option)
    assert (result.returncode, result.stdout, result.stderr) == (0, "x.jpg: dog 75.00%\n", "")
    installed = {path.name for path in environment.glob("lib/python*/site-packages/*")}
    assert {"stages", "numpy", "PIL"} <= installed
    assert not {"dvc", "torch", "tqdm"} & installed


def test_the_installed_command_says_in_one_line_that_it_has_no_model(
    environment: Path, tmp_path: Path
) -> None:
    result = predict(environment, tmp_path, "x.jpg")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "error: --model: found none, and no dvc.yaml in this folder that names one;"
        " expected the file that `train` wrote, such as --model model.safetensors\n"
    )


def test_the_wheel_has_the_files_of_the_page(wheel: Path) -> None:
    with ZipFile(wheel) as file:
        paths = map(Path, file.namelist())
        assert sorted(p.name for p in paths if p.parent.name == "page_assets") == sorted(FILES)
