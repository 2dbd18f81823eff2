"""The command, end to end, as DVC runs it."""

import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from stages.download import DownloadParams, download
from stages.sources import DATASETS
from tests.conftest import Serve

ROOT = Path(__file__).parents[1]
FILES = DATASETS["MNIST"].files
FIRST = next(iter(FILES))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """The stage's folder, as an aborted run may leave it: the first file has other content."""
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / FIRST).write_bytes(b"old")
    (tmp_path / "params.yaml").write_text("download:\n  dataset: MNIST\n")
    return raw


def start(raw: Path, mirror: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "stages.download"]
    return subprocess.Popen(
        [*command, "--params", raw.parent / "params.yaml", "--raw", raw],
        cwd=ROOT,
        env=os.environ | {"DATASET_MIRROR": mirror},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def old_content_stands_alone(raw: Path) -> bool:
    return {path.name: path.read_bytes() for path in raw.iterdir()} == {FIRST: b"old"}


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ("download:\n  dataset: MNITS\n", "download.dataset: found 'MNITS'; expected 'MNIST'"),
        ("download:\n  datset: MNIST\n", "did you mean dataset?"),
        ("", "download: missing; expected a section with the keys dataset"),
    ],
    ids=["unknown data set", "unknown key", "no section"],
)
def test_bad_params_are_told_before_anything_is_touched(
    raw: Path, params: str, problem: str
) -> None:
    path = raw.parent / "params.yaml"
    path.write_text(params)
    process = start(raw, mirror="/nowhere")
    out, err = process.communicate()
    assert process.returncode == 2
    assert out == ""
    assert err.startswith(f"error: {path}: ")
    assert problem in err
    assert err.count("\n") == 1
    assert old_content_stands_alone(raw)


def test_a_mirror_with_wrong_bytes_is_told_in_a_line_and_what_stood_stays(
    raw: Path, tmp_path: Path
) -> None:
    mirror = tmp_path / "my mirror"
    mirror.mkdir()
    with (mirror / FIRST).open("wb") as file:
        file.truncate(FILES[FIRST].size)  # the right size, all zeros, and no disk needed
    process = start(raw, str(mirror))
    out, err = process.communicate()
    assert process.returncode == 2
    assert out == f"MNIST: fetching 4 of 4 files from {mirror}\n"
    assert err.startswith(f"error: {mirror / FIRST}: wrong content: expected 47040016 bytes with")
    assert err.endswith("; mend DATASET_MIRROR or unset it\n")
    assert err.count("\n") == 1
    assert old_content_stands_alone(raw)


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b" + bytes(99)], ids=["silent", "half-way"])
@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        (signal.SIGINT, 130, "interrupted: no file was left half-written\n"),
        (signal.SIGTERM, 143, ""),
    ],
)
def test_a_signal_stops_it_with_the_shell_s_code_and_nothing_partial(
    serve: Serve, raw: Path, content: bytes, number: int, code: int, message: str
) -> None:
    def hang(request: BaseHTTPRequestHandler) -> None:
        if content:
            request.send_response(200)
            request.end_headers()
            request.wfile.write(content)
        request.rfile.read(1)  # until the client hangs up

    server = serve(hang)
    process = start(raw, server.url)
    deadline = time.monotonic() + 20
    while not server.paths and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (code, message)
    assert old_content_stands_alone(raw)


def test_help_tells_the_output_the_params_and_the_mirror() -> None:
    command = [sys.executable, "-m", "stages.download", "--help"]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for word in ("--raw", "out: the folder", "dataset", "MNIST", "DATASET_MIRROR"):
        assert word in text


def test_the_mirror_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, Path, str | None]] = []

    def record(name: str, folder: Path, mirror: str | None) -> None:
        calls.append((name, folder, mirror))

    monkeypatch.setattr("stages.download.fetch", record)
    params = DownloadParams(dataset="MNIST")
    monkeypatch.setenv("DATASET_MIRROR", "mine")
    download(params, tmp_path)
    monkeypatch.delenv("DATASET_MIRROR")
    download(params, tmp_path)
    assert calls == [("MNIST", tmp_path, "mine"), ("MNIST", tmp_path, None)]
