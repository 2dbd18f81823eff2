"""The command `shards`, and what `download` and the library webdataset make of its files."""

import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from stages import shards
from stages.download import DownloadParams, download
from stages.images.readers import read_dataset
from stages.shards import write_shards
from tests.conftest import ROOT
from tests.pipelines import draw_animals

Rows = list[tuple[str, int, bytes]]


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    """Pictures in many formats, two of which have the same key: it ends at the first dot."""
    draw_animals(tmp_path / "animals", 10)
    for name in ("a.b.png", "a.c.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / "animals/a dog" / name)
    return tmp_path / "animals"


def rows(source: Path) -> Rows:
    """The key, label and pixels of each picture, after `download`."""
    raw = source.parent / "raw"
    download(DownloadParams(dataset=str(source)), source, raw)
    dataset = read_dataset(raw)
    pictures = dataset.train.pictures
    found = []
    for item in pictures.items[:]:
        image, label = pictures.open_item(item)
        key = dataset.key_of(pictures.name_of(item))
        found.append((key, label, image.convert("RGB").tobytes()))
    return found


def test_shards_hold_what_the_folder_holds_in_the_same_order(
    tmp_path: Path, animals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_PICTURES", 7)
    write_shards(animals, tmp_path / "shards")
    assert len(list((tmp_path / "shards/train").iterdir())) == 5
    expected = rows(animals)
    assert len(expected) == 32
    assert rows(tmp_path / "shards") == expected


def test_shards_end_at_a_number_of_bytes(
    tmp_path: Path, animals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 30_000)
    write_shards(animals, tmp_path / "shards")
    files = list((tmp_path / "shards/train").iterdir())
    assert len(files) > 3
    assert max(file.stat().st_size for file in files) < 60_000


def test_equal_folders_give_equal_bytes(tmp_path: Path, animals: Path) -> None:
    write_shards(animals, tmp_path / "one")
    for path in [*animals.rglob("*.*")][::-1]:  # other dates, and another order on disk
        path.write_bytes(path.read_bytes())
    animals = animals.rename(tmp_path / "renamed")
    write_shards(animals, tmp_path / "two")
    one, two = (
        [path.read_bytes() for path in sorted((tmp_path / name).rglob("*.tar"))]
        for name in ("one", "two")
    )
    assert one == two


def test_train_and_test_are_kept_apart(tmp_path: Path, animals: Path) -> None:
    (tmp_path / "both").mkdir()
    animals.rename(tmp_path / "both/train")
    draw_animals(tmp_path / "both/test", 2)
    write_shards(tmp_path / "both", tmp_path / "shards")
    found = sorted(path.parent.name for path in (tmp_path / "shards").rglob("*.tar"))
    assert found == ["test", "train"]


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # it leaves files open
def test_webdataset_reads_the_same_pictures_and_classes(
    tmp_path: Path, animals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_PICTURES", 16)
    write_shards(animals, tmp_path / "shards")
    names = [str(path) for path in sorted((tmp_path / "shards/train").iterdir())]
    samples = list(webdataset.WebDataset(names, shardshuffle=False).decode("pilrgb"))
    gc.collect()  # what it left open is reported here, not in another test
    expected = rows(animals)
    assert [f"train/{sample['json']['picture']}" for sample in samples] == [r[0] for r in expected]
    assert [sample["json"]["class"] for sample in samples] == [
        name.split("/")[1] for name, *_ in expected
    ]
    decoded = {s["json"]["picture"]: s["png"] for s in samples if "png" in s}
    assert len(decoded) > 5
    image = Image.open(animals / "a dog/a.b.png").convert("RGB")
    np.testing.assert_array_equal(np.asarray(decoded["a dog/a.b.png"]), np.asarray(image))


def test_what_webdataset_writes_is_read(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    with webdataset.ShardWriter(str(tmp_path / "shards/x-%06d.tar"), maxcount=3, verbose=0) as sink:
        for number in range(8):
            image = Image.new("L", (3, 2), number)
            sink.write({"__key__": f"{number:04}", "png": image, "cls": number % 2})
    (tmp_path / "shards/classes.txt").write_text("even\nodd\n")
    found = rows(tmp_path / "shards")
    assert [(label, pixels[0]) for _, label, pixels in found] == [(n % 2, n) for n in range(8)]
    assert found[-1][0] == "train/x-000002/0007.png"


def test_what_is_there_already_stays(tmp_path: Path, animals: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    command = [sys.executable, "-m", "stages.shards", str(animals), str(tmp_path / "out")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == (
        f"error: {tmp_path}/out: exists already; expected the name of a new folder\n"
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_folder_without_classes_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: found no sub-folders; expected one per class"):
        write_shards(tmp_path / "empty", tmp_path / "shards")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
