"""torchvision's own classes download and read small made-up data sets with matching MD5s."""

import bz2
import hashlib
import io
import pickle
import tarfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from stages.sources import mirrors
from stages.sources.checked_files import WrongContent
from stages.sources.torchvision_datasets import TORCHVISION_DATASETS
from stages.sources.torchvision_downloads import fetch_torchvision_dataset
from tests.conftest import Serve, silent

CIFAR10, USPS = TORCHVISION_DATASETS["CIFAR10"], TORCHVISION_DATASETS["USPS"]


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrors, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(mirrors, "SILENCE_SECONDS", 0.4)
    monkeypatch.setattr(mirrors, "BACKOFF_SECONDS", 0.001)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def cifar10(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """CIFAR10 with four images per batch: its archive by name."""
    files, md5s = {}, {}
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]:
        batch = {"data": np.zeros((4, 3072), np.uint8), "labels": [0, 1, 2, 3]}
        files[name] = pickle.dumps({"label_names": list("abcd")} if "meta" in name else batch)
        md5s[name] = md5(files[name])
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    cls = datasets.CIFAR10
    monkeypatch.setattr(cls, "train_list", [[f, md5s[f]] for f in files if "data" in f])
    monkeypatch.setattr(cls, "test_list", [["test_batch", md5s["test_batch"]]])
    monkeypatch.setattr(cls, "meta", cls.meta | {"md5": md5s["batches.meta"]})
    monkeypatch.setattr(cls, "tgz_md5", md5(packed.getvalue()))
    return {cls.filename: packed.getvalue()}


@pytest.fixture
def usps(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """USPS with three images per split."""
    row = " ".join(["{}", *(f"{i}:0.5" for i in range(1, 257))])
    files = {
        name: bz2.compress("\n".join(row.format(label) for label in labels).encode())
        for name, labels in {"usps.bz2": (1, 2, 10), "usps.t.bz2": (2, 3, 4)}.items()
    }
    splits = {
        split: [f"http://127.0.0.1:1/far/{name}", name, md5(files[name])]
        for split, name in {"train": "usps.bz2", "test": "usps.t.bz2"}.items()
    }
    monkeypatch.setattr(datasets.USPS, "split_list", splits)
    return files


def serving(files: dict[str, bytes], **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        content = files.get(request.path.rpartition("/")[2])
        request.send_response(200 if content is not None else 404)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(content or b"none")

    return answer


def mirror_of(folder: Path, files: dict[str, bytes]) -> str:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return str(folder)


def test_the_class_s_url_is_asked_once_and_the_class_reads_both_splits(
    serve: Serve, tmp_path: Path, cifar10: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(serving(cifar10))
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{server.url}/x/cifar-10-python.tar.gz")
    fetch_torchvision_dataset(CIFAR10, tmp_path, mirror=None)
    assert server.paths == ["/x/cifar-10-python.tar.gz"]
    assert len(datasets.CIFAR10(tmp_path, train=True)) == 20
    assert datasets.CIFAR10(tmp_path, train=False).classes == list("abcd")


@pytest.mark.parametrize("kind", ["folder", "url"])
def test_the_user_s_mirror_is_tried_first(
    serve: Serve, tmp_path: Path, usps: dict[str, bytes], kind: str
) -> None:
    folder = mirror_of(tmp_path / "my mirror", usps)
    mirror = folder if kind == "folder" else f"{serve(serving(usps)).url}/m/"
    fetch_torchvision_dataset(USPS, tmp_path / "raw", mirror)
    assert {path.name: path.read_bytes() for path in (tmp_path / "raw").iterdir()} == usps
    assert datasets.USPS(tmp_path / "raw").targets == [0, 1, 9]


def test_a_mirror_without_the_file_is_skipped_with_a_message(
    serve: Serve,
    tmp_path: Path,
    cifar10: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = serve(serving(cifar10))
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{server.url}/cifar-10-python.tar.gz")
    fetch_torchvision_dataset(CIFAR10, tmp_path, mirror="/nowhere")
    assert capsys.readouterr().err == "/nowhere/cifar-10-python.tar.gz: no such file\n"


def test_wrong_content_on_the_user_s_mirror_is_an_error(
    tmp_path: Path, usps: dict[str, bytes]
) -> None:
    mirror = mirror_of(tmp_path / "mine", usps | {"usps.bz2": b"other"})
    with pytest.raises(WrongContent, match=r"wrong content: found another MD5; .*; fix DATASET_M"):
        fetch_torchvision_dataset(USPS, tmp_path / "raw", mirror)
    assert not list((tmp_path / "raw").iterdir())


def test_a_file_that_is_there_with_the_right_md5_stays(
    tmp_path: Path, cifar10: dict[str, bytes]
) -> None:
    mirror_of(tmp_path / "raw", cifar10)
    fetch_torchvision_dataset(CIFAR10, tmp_path / "raw", mirror="/nowhere")
    assert len(datasets.CIFAR10(tmp_path / "raw")) == 20


def test_an_archive_that_a_server_declares_as_an_encoding_is_stored_as_sent(
    serve: Serve, tmp_path: Path, cifar10: dict[str, bytes]
) -> None:
    server = serve(serving(cifar10, content_encoding="x-gzip"))
    fetch_torchvision_dataset(CIFAR10, tmp_path, server.url)
    assert len(datasets.CIFAR10(tmp_path)) == 20


@pytest.mark.parametrize(
    ("answer", "reason", "attempts"),
    [
        (silent, r"Read timed out. \(read timeout=0.4\) \(attempt 3 of 3\)", 3),
        (serving({}), "status 404", 1),
        (serving({"cifar-10-python.tar.gz": b"<html>"}), "wrong content: found another MD5", 1),
    ],
    ids=["silent", "missing", "other bytes"],
)
def test_if_all_fail_one_line_lists_what_was_tried(
    serve: Serve,
    tmp_path: Path,
    cifar10: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[BaseHTTPRequestHandler], None],
    reason: str,
    attempts: int,
) -> None:
    assert cifar10
    server = serve(answer)
    url = f"{server.url}/cifar-10-python.tar.gz"
    monkeypatch.setattr(datasets.CIFAR10, "url", url)
    with pytest.raises(OSError, match=rf"{url}: {reason}") as error:
        fetch_torchvision_dataset(CIFAR10, tmp_path, mirror="/nowhere")
    assert str(error.value).startswith("CIFAR10: tried /nowhere/cifar-10-python.tar.gz: no such f")
    assert str(error.value).endswith(
        "; set DATASET_MIRROR to a folder or a URL that holds the files"
    )
    assert "\n" not in str(error.value)
    assert server.paths == ["/cifar-10-python.tar.gz"] * attempts
    assert not list(tmp_path.iterdir())


def test_every_url_of_a_class_is_tried(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(serving({}))
    monkeypatch.setattr(datasets.KMNIST, "mirrors", [f"{server.url}/1/", f"{server.url}/2/"])
    name = datasets.KMNIST.resources[0][0]
    with pytest.raises(OSError, match=f"KMNIST: tried .*/1/{name}: status 404; .*/2/{name}: sta"):
        fetch_torchvision_dataset(TORCHVISION_DATASETS["KMNIST"], tmp_path, mirror=None)


def test_a_hostile_archive_without_a_checksum_is_refused(tmp_path: Path) -> None:
    dataset = TORCHVISION_DATASETS["FGVCAircraft"]
    name = datasets.FGVCAircraft._URL.rpartition("/")[2]
    (tmp_path / "mine").mkdir()
    with tarfile.open(tmp_path / "mine" / name, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../../evil"))
    with pytest.raises(
        WrongContent, match=r"wrong content: .*\.\./\.\./evil: a path that leads out"
    ):
        fetch_torchvision_dataset(dataset, tmp_path / "raw", str(tmp_path / "mine"))


def test_a_full_disk_is_reported_as_such(
    tmp_path: Path, usps: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stages.sources.mirrors.shutil.copyfileobj", fill)
    with pytest.raises(OSError, match="No space left") as error:
        fetch_torchvision_dataset(USPS, tmp_path / "raw", mirror_of(tmp_path / "mine", usps))
    assert error.value.errno == 28
