"""The stage `download`, mostly as DVC runs it: as a command."""

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
from stages.sources.torchvision_datasets import TorchvisionDataset
from tests.conftest import ROOT, Serve

WATCHED = Path("pictures")
FILES = DATASETS["MNIST"].files
FIRST = next(iter(FILES))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """The stage's output folder as an aborted run may leave it: the first file's content is old."""
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


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in files}


def assert_untouched(raw: Path) -> None:
    assert contents(raw) == {FIRST: "old"}
    assert not list(raw.parent.glob(".*"))


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ("download:\n  dataset: MNITS\n", "; did you mean MNIST?"),
        ("download:\n  dataset: EMNIST-x\n", "; did you mean EMNIST-balanced, EMNIST-byclass, "),
        (
            "download:\n  dataset: Caltech101\n",
            "found 'Caltech101'; expected a usable data set (`python -m stages.download --list`);"
            " not usable: no train and test splits of its own",
        ),
        ("download:\n  dataset: nowhere/\n", "download.dataset: found 'nowhere/'; expected a data"),
        ("download:\n  dataset: ~nosuchuser/x\n", "found '~nosuchuser/x'; expected a data set"),
        (f"download:\n  dataset: {'x' * 20_000}\n", "xxx'; expected a data set's name"),
        (
            "download:\n  dataset: [MNIST]\n",
            "download.dataset: found ['MNIST']; expected a valid st",
        ),
        ("download:\n  datset: MNIST\n", "did you mean dataset?"),
        ("", "download: missing; expected a section with the keys dataset"),
    ],
    ids=[
        *("misspelt", "no such choice", "unusable", "no such path", "no such user", "long"),
        *("not text", "unknown key", "no section"),
    ],
)
def test_bad_params_are_refused_before_anything_is_touched(
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
    assert len(err) < 1000
    assert_untouched(raw)


def test_wrong_content_on_the_mirror_is_reported_in_one_line_and_old_files_stay(
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
    assert err.startswith(f"error: {mirror / FIRST}: wrong content: found 47040016 bytes with SHA")
    assert err.endswith("; fix DATASET_MIRROR or unset it\n")
    assert err.count("\n") == 1
    assert_untouched(raw)


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b" + bytes(99)], ids=["silent", "half-way"])
@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        (signal.SIGINT, 130, "interrupted: no file was left half-written\n"),
        (signal.SIGTERM, 143, ""),
    ],
)
def test_a_signal_stops_a_download_with_the_shell_s_exit_code_and_old_files_stay(
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
    assert_untouched(raw)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of files named like pictures and not; their content is their path."""
    for path in (*COPIED.values(), ".git/x.png", "notes.txt"):
        file = tmp_path / "my pictures" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path, encoding="utf-8")
    return tmp_path / "my pictures"


COPIED = {
    f"train/{path}": path for path in ("猫 cat/1 (1).png", "猫 cat/2.JPG", "dog/deep/er/1.webp")
}


def described(source: Path) -> dict[str, str]:
    """dataset.json for the pictures of `source`, whose classes stand in it directly."""
    description = {
        "folders": {"train": str(source)},
        "format": "pictures",
        "handwriting": False,
        "licence": None,
        "name": source.name.partition(".")[0],
        "source": None,
    }
    return {"dataset.json": json.dumps(description, ensure_ascii=False, indent=2) + "\n"}


def ask_for(raw: Path, dataset: Path) -> None:
    (raw.parent / "params.yaml").write_text(json.dumps({"download": {"dataset": str(dataset)}}))


@pytest.mark.parametrize("kind", ["folder", "zip", "gztar"])
def test_pictures_become_the_data_set(raw: Path, pictures: Path, kind: str) -> None:
    source = pictures
    if kind != "folder":
        source = Path(shutil.make_archive(str(raw.parent / "packed 图"), kind, pictures))
    ask_for(raw, source)
    out, err = start(raw, mirror="/nowhere").communicate()
    assert (out.splitlines(), err) == (
        [
            f"{source}: skipped 1 not ending in .bmp, .gif, .jpeg, .jpg, .pbm, .pgm, .png, .ppm,"
            " .tif, .tiff, .webp: notes.txt",
            f"{source}: train: 3 pictures in 2 classes",
            f"note: {source} is outside of pictures, so DVC does not notice changes to it; after"
            " one, run `dvc repro -f -s download`, then `dvc repro`",
        ],
        "",
    )
    assert contents(raw) == COPIED | described(source)
    assert not list(raw.parent.glob(".*"))


def test_pictures_in_another_layout_are_refused_in_one_line_and_old_files_stay(
    raw: Path, pictures: Path
) -> None:
    (pictures / "loose.png").touch()
    ask_for(raw, pictures)
    process = start(raw, mirror="")
    assert process.communicate() == (
        "",
        f"error: {pictures}: found pictures beside the class folders: loose.png; expected each in"
        " the folder of its class\n",
    )
    assert process.returncode == 2
    assert_untouched(raw)


def test_old_files_stay_if_copying_is_killed(raw: Path, pictures: Path) -> None:
    program = """
import os, shutil, signal, sys
from pathlib import Path
from stages.download import DownloadParams, download

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
    assert contents(raw) == {FIRST: "old"}
    ask_for(raw, pictures)
    assert start(raw, mirror="").communicate()[1] == ""
    assert contents(raw) == COPIED | described(pictures)


def test_of_three_runs_at_once_one_result_is_left_whole(raw: Path, pictures: Path) -> None:
    ask_for(raw, pictures)
    processes = [start(raw, mirror="") for _ in range(3)]
    assert [process.communicate()[1] for process in processes] == [""] * 3
    assert contents(raw) == COPIED | described(pictures)
    assert not list(raw.parent.glob(".*"))


def test_nothing_is_left_of_the_previous_data_set(raw: Path, pictures: Path) -> None:
    (raw / "dataset.json").write_text("{}")
    (raw / "train").mkdir()
    (raw / "train/old.png").touch()
    download(DownloadParams(dataset=str(pictures)), WATCHED, raw)
    assert contents(raw) == COPIED | described(pictures)


@pytest.mark.parametrize(
    ("source", "out"),
    [
        ("my pictures", "my pictures"),
        ("my pictures", "my pictures/raw"),
        ("my pictures/dog/deep", "my pictures/dog"),
    ],
    ids=["same folder", "output in the pictures", "pictures in the output"],
)
def test_pictures_that_overlap_with_the_output_are_refused(
    tmp_path: Path, pictures: Path, source: str, out: str
) -> None:
    if out != "my pictures/raw":
        (tmp_path / out / "dataset.json").touch()
    before = contents(pictures)
    params = DownloadParams(dataset=str(tmp_path / source))
    with pytest.raises(ValueError, match="overlaps with .*; expected pictures outside of it"):
        download(params, WATCHED, tmp_path / out)
    assert contents(pictures) == before


@pytest.mark.parametrize("content", ["folder", "file"])
def test_an_output_path_that_holds_something_else_is_not_replaced(
    tmp_path: Path, pictures: Path, content: str
) -> None:
    out = tmp_path / "mine"
    if content == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="mine: found something other than a data set"):
        download(DownloadParams(dataset=str(pictures)), WATCHED, out)
    if content == "file":
        assert out.read_text() == "mine"
    else:
        assert contents(out) == {"thesis.tex": "mine"}


@pytest.mark.parametrize("mirror", [None, "mine"])
def test_idx_files_that_are_there_are_offered_to_the_fetch_with_the_user_s_mirror(
    raw: Path, monkeypatch: pytest.MonkeyPatch, mirror: str | None
) -> None:
    for file in FILES:
        (raw / file).write_text(file)
    (raw / "stray").touch()
    (raw / "dataset.json").touch()
    calls = []

    def fetch(name: str, folder: Path, mirror: str | None) -> None:
        calls.append((name, contents(folder), mirror))

    monkeypatch.setattr("stages.download.fetch", fetch)
    monkeypatch.delenv("DATASET_MIRROR", raising=False)
    if mirror:
        monkeypatch.setenv("DATASET_MIRROR", mirror)
    download(DownloadParams(dataset="FashionMNIST"), WATCHED, raw)
    assert calls == [("FashionMNIST", {file: file for file in FILES}, mirror)]
    description = json.loads(contents(raw).pop("dataset.json"))
    assert description == {
        "classes": list(DATASETS["FashionMNIST"].classes),
        "format": "idx",
        "handwriting": False,
        "licence": "MIT",
        "name": "FashionMNIST",
        "source": "https://github.com/zalandoresearch/fashion-mnist",
    }
    assert {path.name for path in raw.iterdir()} == {*FILES, "dataset.json"}


def test_a_torchvision_data_set_is_described_for_its_reader(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fetch(dataset: TorchvisionDataset, folder: Path, mirror: str | None) -> None:
        calls.append((dataset.class_name, mirror))
        (folder / "file").touch()

    monkeypatch.setattr("stages.download.fetch_torchvision_dataset", fetch)
    monkeypatch.setenv("DATASET_MIRROR", "mine")
    download(DownloadParams(dataset="EMNIST-letters"), WATCHED, raw)
    assert calls == [("EMNIST", "mine")]
    description = {
        "class": "EMNIST",
        "format": "torchvision",
        "handwriting": True,
        "licence": "see its source",
        "name": "EMNIST-letters",
        "source": "https://www.westernsydney.edu.au/bens/home/reproducible_research/emnist",
        "test": {"split": "letters", "train": False},
        "train": {"split": "letters", "train": True},
    }
    text = json.dumps(description, indent=2, sort_keys=True) + "\n"
    assert contents(raw) == {"dataset.json": text, "file": ""}


def test_a_path_is_taken_before_a_misspelt_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "CIFAR10-mine").mkdir()
    assert DownloadParams(dataset="CIFAR10-mine").dataset == "CIFAR10-mine"


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


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--list", ["\nMNIST ", "Or the path of a folder"]),
        ("--help", ["--list", "--raw", "out: the folder", "dataset", "MNIST", "DATASET_MIRROR"]),
    ],
)
def test_list_and_help_need_no_other_option(option: str, words: list[str]) -> None:
    command = [sys.executable, "-m", "stages.download", option]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for word in words:
        assert word in text
