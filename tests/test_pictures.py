import fcntl
import json
import os
import re
import shutil
import signal
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import stages.pictures as command
from stages.gate.rules import SECTION
from stages.pictures import pictures
from stages.tensorize import TensorizeParams
from stages.training.settings import TrainParams
from tests.conftest import ROOT
from tests.pipelines import PARAMS as TEST_PARAMS
from tests.pipelines import run


@pytest.fixture
def dvc_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The current folder is a pipeline's; calls of DVC are recorded instead of made."""
    repository = tmp_path / "repository"
    (repository / "pictures").mkdir(parents=True)
    (repository / ".dvc").mkdir()
    for name in ("dvc.yaml", ".gitignore"):
        shutil.copy(ROOT / name, repository)
    shutil.copy(TEST_PARAMS, repository / "params.yaml")
    run(repository, "git", "init", "--quiet")
    monkeypatch.chdir(repository)
    calls: list[tuple[str, ...]] = []

    def dvc(*arguments: str, capture_output: bool = False) -> str:
        calls.append(arguments)
        return "{}" if capture_output else ""

    monkeypatch.setattr(command, "dvc", dvc)
    monkeypatch.setattr(command, "report", lambda *_: None)
    return calls


def draw(folder: Path, per_class: int = 5, classes: int = 3, test: int = 0) -> Path:
    """Noise of 12 x 12 pixels, with `test` pictures of each class in a folder test, if any."""
    random = np.random.default_rng(0)
    splits = {"train": per_class, "test": test} if test else {"": per_class}
    for split, number in splits.items():
        for name in range(classes):
            for i in range(number):
                path = folder / split / f"class {name}" / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8)).save(path)
    return folder


def make(source: Path, *, dry_run: bool = False) -> None:
    pictures(source, str(source), dry_run)


def params() -> dict[str, dict[str, object]]:
    return dict(yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8")))


def test_pictures_are_placed_where_git_ignores_them_then_added_and_only_then_the_params_written(
    tmp_path: Path, dvc_calls: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Path("params.yaml").read_text(encoding="utf-8")
    states: list[tuple[str, bool, bool]] = []
    target = Path("pictures/animals")

    def dvc(*arguments: str) -> None:
        unchanged = Path("params.yaml").read_text(encoding="utf-8") == before
        is_ignored = ".png" not in run(Path(), "git", "status", "--short", "--untracked-files=all")
        states.append((arguments[0], target.is_dir() and is_ignored, unchanged))

    monkeypatch.setattr(command, "dvc", dvc)
    make(draw(tmp_path / "animals"))
    assert states == [("add", True, True), ("repro", True, False)]
    assert dvc_calls == []


@pytest.mark.parametrize(
    ("per_class", "classes", "iterations"), [(5, 3, 1000), (2, 199, 1000), (2, 200, 3000)]
)
def test_the_params_written_are_valid_and_suit_the_number_of_pictures(
    tmp_path: Path,
    dvc_calls: list[tuple[str, ...]],
    per_class: int,
    classes: int,
    iterations: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command, "FEW_TRAINED", 400)
    make(draw(tmp_path / "animals", per_class, classes, test=1))
    assert dvc_calls == [("add", "--quiet", "pictures/animals"), ("repro", "--quiet")]
    written = TrainParams.load(Path("params.yaml"), "train")
    assert (written.learning_rate, written.iterations) == (0.004, iterations)
    tensorize = TensorizeParams.load(Path("params.yaml"), "tensorize")
    automatic = tensorize.channels, tensorize.size, tensorize.validation, tensorize.deskew
    assert automatic == ("auto",) * 4
    assert params()["download"] == {"dataset": "pictures/animals"}
    for rule in params()[SECTION].values():
        assert rule in [
            {"better": better, "tolerance": "auto", "alpha": 0.05} for better in ("higher", "lower")
        ]
    found = capsys.readouterr().out.splitlines()
    number = classes * (per_class + 1)
    assert found[0].startswith(f"{tmp_path}/animals: {number:,} pictures, ")
    assert f"classes: {classes}, with {per_class + 1:,} pictures each: class 0, " in found[1]
    assert found[5].startswith(f"to train on: {per_class * classes:,} pictures; to test on: ")


def test_a_second_call_keeps_the_users_params_but_skips_pictures_broken_since(
    tmp_path: Path, dvc_calls: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    source = draw(tmp_path / "animals")
    make(source)
    text = (
        Path("params.yaml").read_text(encoding="utf-8").replace("iterations: 1000", "iterations: 7")
    )
    Path("params.yaml").write_text(text, encoding="utf-8")
    capsys.readouterr()
    make(source)
    assert Path("params.yaml").read_text(encoding="utf-8") == text
    assert "pictures/animals: there already\nparams.yaml: as it is\n" in capsys.readouterr().out
    (source / "class 0/broken.png").touch()
    Path("pictures/animals.dvc").touch()
    make(source)
    out = capsys.readouterr().out
    assert f"broken: 1, left out: {source}/class 0/broken.png (an empty file)" in out
    assert "params.yaml: tensorize.skip_broken true (was false)\n" in out
    assert params()["train"]["iterations"] == 7
    assert ("status", "--json", "pictures/animals.dvc") in dvc_calls


def test_a_folder_in_pictures_is_used_where_it_is(
    tmp_path: Path, dvc_calls: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    draw(Path("pictures/mine"))
    make(Path("pictures/mine"))
    assert dvc_calls[0] == ("add", "--quiet", "pictures/mine")
    assert "pictures/mine: there already" in capsys.readouterr().out
    assert not list(tmp_path.glob("repository/pictures/.*"))


def test_an_archive_is_unpacked_into_pictures(
    tmp_path: Path, dvc_calls: list[tuple[str, ...]]
) -> None:
    packed = shutil.make_archive(str(tmp_path / "pets"), "zip", draw(tmp_path / "animals"))
    make(Path(packed), dry_run=True)
    assert not list(Path("pictures").iterdir())
    assert dvc_calls == []
    make(Path(packed))
    assert {path.name for path in Path("pictures").iterdir()} == {"pets"}
    assert len(list(Path("pictures/pets").rglob("*.png"))) == 15


def test_a_name_that_cannot_be_printed_is_escaped(
    tmp_path: Path, dvc_calls: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    source = draw(tmp_path / "animals")
    (source / "class 0/\x1b[2J\n.txt").touch()
    make(source, dry_run=True)
    assert "1 other files ignored, such as class 0/\\x1b[2J\\n.txt\n" in capsys.readouterr().out
    assert dvc_calls == []


def test_few_test_pictures_are_said_to_tell_little_and_what_helps(
    tmp_path: Path, dvc_calls: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    make(draw(tmp_path / "held out"), dry_run=True)
    note = "note: 3 test pictures tell little: of a measured accuracy of 80 %, the true one may be"
    assert f"{note} 21% to 94%; add pictures, or test on five" in capsys.readouterr().out
    make(draw(tmp_path / "own test", test=16), dry_run=True)
    assert "note: 48 test pictures tell little" in (out := capsys.readouterr().out)
    assert out.splitlines()[-2].endswith("; add pictures")
    make(draw(tmp_path / "enough", test=17), dry_run=True)
    assert "note: " not in capsys.readouterr().out
    assert dvc_calls == []


Usage = namedtuple("Usage", "free")


@pytest.mark.parametrize(
    ("obstacle", "message"),
    [
        ("untracked", "found other pictures, which would be lost; move them away"),
        ("in git", "in git; take it out with `git rm -r --cached pictures/animals`"),
        ("a file", "found other pictures, which would be lost; move them away"),
        ("running", "another `stages.pictures`, or the DVC that it started, is at work there"),
        ("full disk", "MB free; expected"),
        ("one picture", "class 'class 0': found 1 training and 0 test images"),
        ("params", "params.yaml: tensorize.test: found 2"),
        ("no pipeline", "run this in the repository's folder"),
        ("no option", "found no stage download with the options --watched, --raw; `git checkout"),
        ("no rule", "params.yaml: gate.accuracy: found 'high'; expected a rule"),
        ("no git", "git: fatal: not a git repository"),
    ],
)
def test_an_obstacle_is_named_before_anything_changes(
    tmp_path: Path,
    dvc_calls: list[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
    obstacle: str,
    message: str,
) -> None:
    source = draw(tmp_path / "animals", per_class=1 if obstacle == "one picture" else 5)
    if obstacle in ("untracked", "in git"):
        draw(Path("pictures/animals"), classes=2)
    if obstacle == "in git":
        run(Path(), "git", "add", "--force", "pictures")
    if obstacle == "a file":
        Path("pictures/animals").touch()
    for name, path, old, new in (
        ("params", "params.yaml", "test: 0.2", "test: 2"),
        ("no option", "dvc.yaml", "--watched", "--seen"),
        ("no rule", "params.yaml", "gate:", "gate:\n  accuracy: high\nolder:"),
    ):
        if obstacle == name:
            text = Path(path).read_text(encoding="utf-8")
            Path(path).write_text(text.replace(old, new), encoding="utf-8")
    if obstacle == "no git":
        shutil.rmtree(".git")
    if obstacle == "no pipeline":
        Path("dvc.yaml").unlink()
    if obstacle == "full disk":
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100))
    folder = os.open("pictures", os.O_RDONLY)
    if obstacle == "running":
        fcntl.flock(folder, fcntl.LOCK_EX)
    before = sorted(str(path) for path in Path().rglob("*"))
    params_before = Path("params.yaml").read_bytes()
    try:
        with pytest.raises((OSError, ValueError), match=re.escape(message)) as error:
            make(source)
    finally:
        os.close(folder)
    assert "\n" not in str(error.value)
    assert sorted(str(path) for path in Path().rglob("*")) == before
    assert Path("params.yaml").read_bytes() == params_before
    assert [call[0] for call in dvc_calls] == []


def test_a_process_that_dvc_left_behind_keeps_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nsleep 600 > /dev/null 2>&1 & echo $!\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with command.only_one(tmp_path):
        left_behind = int(command.dvc("repro", capture_output=True))
    try:
        with pytest.raises(OSError, match="is at work there"), command.only_one(tmp_path):
            pass
    finally:
        os.kill(left_behind, signal.SIGKILL)


@pytest.mark.parametrize(
    ("interpreter", "shown"), [(".venv/bin/python", ".venv/bin/python"), ("../python", "python")]
)
def test_the_report_has_the_accuracies_with_their_intervals_and_the_next_steps(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    interpreter: str,
    shown: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", os.path.normpath(tmp_path / interpreter))
    rows = ["a,a"] * 8 + ["a,b"] * 2 + ["b,b"] * 3 + ["b,a"]
    (tmp_path / "p.csv").write_text("\n".join(["actual,predicted", *rows]))
    values = {"accuracy": 11 / 14, "balanced_accuracy": 0.775, "baseline_accuracy": 10 / 14}
    (tmp_path / "m.json").write_text(json.dumps(values))
    command.report(tmp_path / "m.json", tmp_path / "p.csv", Path("page.html"))
    assert capsys.readouterr().out.splitlines() == [
        "accuracy 78.6% (95 % interval: 52.4% to 92.4%) of 14 test pictures; 71.4% if the answer is"
        " always the most frequent class",
        "balanced accuracy 77.5% (50.2% to 90.0%), the mean over the classes; 50.0% for that"
        " answer",
        "look at page.html, then:",
        "  git add . && git commit -m 'A model of my pictures'",
        f"  {shown} -m stages.predict NEW_PICTURES",
    ]
