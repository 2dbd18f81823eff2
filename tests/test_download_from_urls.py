"""`download` and `tensorize` from loose files, shards and an S3 server: the same bytes."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages import shards
from stages.download import DownloadParams, download
from stages.formats.split_file import Split
from stages.shards import write_shards
from stages.sources.checked_files import ExpectedFile
from stages.sources.mirrors import fetch_from_mirror
from stages.tensorize import TensorizeParams, tensorize
from tests.pipelines import PARAMS, draw_animals
from tests.s3 import BUCKET, s3_server

WATCHED = Path("pictures")  # by DVC


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with s3_server(monkeypatch) as client:
        yield client


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    draw_animals(tmp_path / "loose/animals", 10)
    return tmp_path / "loose/animals"


def upload(client: Any, folder: Path, prefix: str) -> str:
    for path in folder.rglob("*.*"):
        key = f"{prefix}/{path.relative_to(folder).as_posix()}"
        client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
    return f"s3://{BUCKET}/{prefix}"


def tensors(dataset: str, out: Path) -> list[object]:
    """What the files have that `tensorize` makes of `dataset`, names as they are in its folder."""
    download(DownloadParams(dataset=dataset), WATCHED, out / "raw")
    params = yaml.safe_load(PARAMS.read_text())["tensorize"]
    params |= {"channels": 3, "size": 16, "deskew": False, "validation": 0.2, "shift": 0}
    paths = [out / name for name in ("train", "validation", "test", "skipped")]
    tensorize(TensorizeParams(**params), out / "raw", *paths)
    test = Split.load(paths[2])
    names = [name.removeprefix(f"{dataset}/") for name in test.pictures]
    arrays = [array.tobytes() for array in (test.features, test.images, test.labels)]
    return [*(path.read_bytes() for path in (*paths[:2], paths[3])), names, *arrays, test.origin]


def test_shards_and_s3_give_the_tensors_of_the_loose_files(
    tmp_path: Path, animals: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_PICTURES", 7)
    packed = tmp_path / "packed/animals"
    write_shards(animals, packed)
    archive = shutil.make_archive(str(tmp_path / "animals"), "zip", animals)
    s3.put_object(Bucket=BUCKET, Key="zipped/animals.zip", Body=Path(archive).read_bytes())
    expected = tensors(str(animals), tmp_path / "out")
    for source in (
        str(packed),
        upload(s3, animals, "loose/animals"),
        upload(s3, packed, "packed/animals"),
        f"s3://{BUCKET}/zipped/animals.zip",
    ):
        assert tensors(source, tmp_path / "out") == expected, source


def test_dataset_json_lists_the_checksum_of_each_object(
    tmp_path: Path, animals: Path, s3: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    url = upload(s3, animals, "animals")
    raw = tmp_path / "raw"
    download(DownloadParams(dataset=url), WATCHED, raw)
    about = json.loads((raw / "dataset.json").read_text())
    assert about["name"] == "animals"
    paths = {path.relative_to(animals).as_posix(): path for path in animals.rglob("*.*")}
    digests = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items()}
    assert about["objects"] == digests
    assert f"note: DVC does not notice changes to {url}; after one, run" in capsys.readouterr().out

    changed = sorted(digests)[0]
    s3.put_object(Bucket=BUCKET, Key=f"animals/{changed}", Body=b"changed")
    download(DownloadParams(dataset=url), WATCHED, raw)
    again = json.loads((raw / "dataset.json").read_text())["objects"]
    assert {name for name in digests if again[name] != digests[name]} == {changed}


def test_a_wrong_layout_is_reported_with_the_url_and_the_data_set_stays(
    tmp_path: Path, animals: Path, s3: Any
) -> None:
    raw = tmp_path / "raw"
    download(DownloadParams(dataset=str(animals)), WATCHED, raw)
    before = sorted(raw.rglob("*"))
    s3.put_object(Bucket=BUCKET, Key="wrong/1.png", Body=b"")
    with pytest.raises(ValueError, match=rf"^s3://{BUCKET}/wrong: found no sub-folders; expected"):
        download(DownloadParams(dataset=f"s3://{BUCKET}/wrong"), WATCHED, raw)
    assert sorted(raw.rglob("*")) == before
    assert {path.name for path in tmp_path.iterdir()} == {"loose", "raw"}


def test_a_mirror_may_be_on_s3(tmp_path: Path, s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="mirror/file", Body=b"content")
    expected = ExpectedFile(7, hashlib.sha256(b"content").hexdigest())
    fetch_from_mirror(f"s3://{BUCKET}/mirror", {"file": expected}, tmp_path)
    assert (tmp_path / "file").read_bytes() == b"content"
    with pytest.raises(FileNotFoundError, match="found neither other.gz nor other; expected a fol"):
        fetch_from_mirror(f"s3://{BUCKET}/mirror", {"other": expected}, tmp_path)
