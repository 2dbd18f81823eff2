import os
import re
from pathlib import Path

import pytest

from stages.sources.own_pictures import opened
from stages.sources.placed_pictures import holds, originals, place, place_for

WATCHED = Path("pictures")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of four pictures outside of the repository, which is the current folder."""
    for path in ("cat/1.png", "cat/é/2.JPG", "dog/1.png", "dog/2.png"):
        file = tmp_path / "my animals" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path, encoding="utf-8")
    (tmp_path / "my animals/notes.txt").touch()
    (tmp_path / "repository/pictures").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "repository")
    return tmp_path / "my animals"


def files_of(source: Path) -> dict[str, Path]:
    with opened(source, WATCHED) as layout:
        return dict(originals(layout))


def test_pictures_are_copied_and_neither_linked_nor_mixed_with_other_files(source: Path) -> None:
    files = files_of(source)
    assert files.keys() == {"cat/1.png", "cat/é/2.JPG", "dog/1.png", "dog/2.png"}
    target = WATCHED / "my animals"
    assert not target.exists()
    place(files, target)
    assert holds(target, files)
    assert not (target / "notes.txt").exists()
    assert {path.name for path in WATCHED.iterdir()} == {"my animals"}
    for path, file in files.items():
        assert not (target / path).samefile(file)


@pytest.mark.parametrize("change", ["another byte", "one more", "one less", "another name"])
def test_a_folder_with_any_other_picture_does_not_hold_the_same(source: Path, change: str) -> None:
    files, target = files_of(source), WATCHED / "my animals"
    place(files, target)
    if change == "another byte":
        (source / "cat/1.png").write_text("cat/2.png")
    elif change == "one more":
        (target / "cat/3.png").touch()
    elif change == "one less":
        (target / "cat/1.png").unlink()
    else:
        (target / "cat/1.png").rename(target / "cat/3.png")
    assert not holds(target, files)


def test_the_older_pictures_stay_if_one_cannot_be_copied(source: Path) -> None:
    files, target = files_of(source), WATCHED / "my animals"
    place(files, target)
    (source / "dog/2.png").unlink()
    with pytest.raises(FileNotFoundError):
        place(files, target)
    assert (target / "dog/2.png").read_text() == "dog/2.png"
    assert {path.name for path in WATCHED.iterdir()} == {"my animals"}


def test_links_are_followed_and_a_dead_one_is_named(source: Path, tmp_path: Path) -> None:
    (source / "cat/1.png").rename(tmp_path / "elsewhere.png")
    (source / "cat/1.png").symlink_to(tmp_path / "elsewhere.png")
    place(files_of(source), WATCHED / "my animals")
    assert not (WATCHED / "my animals/cat/1.png").is_symlink()
    (tmp_path / "elsewhere.png").unlink()
    expected = f"{source}/cat/1.png: a link that leads nowhere; remove it"
    with pytest.raises(ValueError, match=re.escape(expected)):
        files_of(source)


def test_a_picture_that_may_not_be_read_is_named(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda file, _: "dog" not in str(file))  # root may read all
    expected = f"{source}/dog/1.png: found no permission to read it"
    with pytest.raises(PermissionError, match=re.escape(expected)):
        files_of(source)


def test_a_link_in_their_place_is_named(source: Path) -> None:
    place = WATCHED / source.name
    place.symlink_to(source)
    with pytest.raises(ValueError, match=f"{place}: found a link, which DVC does not follow"):
        place_for(source, WATCHED)


def test_the_place_has_the_name_that_the_user_gave(source: Path, tmp_path: Path) -> None:
    assert place_for(source, WATCHED) == Path("pictures/my animals")
    assert place_for(Path("../my animals/"), WATCHED) == Path("pictures/my animals")
    link = tmp_path / "Tiere"
    link.symlink_to(source)
    assert place_for(link, WATCHED) == Path("pictures/Tiere")
    spaced = tmp_path / " pets "
    spaced.mkdir()
    assert place_for(spaced, WATCHED) == Path("pictures/pets")
    archive = tmp_path / "pets.tar.gz"
    archive.touch()
    assert place_for(archive, WATCHED) == Path("pictures/pets")


def test_pictures_that_are_watched_already_stay_where_they_are(source: Path) -> None:
    source.rename("pictures/here")
    for path in (Path("pictures/here"), Path("pictures/here").absolute()):
        assert place_for(path, WATCHED) == Path("pictures/here")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (".", "found the folder of this pipeline"),
        ("..", "found the folder of this pipeline"),
        ("/", "found the folder of this pipeline"),
        ("pictures", "found the folder of this pipeline"),
        ("animals", "in this repository, where `git add .` would commit"),
        ("data/raw", "in this repository, where `git add .` would commit"),
        ("../.hidden", "found the name '.hidden', unfit"),
        ("../a.dvc", "found the name 'a.dvc', unfit"),
        ("../README.md", "found the name 'README.md', unfit"),
        ("../a\nb", "not printable Unicode"),
        ("../a\r", "not printable Unicode"),
        (f"../{'é' * 121}", "found a name of 242 bytes; expected at most 240"),
        ("pictures/a\nb", "not printable Unicode"),
        ("pictures/a/b ", "found the name 'b ', unfit"),
        ("pictures/a.part", "found the name 'a.part', unfit"),
    ],
)
def test_a_folder_that_cannot_be_placed_is_refused(source: Path, path: str, message: str) -> None:
    os.makedirs(path, exist_ok=True)  # noqa: PTH103  # "." too
    before = [*WATCHED.rglob("*")]
    with pytest.raises(ValueError, match=re.escape(message)):
        place_for(Path(path), WATCHED)
    assert [*WATCHED.rglob("*")] == before
    assert source.is_dir()


@pytest.mark.parametrize("path", ["nowhere", "../nowhere", "~nobody/x", "x" * 300])
def test_a_path_that_is_not_there_is_an_os_error_that_names_it(source: Path, path: str) -> None:
    with pytest.raises(OSError, match=re.escape(path)):
        place_for(Path(path), WATCHED)
    assert source.is_dir()
