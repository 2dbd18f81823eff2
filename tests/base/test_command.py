import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

MODULE = '''
import signal, sys, time
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
        case "lines":
            while True: print("line")
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
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path, what: str, code: int, stderr: str
) -> None:
    process = start(tmp_path, "--what", what)
    assert process.communicate()[1] == stderr
    assert process.returncode == code


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


def test_help_shows_what_a_command_does_its_options_and_its_params(tmp_path: Path) -> None:
    text = start(tmp_path, "--help").communicate()[0]
    for part in ("Do one thing.", "And explain it.", "what goes wrong", "size  of the example"):
        assert part in text


def test_the_error_for_a_missing_option_names_it(tmp_path: Path) -> None:
    process = start(tmp_path)
    assert "Missing option '--what'" in process.communicate()[1]
    assert process.returncode == 2


def test_a_closed_output_pipe_prints_no_error(tmp_path: Path) -> None:
    with start(tmp_path, "--what", "lines") as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "line\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 128 + signal.SIGPIPE
