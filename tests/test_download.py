"""The command, end to end, as DVC runs it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from stages.download import DownloadParams, download
from stages.sources.known_datasets import DATASETS
from stages.sources.torchvision_downloads import Published
from tests.conftest import ROOT, Serve

WATCHED = Path("pictures")
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
        [*command, "--params", raw.parent / "params.yaml", "--watched", "pictures", "--raw", raw],
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
        ("download:\n  dataset: MNITS\n", "; did you mean MNIST?"),
        ("download:\n  dataset: nowhere/\n", "download.dataset: found 'nowhere/'; expected a data"),
        ("download:\n  dataset: ~nosuchuser/x\n", "found '~nosuchuser/x'; expected a data set"),
        (
            "download:\n  dataset: [MNIST]\n",
            "download.dataset: found ['MNIST']; expected a valid st",
        ),
        ("download:\n  datset: MNIST\n", "did you mean dataset?"),
        ("", "download: missing; expected a section with the keys dataset"),
    ],
    ids=["misspelt", "no such path", "no such user", "no text", "unknown key", "no section"],
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


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of pictures with names of all kinds; they are copied, not read."""
    for path in (
        "猫 cat/1 (1).png",
        "猫 cat/2.JPG",
        "dog/deep/er/1.webp",
        ".git/x.png",
        "notes.txt",
    ):
        file = tmp_path / "my pictures" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path, encoding="utf-8")
    return tmp_path / "my pictures"


TAKEN = {
    f"train/{path}": path for path in ("猫 cat/1 (1).png", "猫 cat/2.JPG", "dog/deep/er/1.webp")
}


def ask_for(raw: Path, dataset: Path | str) -> None:
    (raw.parent / "params.yaml").write_text(json.dumps({"download": {"dataset": str(dataset)}}))


def contents(raw: Path) -> dict[str, str]:
    files = (path for path in raw.rglob("*") if path.is_file())
    return {path.relative_to(raw).as_posix(): path.read_text(encoding="utf-8") for path in files}


@pytest.mark.parametrize("kind", ["folder", "zip", "gztar"])
def test_pictures_become_the_data_set(raw: Path, pictures: Path, kind: str) -> None:
    source = pictures
    if kind != "folder":
        source = Path(shutil.make_archive(str(raw.parent / "packed 图"), kind, pictures))
    ask_for(raw, source)
    out, err = start(raw, mirror="/nowhere").communicate()
    assert (out.splitlines(), err) == (
        [
            f"{source}: left out 1 that do not end in .bmp, .gif, .jpeg, .jpg, .pbm, .pgm, .png,"
            " .ppm, .tif, .tiff, .webp: notes.txt",
            f"{source}: train: 3 pictures of 2 classes",
            f"note: {source} is not in pictures: DVC does not see it change;"
            " `dvc repro -f download`, then `dvc repro`, take it anew",
        ],
        "",
    )
    assert contents(raw) == TAKEN | {"dataset.json": '{\n  "format": "pictures"\n}\n'}
    assert sorted(path.name for path in raw.parent.glob(".*")) == []


def test_pictures_laid_out_otherwise_are_told_in_a_line_and_what_stood_stays(
    raw: Path, pictures: Path
) -> None:
    (pictures / "loose.png").touch()
    ask_for(raw, pictures)
    process = start(raw, mirror="")
    assert process.communicate() == (
        "",
        f"error: {pictures}: pictures beside the folders of the classes: loose.png; expected each"
        " in the folder of its class\n",
    )
    assert process.returncode == 2
    assert old_content_stands_alone(raw)
    assert not list(raw.parent.glob(".*"))


def test_killed_while_it_copies_it_leaves_what_stood(raw: Path, pictures: Path) -> None:
    program = """
import os, shutil, signal, sys
from pathlib import Path
from stages.download import DownloadParams, download
from stages.sources.torchvision_downloads import Published

copied = []
def copy(source, target):
    copied.append(target)
    target.write_bytes(b"half")
    if len(copied) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
shutil.copyfile = copy
download(DownloadParams(dataset=sys.argv[1]), Path("pictures"), Path(sys.argv[2]))
"""
    result = subprocess.run([sys.executable, "-c", program, pictures, raw], cwd=ROOT, check=False)
    assert result.returncode == -signal.SIGKILL
    assert old_content_stands_alone(raw)
    ask_for(raw, pictures)
    assert start(raw, mirror="").communicate()[1] == ""
    assert contents(raw).keys() == {*TAKEN, "dataset.json"}


def test_two_at_once_leave_one_that_is_whole(raw: Path, pictures: Path) -> None:
    ask_for(raw, pictures)
    processes = [start(raw, mirror="") for _ in range(3)]
    assert [process.communicate()[1] for process in processes] == [""] * 3
    assert contents(raw).keys() == {*TAKEN, "dataset.json"}
    assert not list(raw.parent.glob(".*"))


def test_the_next_data_set_leaves_nothing_of_the_last(raw: Path, pictures: Path) -> None:
    (raw / "dataset.json").write_text("{}")
    (raw / "train").mkdir()
    (raw / "train/old.png").touch()
    download(DownloadParams(dataset=str(pictures)), WATCHED, raw)
    assert contents(raw).keys() == {*TAKEN, "dataset.json"}


@pytest.mark.parametrize("place", ["my pictures", "my pictures/raw", "my pictures/dog"])
def test_pictures_that_hold_the_out_or_lie_in_it_are_refused(
    raw: Path, pictures: Path, place: str
) -> None:
    source = pictures
    if place.endswith("dog"):  # the pictures in the stage's own folder
        source, place = pictures / "dog/deep", "my pictures/dog"
        (pictures / "dog/dataset.json").touch()
    out = raw.parent / place
    if out == pictures:
        (pictures / "dataset.json").touch()
    before = contents(pictures)
    with pytest.raises(ValueError, match="holds .*, or lies in it; expected a place apart from it"):
        download(DownloadParams(dataset=str(source)), WATCHED, out)
    assert contents(pictures) == before


@pytest.mark.parametrize("content", ["folder", "file"])
def test_what_no_data_set_left_is_not_replaced(
    raw: Path, pictures: Path, content: str, tmp_path: Path
) -> None:
    out = tmp_path / "mine"
    if content == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="mine: holds something else than a data set"):
        download(DownloadParams(dataset=str(pictures)), WATCHED, out)
    assert out.read_text() == "mine" if content == "file" else contents(out)
    assert raw.exists()


def test_idx_files_that_stand_are_not_fetched_again(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in FILES:
        (raw / file).write_text(file)
    (raw / "stray").touch()
    (raw / "dataset.json").touch()

    def stand(name: str, folder: Path, mirror: str | None) -> None:
        assert (name, mirror) == ("FashionMNIST", None)
        assert contents(folder) == {file: file for file in FILES}

    monkeypatch.setattr("stages.download.fetch", stand)
    monkeypatch.delenv("DATASET_MIRROR", raising=False)
    download(DownloadParams(dataset="FashionMNIST"), WATCHED, raw)
    assert {path.name for path in raw.iterdir()} == {*FILES, "dataset.json"}
    about = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    assert about["format"] == "idx"
    assert about["classes"][0] == "T-shirt/top"
    assert len(about["classes"]) == 10


def test_torchvision_s_are_described_for_their_reader(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def record(dataset: Published, folder: Path, mirror: str | None) -> None:
        calls.append((dataset.torchvision_class, mirror))
        (folder / "file").touch()

    monkeypatch.setattr("stages.download.fetch_published", record)
    monkeypatch.setenv("DATASET_MIRROR", "mine")
    download(DownloadParams(dataset="EMNIST-letters"), WATCHED, raw)
    assert calls == [("EMNIST", "mine")]
    text = (raw / "dataset.json").read_text(encoding="utf-8")
    about = {
        "class": "EMNIST",
        "format": "torchvision",
        "test": {"split": "letters", "train": False},
        "train": {"split": "letters", "train": True},
    }
    assert text == json.dumps(about, indent=2, sort_keys=True) + "\n"


def test_one_that_cannot_be_used_is_told_before_anything_is_touched(raw: Path) -> None:
    with pytest.raises(ValueError, match="Caltech101: it has no train and test split of its own"):
        download(DownloadParams(dataset="Caltech101"), WATCHED, raw)
    assert old_content_stands_alone(raw)


def test_the_list_needs_no_other_option() -> None:
    command = [sys.executable, "-m", "stages.download", "--list"]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "\nMNIST " in text
    assert "Or the path of a folder" in text


@pytest.mark.parametrize("dataset", ["pictures", "MNIST"])
def test_nothing_slow_is_imported_unless_needed(raw: Path, pictures: Path, dataset: str) -> None:
    program = """
import sys
from pathlib import Path
from stages import download
download.fetch = lambda *_: None
download.download(download.DownloadParams(dataset=sys.argv[1]), Path("pictures"), Path(sys.argv[2]))
assert not {"torch", "torchvision", "numpy", "PIL"} & set(sys.modules)
"""
    name = pictures if dataset == "pictures" else dataset
    subprocess.run([sys.executable, "-c", program, name, raw], cwd=ROOT, check=True)


def test_help_tells_the_output_the_params_and_the_mirror() -> None:
    command = [sys.executable, "-m", "stages.download", "--help"]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for word in ("--list", "--raw", "out: the folder", "dataset", "MNIST", "DATASET_MIRROR"):
        assert word in text


def test_the_mirror_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrors: list[str | None] = []

    def record(_: str, __: Path, mirror: str | None) -> None:
        mirrors.append(mirror)

    monkeypatch.setattr("stages.download.fetch", record)
    params = DownloadParams(dataset="MNIST")
    monkeypatch.setenv("DATASET_MIRROR", "mine")
    download(params, WATCHED, tmp_path / "raw")
    monkeypatch.delenv("DATASET_MIRROR")
    download(params, WATCHED, tmp_path / "raw")
    assert mirrors == ["mine", None]
