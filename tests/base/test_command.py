import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

MODULE = r'''
import atexit, os, signal, sys, time
from pathlib import Path
from typing import Annotated
from pydantic import Field
from typer import Option
from stages.base.command import run
from stages.base.params import Params

class ExampleParams(Params):
    size: int = Field(description="of the example")

def main(what: Annotated[str, Option(help="what goes wrong")]) -> None:
    """Do one thing.

    And explain it.
    """
    match what:
        case "nothing": print("done")
        case "value": raise ValueError("size: found 0; expected more")
        case "file": Path("/nowhere/at all").read_text()
        case "long": raise ValueError("a word: " + "x" * 20_000 + " words: " + "y " * 20_000)
        case "control": raise ValueError("a: \x1b[31m\n\udcff")
        case "control file": Path("/nowhere/\x1b\n").read_text()
        case "files": print(os.open(os.devnull, os.O_RDONLY) > 2)
        case "lines":
            while True: print("line")
        case "exit 2" | "exit 15": atexit.register(os.kill, os.getpid(), int(what[5:]))
        case "defect": raise RuntimeError("a defect")
        case "wait":
            print("waiting", flush=True)
            try:
                time.sleep(60)
            finally:
                print("cleaned up", flush=True)

run(main, ExampleParams)
'''


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    module = tmp_path / "example.py"
    module.write_text(MODULE)
    return subprocess.Popen(
        [sys.executable, str(module), *arguments],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("what", "code", "stderr"),
    [
        ("nothing", 0, ""),
        ("value", 2, "error: size: found 0; expected more\n"),
        ("file", 2, "error: /nowhere/at all: No such file or directory\n"),
        ("control", 2, "error: a: \\x1b[31m\\n\\udcff\n"),
        ("control file", 2, "error: /nowhere/\\x1b\\n: No such file or directory\n"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path, what: str, code: int, stderr: str
) -> None:
    process = start(tmp_path, "--what", what)
    assert process.communicate()[1] == stderr
    assert process.returncode == code


def test_a_message_that_repeats_a_long_input_is_cut(tmp_path: Path) -> None:
    errors = start(tmp_path, "--what", "long").communicate()[1]
    assert errors.startswith("error: a word: " + "x" * 150 + "[...]" + "x" * 150 + " words: y y ")
    assert errors.endswith("y y y \n")
    assert len(errors) < 2100


@pytest.mark.parametrize(
    ("what", "redirections", "code"),
    [
        ("nothing", ">&-", 0),
        ("nothing", ">&- 2>&- <&-", 0),
        ("value", "2>&-", 2),
        ("value", ">&- 2>&- <&-", 2),
        ("value", "2>/dev/full", 2),
        ("nothing", ">/dev/full", 2),
    ],
)
def test_closed_or_full_standard_streams_give_the_same_exit_code_and_no_traceback(
    tmp_path: Path, what: str, redirections: str, code: int
) -> None:
    (tmp_path / "example.py").write_text(MODULE)
    result = subprocess.run(
        [
            "/bin/sh",
            "-c",
            f'"$@" {redirections}',
            "sh",
            sys.executable,
            "example.py",
            "--what",
            what,
        ],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == code
    assert result.stdout == ""
    assert result.stderr == (
        "error: No space left on device\n" if redirections == ">/dev/full" else ""
    )


def test_a_file_does_not_get_the_place_of_a_closed_standard_stream(tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(MODULE)
    command = [
        "/bin/sh",
        "-c",
        '"$@" 2>&- <&-',
        "sh",
        sys.executable,
        "example.py",
        "--what",
        "files",
    ]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    assert subprocess.check_output(command, cwd=tmp_path, env=environment) == b"True\n"


def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    process = start(tmp_path, "--what", "defect")
    assert "Traceback" in process.communicate()[1]
    assert process.returncode == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_stage_cleans_up_and_never_exits_0(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = start(tmp_path, "--what", "wait")
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    time.sleep(0.1)  # into the sleep
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == code
    assert out == "cleaned up\n"
    assert "Traceback" not in err


def test_ctrl_c_while_a_command_imports_prints_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import os; os.kill(os.getpid(), 2)")  # found before typer
    result = subprocess.run(
        [sys.executable, "-m", "stages.shards"],
        cwd=ROOT,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (-signal.SIGINT, b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_command_exits_prints_no_traceback(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = start(tmp_path, "--what", f"exit {number}")
    assert process.communicate() == ("", "")
    assert process.returncode == -number


def test_help_shows_what_a_command_does_its_options_and_its_params(tmp_path: Path) -> None:
    text = start(tmp_path, "--help").communicate()[0]
    for part in ("Do one thing.", "And explain it.", "what goes wrong", "size  of the example"):
        assert part in text


def test_the_error_for_a_missing_option_names_it() -> None:
    command = [sys.executable, "-m", "stages.tensorize", "--params", "params.yaml"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "Missing option '--raw'" in result.stderr
    assert result.returncode == 2


def test_a_stage_without_options_says_how_dvc_calls_it() -> None:
    command = [sys.executable, "-m", "stages.tensorize"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "`dvc repro tensorize` runs it" in result.stderr
    prints = ["dvc", "repro", "--dry", "--force", "--single-item", "tensorize"]
    assert shlex.join(prints) in result.stderr
    printed = subprocess.run(prints, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "> python -m stages.tensorize --params params.yaml" in printed


def test_a_closed_output_pipe_prints_no_error(tmp_path: Path) -> None:
    with start(tmp_path, "--what", "lines") as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "line\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 128 + signal.SIGPIPE
