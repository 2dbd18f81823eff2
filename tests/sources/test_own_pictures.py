import os
import shutil
import tarfile
import unicodedata
from pathlib import Path

import pytest

from stages.sources.own_pictures import copy_pictures
from stages.sources.portable_names import composed


def put(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(path.rpartition("/")[2].encode())
    return folder


def copied(source: Path) -> set[str]:
    """The paths of the files that `copy_pictures` writes; each still has its name as content."""
    raw = source.parent / "raw"
    raw.mkdir()
    copy_pictures(source, raw)
    files = [path for path in raw.rglob("*") if not path.is_dir()]
    for path in files:
        assert not path.is_symlink()
        assert composed(path.read_text(encoding="utf-8")) == path.name
    return {path.relative_to(raw).as_posix() for path in files}


@pytest.fixture(params=["folder", "zip", "gztar"])
def pack(request: pytest.FixtureRequest) -> "Pack":
    return Pack(request.param)


class Pack:
    """Returns the folder itself, or packs what is in it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, folder: Path) -> Path:
        if self.kind == "folder":
            return folder
        return Path(shutil.make_archive(str(folder.parent / "my pictures"), self.kind, folder))


@pytest.mark.parametrize("around", ["", "animals/", "a b/animals/"])
def test_without_a_test_split_all_pictures_go_to_train(
    tmp_path: Path, pack: Pack, around: str
) -> None:
    names = ["猫 cat/1 (1).png", "猫 cat/deep/er/2.JPG", "dog/1.png"]
    source = put(tmp_path / "a folder", *(around + name for name in names))
    assert copied(pack(source)) == {f"train/{name}" for name in names}


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Train", "TEST")])
@pytest.mark.parametrize("around", ["", "animals/"])
def test_train_and_test_folders_are_kept_apart(
    tmp_path: Path, pack: Pack, around: str, train: str, test: str
) -> None:
    names = [f"{train}/a/1.png", f"{train}/b/2.png", f"{test}/a/3.png", f"{test}/b/4.png"]
    source = put(tmp_path / "folder", *(around + name for name in names))
    expected = {"train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png"}
    assert copied(pack(source)) == expected


def test_a_class_can_be_named_train(tmp_path: Path) -> None:
    source = put(tmp_path / "vehicles", "train/1.png", "bus/2.png")
    assert copied(source) == {"train/train/1.png", "train/bus/2.png"}


def test_files_that_are_not_pictures_are_skipped_with_a_message(
    tmp_path: Path, pack: Pack, capsys: pytest.CaptureFixture[str]
) -> None:
    source = pack(put(tmp_path / "folder", "a/1.png", "b/2.png", "a/x.txt", "b/y", "c.csv", "d.md"))
    assert copied(source) == {"train/a/1.png", "train/b/2.png"}
    assert capsys.readouterr().out.splitlines() == [
        f"{source}: skipped 4 not ending in .bmp, .gif, .jpeg, .jpg, .pbm, .pgm, .png, .ppm, .tif,"
        " .tiff, .webp: a/x.txt, b/y, c.csv, ...",
        f"{source}: train: 2 pictures in 2 classes",
    ]


def test_hidden_files_are_skipped_silently(
    tmp_path: Path, pack: Pack, capsys: pytest.CaptureFixture[str]
) -> None:
    hidden = ["a/.1.png", ".git/x.png", "__MACOSX/a/1.png", ".DS_Store", "a/.cache/x.png"]
    source = put(tmp_path / "folder", "a/1.png", "b/2.png", *hidden)
    assert copied(pack(source)) == {"train/a/1.png", "train/b/2.png"}
    assert "not ending in" not in capsys.readouterr().out


def test_names_are_written_in_composed_form(tmp_path: Path, pack: Pack) -> None:
    apart = unicodedata.normalize("NFD", "é")
    assert apart != "é"
    source = put(tmp_path / "folder", f"{apart}/{apart}.png", "b/1.png")
    assert copied(pack(source)) == {"train/é/é.png", "train/b/1.png"}


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ([], "found no sub-folders; expected one per class"),
        (["notes.txt"], "found no sub-folders"),
        (["1.png", "2.png"], "found no sub-folders"),
        (["a/1.png", "b/2.png", "3.png"], "found pictures beside the class folders: 3.png"),
        (["a/1.png", "b/2.txt"], "found no pictures in b; expected at least one per"),
        (["a/1.png"], "found one class, a; expected two or more"),
        (["x/a/1.png"], "found one class, a"),
        (["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/1.png"], "found train, val;"),
        (["train/a/1", "test/a/1", "val/a/1", "dev/a/1"], "found dev, val beside train and test"),
        (
            ["train/a/1.png", "train/b/1.png", "test/a/1.png", "test/c/1.png"],
            "found b in train but not in test; expected the same",
        ),
        (
            ["train/a/1.png", "train/b/1.png", *(f"test/{c}/1.png" for c in "abc")],
            "found c in test but not in train; expected the same",
        ),
        (
            ["train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.txt"],
            "test: found no pictures in b",
        ),
        (
            ["train/a/1.png", "train/b/1.png", "train/2.png", "test/a/1.png"],
            "train: found pictures",
        ),
        (["a/1.png", "A/2.png"], "only in case"),
        (["train/a/1.png", "Train/a/2.png", "test/a/1.png"], "only in case"),
        (
            ["a/é.png", f"a/{unicodedata.normalize('NFD', 'é')}.png", "b/1.png"],
            "only in Unicode",
        ),
    ],
)
def test_another_layout_is_refused_in_one_line(
    tmp_path: Path, pack: Pack, names: list[str], problem: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    source = pack(put(folder, *names))
    with pytest.raises(ValueError, match=problem) as error:
        copied(source)
    assert str(error.value).startswith(f"{source}: ")
    assert "\n" not in str(error.value)
    assert ".part" not in str(error.value)
    assert not list((tmp_path / "raw").iterdir())


def test_a_name_that_is_not_unicode_is_refused(tmp_path: Path) -> None:
    source = put(tmp_path / "folder", "a/1.png", "b/2.png")
    (source / os.fsdecode(b"a/\xff.png")).write_bytes(b"")
    with pytest.raises(ValueError, match=r"a/\\udcff.png': not printable Unicode"):
        copied(source)


def test_links_are_copied_as_files(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "1.png")
    source = put(tmp_path / "folder", "b/2.png")
    (source / "a").symlink_to(tmp_path / "elsewhere")
    (source / "b/1.png").symlink_to(tmp_path / "elsewhere/1.png")
    assert copied(source) == {"train/a/1.png", "train/b/1.png", "train/b/2.png"}


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    source = put(tmp_path / "folder", "b/2.png")
    (source / "b/loop").symlink_to(source)
    with pytest.raises(ValueError, match="loop: a link to a folder that holds it"):
        copied(source)
    assert not list((tmp_path / "raw").iterdir())


def test_a_folder_that_holds_only_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "folder"
    source.mkdir()
    (source / "loop").symlink_to(source)
    with pytest.raises(ValueError, match="loop: a link to a folder that holds it"):
        copied(source)


def test_a_file_that_is_not_an_archive_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "pictures.zip")
    with pytest.raises(ValueError, match="expected a folder, or a zip or tar archive, of pictures"):
        copied(tmp_path / "pictures.zip")


def test_a_pipe_or_device_is_refused_without_reading_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for source in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ValueError, match="expected a folder, or a zip or tar archive"):
            copy_pictures(source, tmp_path)


def test_nothing_is_left_of_a_hostile_archive(tmp_path: Path) -> None:
    source = tmp_path / "a.tar"
    with tarfile.open(source, "w") as archive:
        archive.add(put(tmp_path / "folder", "a/1.png"), ".")
        archive.addfile(tarfile.TarInfo("../evil.png"))
    with pytest.raises(ValueError, match=r"\.\./evil.png: a path that leads out of the folder"):
        copied(source)
    assert not list((tmp_path / "raw").iterdir())
