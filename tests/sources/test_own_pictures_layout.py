import os
import shutil
import tarfile
import unicodedata
from pathlib import Path

import pytest

from stages.sources.own_pictures import take_pictures


def put(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(path.rpartition("/")[2].encode())
    return folder


def taken(source: Path) -> set[str]:
    """The files that `take_pictures` makes; each has its old content, its name."""
    raw = source.parent / "raw"
    raw.mkdir()
    take_pictures(source, raw)
    files = [path for path in raw.rglob("*") if not path.is_dir()]
    assert not any(path.is_symlink() for path in files)
    return {path.relative_to(raw).as_posix() for path in files}


@pytest.fixture(params=["folder", "zip", "gztar"])
def pack(request: pytest.FixtureRequest) -> "Pack":
    return Pack(request.param)


class Pack:
    """The folder itself, or an archive of what is in it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, folder: Path) -> Path:
        if self.kind == "folder":
            return folder
        return Path(shutil.make_archive(str(folder.parent / "my pictures"), self.kind, folder))


@pytest.mark.parametrize("around", ["", "animals/", "a b/animals/"])
def test_classes_alone_are_all_for_training(tmp_path: Path, pack: Pack, around: str) -> None:
    names = ["猫 cat/1 (1).png", "猫 cat/deep/er/2.JPG", "dog/1.png"]
    source = put(tmp_path / "a folder", *(around + name for name in names))
    assert taken(pack(source)) == {f"train/{name}" for name in names}
    assert (tmp_path / "raw/train/dog/1.png").read_bytes() == b"1.png"


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Train", "TEST")])
@pytest.mark.parametrize("around", ["", "animals/"])
def test_train_and_test_above_the_classes_stay_apart(
    tmp_path: Path, pack: Pack, around: str, train: str, test: str
) -> None:
    names = [f"{train}/a/1.png", f"{train}/b/2.png", f"{test}/a/3.png", f"{test}/b/4.png"]
    source = put(tmp_path / "folder", *(around + name for name in names))
    expected = {"train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png"}
    assert taken(pack(source)) == expected


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    source = put(tmp_path / "vehicles", "train/1.png", "bus/2.png")
    assert taken(source) == {"train/train/1.png", "train/bus/2.png"}


def test_what_is_no_picture_is_left_out_with_a_line(
    tmp_path: Path, pack: Pack, capsys: pytest.CaptureFixture[str]
) -> None:
    source = pack(put(tmp_path / "folder", "a/1.png", "b/2.png", "a/x.txt", "b/y", "c.csv", "d.md"))
    assert taken(source) == {"train/a/1.png", "train/b/2.png"}
    assert capsys.readouterr().out.splitlines() == [
        f"{source}: left out 4 that do not end in .bmp, .gif, .jpeg, .jpg, .pbm, .pgm, .png, .ppm,"
        " .tif, .tiff, .webp: a/x.txt, b/y, c.csv, ...",
        f"{source}: train: 2 pictures of 2 classes",
    ]


def test_what_is_hidden_is_left_out_silently(
    tmp_path: Path, pack: Pack, capsys: pytest.CaptureFixture[str]
) -> None:
    hidden = ["a/.1.png", ".git/x.png", "__MACOSX/a/1.png", ".DS_Store", "a/.cache/x.png"]
    source = put(tmp_path / "folder", "a/1.png", "b/2.png", *hidden)
    assert taken(pack(source)) == {"train/a/1.png", "train/b/2.png"}
    assert "left out" not in capsys.readouterr().out


def test_names_are_composed(tmp_path: Path, pack: Pack) -> None:
    apart = unicodedata.normalize("NFD", "é")
    assert apart != "é"
    source = put(tmp_path / "folder", f"{apart}/{apart}.png", "b/1.png")
    assert taken(pack(source)) == {"train/é/é.png", "train/b/1.png"}


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ([], "no sub-folders; expected one a class"),
        (["notes.txt"], "no sub-folders"),
        (["1.png", "2.png"], "no sub-folders"),
        (["a/1.png", "b/2.png", "3.png"], "pictures beside the folders of the classes: 3.png"),
        (["a/1.png", "b/2.txt"], "no picture in b; expected one or more a class"),
        (["a/1.png"], "only one class, a; expected two or more"),
        (["x/a/1.png"], "only one class, a"),
        (["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/1.png"], "found train, val;"),
        (["train/a/1", "test/a/1", "val/a/1", "dev/a/1"], "dev, val beside train and test"),
        (
            ["train/a/1.png", "train/b/1.png", "test/a/1.png", "test/c/1.png"],
            "in train and not in test: b; expected the same",
        ),
        (
            ["train/a/1.png", "train/b/1.png", *(f"test/{c}/1.png" for c in "abc")],
            "in test and not in train: c; expected the same",
        ),
        (
            ["train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.txt"],
            "test: no picture in b",
        ),
        (["train/a/1.png", "train/b/1.png", "train/2.png", "test/a/1.png"], "train: pictures besi"),
        (["a/1.png", "A/2.png"], "upper and lower case alone"),
        (["train/a/1.png", "Train/a/2.png", "test/a/1.png"], "upper and lower case alone"),
        (["a/é.png", f"a/{unicodedata.normalize('NFD', 'é')}.png", "b/1.png"], "letters composed"),
    ],
)
def test_another_layout_is_told_in_a_line(
    tmp_path: Path, pack: Pack, names: list[str], problem: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    source = pack(put(folder, *names))
    with pytest.raises(ValueError, match=problem) as error:
        taken(source)
    assert str(error.value).startswith(f"{source}: ")
    assert "\n" not in str(error.value)
    assert ".part" not in str(error.value)
    assert not list((tmp_path / "raw").iterdir())


def test_a_name_that_is_no_unicode_is_told(tmp_path: Path) -> None:
    source = put(tmp_path / "folder", "a/1.png", "b/2.png")
    (source / os.fsdecode(b"a/\xff.png")).write_bytes(b"")
    with pytest.raises(ValueError, match=r"a/\\udcff.png': not printable Unicode"):
        taken(source)


def test_links_become_files(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "1.png")
    source = put(tmp_path / "folder", "b/2.png")
    (source / "a").symlink_to(tmp_path / "elsewhere")
    (source / "b/3.png").symlink_to(tmp_path / "elsewhere/1.png")
    assert taken(source) == {"train/a/1.png", "train/b/2.png", "train/b/3.png"}


def test_a_link_loop_is_told(tmp_path: Path) -> None:
    source = put(tmp_path / "folder", "b/2.png")
    (source / "b/loop").symlink_to(source)
    with pytest.raises(ValueError, match="loop: a link to a folder that holds it"):
        taken(source)
    assert not list((tmp_path / "raw").iterdir())


def test_a_folder_that_holds_but_a_link_to_itself_does_not_hang(tmp_path: Path) -> None:
    source = tmp_path / "folder"
    source.mkdir()
    (source / "loop").symlink_to(source)
    with pytest.raises(ValueError, match="loop: a link to a folder that holds it"):
        taken(source)


def test_a_file_that_is_no_archive_is_told(tmp_path: Path) -> None:
    put(tmp_path, "pictures.zip")
    with pytest.raises(ValueError, match="neither a folder nor a zip or tar archive"):
        taken(tmp_path / "pictures.zip")


def test_a_hostile_archive_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "a.tar"
    with tarfile.open(source, "w") as archive:
        archive.add(put(tmp_path / "folder", "a/1.png"), ".")
        archive.addfile(tarfile.TarInfo("../evil.png"))
    with pytest.raises(ValueError, match=r"\.\./evil.png: a path out of the folder"):
        taken(source)
    assert not list((tmp_path / "raw").iterdir())
