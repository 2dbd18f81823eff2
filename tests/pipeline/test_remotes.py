"""Pictures and results travel through a DVC remote: an owner pushes, a colleague pulls."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from moto.server import ThreadedMotoServer

from tests.conftest import ROOT
from tests.pipelines import commit, run, stages_run


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a folder in an S3 bucket, on a server of the test's own."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    (tmp_path / "empty").touch()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "owner",
        "AWS_CONFIG_FILE": str(tmp_path / "empty"),
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "empty"),
        "no_proxy": host,
    }.items():
        monkeypatch.setenv(name, value)
    requests.put(f"{os.environ['AWS_ENDPOINT_URL']}/pictures", timeout=60).raise_for_status()
    yield "s3://pictures/animals"
    server.stop()


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty DVC remote."""
    return str(request.getfixturevalue("s3") if request.param == "s3" else tmp_path / "storage")


def clone_of(pipeline: Path) -> Path:
    clone = pipeline.with_name("a colleague's clone")
    run(pipeline, "git", "clone", "--quiet", ".", str(clone))
    return clone


def test_a_colleague_who_pulls_has_the_owners_pictures_and_model_and_need_run_nothing(
    pipeline: Path, remote: str
) -> None:
    run(pipeline, "dvc", "remote", "add", "--default", "storage", remote)
    commit(pipeline)
    run(pipeline, "dvc", "push")

    clone = clone_of(pipeline)
    run(clone, "dvc", "pull")
    assert stages_run(run(clone, "dvc", "repro")) == []
    assert run(clone, "git", "status", "--short") == ""
    command = ("python", "-m", "stages.predict", "pictures/animals")
    assert run(clone, *command) == run(pipeline, *command)
    assert run(clone, *command).count("\n") == 60


def fails(folder: Path, *command: str, exits: int) -> str:
    """Run a command that must fail; what it writes to standard error."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PATH": programs},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == exits, result.stdout + result.stderr
    return result.stderr


def pretend_to_install(clone: Path) -> None:
    """The programs of this interpreter, as if make had installed them into .venv."""
    (clone / ".venv").mkdir()
    (clone / ".venv/bin").symlink_to(Path(sys.executable).parent)
    shutil.copy(ROOT / "requirements.lock", clone)
    shutil.copy(ROOT / "requirements.lock", clone / ".venv/installed.lock")
    shutil.copy(ROOT / "Makefile", clone)


def test_a_clone_without_the_pictures_says_so_and_how_to_get_them(pipeline: Path) -> None:
    clone = clone_of(pipeline)
    pretend_to_install(clone)
    missing = (
        "error: pictures/animals is not here, though pictures/animals.dvc records it;"
        " `dvc pull` fetches it if a remote has it"
    )
    assert fails(clone, "make", "repro", exits=2).startswith(f"{missing} (docs/remotes.md)\n")
    verify = ("python", "-m", "stages.verify", "native-1-thread")
    assert fails(clone, *verify, exits=2) == f"{missing}\n"
    predict = ("python", "-m", "stages.predict", "x.png")
    assert fails(clone, *predict, exits=2).startswith("error: data/model.safetensors: no such file")
    assert "missing data 'source': pictures/animals" in fails(clone, "dvc", "repro", exits=255)
    assert fails(clone, "dvc", "repro", "--single-item", "download", exits=255).startswith(
        "error: params.yaml: download.dataset: found 'pictures/animals'; expected pictures that are"
        " here: `dvc pull pictures/animals.dvc` fetches them\n"
    )


def ci(clone: Path) -> tuple[int, str]:
    """Run .ci/run, whose checks and tests do nothing but say that they ran."""
    (clone / ".ci").mkdir(exist_ok=True)
    shutil.copy(ROOT / ".ci/run", clone / ".ci")
    programs = clone.with_name("programs")
    programs.mkdir(exist_ok=True)
    for name in ("make", "chromium"):
        (programs / name).write_text('#!/bin/sh\necho "making $1"\n')
        (programs / name).chmod(0o755)
    result = subprocess.run(
        ["bash", ".ci/run"],
        cwd=clone,
        env=os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    return result.returncode, result.stdout


def test_ci_reproduces_the_results_from_pulled_pictures_and_says_if_no_remote_has_them(
    pipeline: Path, tmp_path: Path
) -> None:
    clone = clone_of(pipeline)
    pretend_to_install(clone)
    code, output = ci(clone)
    assert (code, output.splitlines()[:3]) == (0, ["making check", "making test", "making fuzz"])
    assert output.splitlines()[3].startswith("note: the committed results were not reproduced: ")

    run(pipeline, "dvc", "remote", "add", "--default", "storage", str(tmp_path / "storage"))
    commit(pipeline)
    run(clone, "git", "pull", "--quiet")
    code, output = ci(clone)
    assert code == 1, "a remote without the pictures"
    assert "making repro" not in output
    run(pipeline, "dvc", "push", "--quiet")
    assert ci(clone) == (0, "making check\nmaking test\nmaking fuzz\nmaking repro\n")
    assert (clone / "pictures/animals").is_dir()
