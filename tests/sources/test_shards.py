import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.formats.shard_index import ShardIndex
from stages.sources.shards import copy_shards, shards_in

LABELS = {"1.png": b"one", "1.cls": b"dog\n", "2.png": b"two!", "2.json": b'{"class": "cat"}'}


def write(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    """A tar with these members, in the folder that `path` names, which is returned."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]  # a mode for writing
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path.parent


def copied(source: Path) -> dict[str, dict[str, tuple[str, bytes]]]:
    """Split -> the name of each picture -> its class and its content, as the index has them."""
    raw = source.parent / "raw"
    shutil.rmtree(raw, ignore_errors=True)
    copy_shards(source, raw, shutil.copyfile)
    splits = {}
    for folder in raw.iterdir():
        index = ShardIndex.load(folder)
        splits[folder.name] = {
            item.name: (
                index.classes[item.label],
                (folder / item.shard).read_bytes()[item.start : item.start + item.size],
            )
            for item in index
        }
    return splits


def refusal(source: Path) -> str:
    with pytest.raises(ValueError, match=f"^{re.escape(str(source))}") as error:
        copied(source)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_labels_stand_in_cls_or_json_and_pictures_are_named_by_shard_and_member(
    tmp_path: Path,
) -> None:
    source = write(tmp_path / "shards/a-0.tar", LABELS)
    write(tmp_path / "shards/a-1.tar", {"deep/1.cls": b"cat", "deep/1.JPG": b"three", "x.txt": b""})
    assert copied(source) == {
        "train": {
            "a-0/1.png": ("dog", b"one"),
            "a-0/2.png": ("cat", b"two!"),
            "a-1/deep/1.JPG": ("cat", b"three"),
        }
    }


def test_train_and_test_folders_are_kept_apart(tmp_path: Path) -> None:
    write(tmp_path / "shards/train/0.tar", LABELS)
    write(tmp_path / "shards/test/0.tar", LABELS | {"1.png": b"other"})
    splits = copied(tmp_path / "shards")
    assert splits["train"]["0/1.png"] == ("dog", b"one")
    assert splits["test"]["0/1.png"] == ("dog", b"other")


def test_the_json_may_name_the_picture(tmp_path: Path) -> None:
    about = json.dumps({"class": "dog", "picture": "dog/a.b.png", "caption": ["ignored"]}).encode()
    source = write(tmp_path / "shards/0.tar", {"3.png": b"x", "3.json": about, **LABELS})
    assert copied(source)["train"]["dog/a.b.png"] == ("dog", b"x")


@pytest.mark.parametrize("label", [{"1.cls": b"0"}, {"1.json": b'{"class": 0}'}, {"1.cls": b"cat"}])
def test_classes_txt_names_numbered_classes(tmp_path: Path, label: dict[str, bytes]) -> None:
    source = write(tmp_path / "shards/0.tar", {"1.png": b"", "2.png": b"", "2.cls": b"1", **label})
    (source / "classes.txt").write_text("cat\ndog\n")
    assert copied(source)["train"] == {"0/1.png": ("cat", b""), "0/2.png": ("dog", b"")}


def test_a_byte_order_mark_is_no_part_of_a_class(tmp_path: Path) -> None:
    source = write(tmp_path / "shards/0.tar", LABELS | {"1.cls": b"\xef\xbb\xbfdog"})
    assert copied(source)["train"]["0/1.png"][0] == "dog"
    (source / "classes.txt").write_text("\ufeffcat\ndog\n", encoding="utf-8")
    assert copied(source)["train"]["0/1.png"][0] == "dog"


def make_nothing(path: Path) -> None:
    path.write_bytes(b"")


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("name", "make", "problem"),
    [
        ("classes.txt", make_nothing, "found no line; expected one per class"),
        ("classes.txt", make_pipe, "expected a file of at most 16,777,216 bytes"),
        ("1.tar", make_pipe, "found no file; expected a tar; remove it"),
    ],
)
def test_what_is_no_ordinary_file_is_refused(
    tmp_path: Path, name: str, make: Callable[[Path], None], problem: str
) -> None:
    source = write(tmp_path / "shards/0.tar", LABELS)
    make(source / name)
    assert refusal(source) == f"{source / name}: {problem}"


def test_without_classes_txt_a_number_is_a_name(tmp_path: Path) -> None:
    members = {"1.png": b"", "1.cls": b"10", "2.png": b"", "2.json": b'{"class": 9}'}
    source = write(tmp_path / "shards/0.tar", members)
    assert copied(source)["train"] == {"0/1.png": ("10", b""), "0/2.png": ("9", b"")}


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"3.png": b""}, "0.tar: 3.png: found no label; expected 3.cls or 3.json beside it"),
        ({"3.png": b"", "3.jpg": b""}, "0.tar: found 3.png and 3.jpg; expected one of them for"),
        ({"3.cls": b"a", "3.json": b"{}"}, "0.tar: found 3.cls and 3.json; expected one of them"),
        ({"3.png": b"", "3.cls": b" \n"}, "3.cls: found no class's name or number (found '')"),
        ({"3.png": b"", "3.cls": b"a/b"}, "3.cls: found no class's name or number (found 'a/b')"),
        ({"3.png": b"", "3.cls": b"\xff"}, "3.cls: found no class's name or number ('utf-8'"),
        ({"3.png": b"", "3.cls": b"\x1b[0m"}, "3.cls: found no class's name or number ("),
        ({"3.png": b"", "3.cls": b"x" * 70_000}, "3.cls: found 70000 bytes; expected a label"),
        ({"3.png": b"", "3.json": b"{}"}, "3.json: found no class's name or number"),
        ({"3.png": b"", "3.json": b'{"class": true}'}, "3.json: found no class's name or number;"),
        ({"3.png": b"", "3.json": b"[" * 60_000}, "3.json: found no class's name or number;"),
        (
            {"3.png": b"", "3.json": b'{"class": "cat", "picture": "\\u0000"}'},
            "0.tar: '\\x00': not printable Unicode",
        ),
        (
            {"3.png": b"", "3.json": b'{"class": "cat", "picture": "0/1.png"}'},
            "found the picture 0/1.png twice; expected it once",
        ),
        ({"3.png": b"", "3.cls": b"DOG"}, "classes: dog: differs from DOG only in case"),
        ({"../3.png": b"", "../3.cls": b"cat"}, "0.tar: ../3.png: a path that leads out of"),
    ],
)
def test_a_sample_that_cannot_be_used_is_refused(
    tmp_path: Path, members: dict[str, bytes], problem: str
) -> None:
    assert problem in refusal(write(tmp_path / "shards/0.tar", LABELS | members))


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_shard_is_refused(tmp_path: Path, mode: str) -> None:
    source = write(tmp_path / "shards/0.tar", LABELS, mode)
    assert refusal(source).endswith(
        "0.tar: found a compressed tar; expected a plain one; uncompress it"
    )


def test_a_shard_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "shards/0.tar", LABELS)
    content = (source / "0.tar").read_bytes()
    end = content.rstrip(b"\0")
    for length in [*range(0, len(end), 97), len(end)]:
        (source / "0.tar").write_bytes(content[:length])
        assert f"{source / '0.tar'}: " in refusal(source)


def test_a_picture_too_large_for_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.sources.shards.MAX_PICTURE", 3)
    assert "0.tar: 2.png: found 4 bytes; expected at most 3" in refusal(
        write(tmp_path / "shards/0.tar", LABELS)
    )


@pytest.mark.parametrize(
    ("others", "problem"),
    [
        (["train/0.tar"], "found shards beside the folders train and test; move them"),
        (["cat/1.png"], "found pictures beside shards, such as cat/1.png; expected either"),
        (["1.tar"], "train: found one class, cat; expected two classes or more"),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, others: list[str], problem: str) -> None:
    members = {"1.png": b"", "1.cls": b"cat"}
    source = write(tmp_path / "shards/0.tar", members)
    for name in others:
        write(source / name, members)
    assert refusal(source).endswith(problem)


@pytest.mark.parametrize("missing", ["train", "test"])
def test_a_split_without_shards_is_refused(tmp_path: Path, missing: str) -> None:
    source = tmp_path / "shards"
    (source / missing).mkdir(parents=True)
    write(source / ("test" if missing == "train" else "train") / "0.tar", LABELS)
    assert refusal(source) == f"{source}: found no shards in {missing}; expected some"


def test_a_class_in_one_split_alone_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "shards/train/0.tar", LABELS)
    write(tmp_path / "shards/test/0.tar", LABELS | {"3.png": b"", "3.cls": b"fox"})
    assert refusal(tmp_path / "shards").endswith(
        "found class fox in only one of train and test; expected the same classes in both"
    )


def test_a_number_beyond_classes_txt_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "shards/0.tar", {"1.png": b"", "1.cls": b"2"})
    (source / "classes.txt").write_text("cat\ndog\n")
    assert refusal(source).endswith(
        "1.cls: found class '2'; expected a name in classes.txt or a number below 2"
    )


def test_a_folder_without_tar_files_holds_no_shards(tmp_path: Path) -> None:
    (tmp_path / "cat.tar").mkdir()
    (tmp_path / "train").mkdir()
    assert shards_in(tmp_path) == {}
