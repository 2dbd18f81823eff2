import os
from pathlib import Path

import pytest

from stages.images.folders import SUFFIXES, pictures_by_class, pictures_in


def put(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(path.encode())
    return folder


def test_pictures_are_told_by_suffix_at_any_depth(tmp_path: Path) -> None:
    put(tmp_path, "b.PNG", "a/c.jpeg", "a/deep/d.tiff", "a/notes.txt", "no_suffix", "png")
    assert pictures_in(tmp_path) == (
        ["a/c.jpeg", "a/deep/d.tiff", "b.PNG"],
        ["a/notes.txt", "no_suffix", "png"],
    )


def test_every_suffix_counts(tmp_path: Path) -> None:
    put(tmp_path, *(f"picture{suffix}" for suffix in SUFFIXES))
    assert len(pictures_in(tmp_path)[0]) == len(SUFFIXES) == 11


def test_the_order_is_that_of_code_points(tmp_path: Path) -> None:
    names = ["狗.png", "é.png", "a.png", "Z.png", "a b/1.png", "a/1.png", "10.png", "9.png"]
    put(tmp_path, *names)
    expected = ["10.png", "9.png", "Z.png", "a b/1.png", "a.png", "a/1.png", "é.png", "狗.png"]
    assert pictures_in(tmp_path)[0] == expected


@pytest.mark.parametrize("path", [".a.png", ".git/a.png", "__MACOSX/a.png", "a/.DS_Store"])
def test_what_is_hidden_is_not_seen(tmp_path: Path, path: str) -> None:
    assert pictures_in(put(tmp_path, path)) == ([], [])


def test_classes_are_the_folders_and_keep_an_empty_one(tmp_path: Path) -> None:
    put(tmp_path, "狗/1.png", "cat/2.png", "cat/deep/1.png", "cat/x.txt", ".hidden/1.png", "1.png")
    (tmp_path / "empty").mkdir()
    by_class = pictures_by_class(tmp_path)
    assert by_class == {"cat": ["cat/2.png", "cat/deep/1.png"], "empty": [], "狗": ["狗/1.png"]}
    assert list(by_class) == ["cat", "empty", "狗"]


def test_a_link_counts_as_what_it_leads_to(tmp_path: Path) -> None:
    put(tmp_path, "elsewhere/a.png", "elsewhere/b.png")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "pictures/one.png").symlink_to(tmp_path / "elsewhere/a.png")
    assert pictures_in(tmp_path / "pictures")[0] == ["cat/a.png", "cat/b.png", "one.png"]
    assert pictures_by_class(tmp_path / "pictures") == {"cat": ["cat/a.png", "cat/b.png"]}


def test_a_link_to_nothing_is_left_for_its_reader_to_tell(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert pictures_in(tmp_path) == (["gone.png"], ["gone"])


@pytest.mark.parametrize("target", [".", "..", "../other"])
def test_a_link_loop_ends_with_an_error(tmp_path: Path, target: str) -> None:
    put(tmp_path / "top", "cat/a.png", "other/b.png")
    (tmp_path / "top/cat/loop").symlink_to(target)
    (tmp_path / "top/other/back").symlink_to("../cat")
    with pytest.raises(ValueError, match=r"/(loop|back): a link to a folder that holds it"):
        pictures_in(tmp_path / "top")


def test_what_would_block_its_reader_is_no_picture(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("pipe.png")
    (tmp_path / "zeros.png").symlink_to("/dev/zero")
    assert pictures_in(tmp_path) == ([], ["link.png", "pipe.png", "zeros.png"])
