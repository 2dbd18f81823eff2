import os
from itertools import product
from pathlib import Path

import pytest

from stages.images.folders import MAX_DEPTH, SUFFIXES, pictures_by_class, pictures_in


def put(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(path.encode())
    return folder


def test_pictures_are_recognised_by_suffix_at_any_depth(tmp_path: Path) -> None:
    put(tmp_path, "b.PNG", "a/c.jpeg", "a/deep/d.tiff", "a/notes.txt", "no_suffix", "png")
    assert pictures_in(tmp_path) == (
        ["a/c.jpeg", "a/deep/d.tiff", "b.PNG"],
        ["a/notes.txt", "no_suffix", "png"],
    )


def test_every_suffix_is_recognised(tmp_path: Path) -> None:
    put(tmp_path, *(f"picture{suffix}" for suffix in SUFFIXES))
    assert len(pictures_in(tmp_path)[0]) == len(SUFFIXES) == 11


def test_pictures_are_sorted_by_code_point(tmp_path: Path) -> None:
    names = ["狗.png", "é.png", "a.png", "Z.png", "a b/1.png", "a/1.png", "10.png", "9.png"]
    put(tmp_path, *names)
    expected = ["10.png", "9.png", "Z.png", "a b/1.png", "a.png", "a/1.png", "é.png", "狗.png"]
    assert pictures_in(tmp_path)[0] == expected


@pytest.mark.parametrize("path", [".a.png", ".git/a.png", "__MACOSX/a.png", "a/.DS_Store"])
def test_hidden_files_and_folders_are_ignored(tmp_path: Path, path: str) -> None:
    assert pictures_in(put(tmp_path, path)) == ([], [])


def test_each_folder_is_a_class_even_if_empty(tmp_path: Path) -> None:
    put(tmp_path, "狗/1.png", "cat/2.png", "cat/deep/1.png", "cat/x.txt", ".hidden/1.png", "1.png")
    (tmp_path / "empty").mkdir()
    by_class = pictures_by_class(tmp_path)
    assert by_class == {"cat": ["cat/2.png", "cat/deep/1.png"], "empty": [], "狗": ["狗/1.png"]}
    assert list(by_class) == ["cat", "empty", "狗"]


def test_links_are_followed(tmp_path: Path) -> None:
    put(tmp_path, "elsewhere/a.png", "elsewhere/b.png")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "pictures/one.png").symlink_to(tmp_path / "elsewhere/a.png")
    assert pictures_in(tmp_path / "pictures")[0] == ["cat/a.png", "cat/b.png", "one.png"]
    assert pictures_by_class(tmp_path / "pictures") == {"cat": ["cat/a.png", "cat/b.png"]}


def test_a_dangling_link_counts_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert pictures_in(tmp_path) == (["gone.png"], ["gone"])


@pytest.mark.parametrize("target", [".", "..", "../other"])
def test_a_loop_of_links_is_an_error(tmp_path: Path, target: str) -> None:
    put(tmp_path / "top", "cat/a.png", "other/b.png")
    (tmp_path / "top/cat/loop").symlink_to(target)
    (tmp_path / "top/other/back").symlink_to("../cat")
    with pytest.raises(ValueError, match=r"/(loop|back): a link to a folder that holds it"):
        pictures_in(tmp_path / "top")


def test_folders_nested_too_deep_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "/".join(["d"] * MAX_DEPTH + ["a.png"]))
    assert len(pictures_in(tmp_path)[0]) == 1
    put(tmp_path, "/".join(["d"] * (MAX_DEPTH + 1) + ["a.png"]))
    with pytest.raises(ValueError, match=f"^{tmp_path}: found folders more than {MAX_DEPTH} deep"):
        pictures_in(tmp_path)


def test_links_that_multiply_folders_are_refused(tmp_path: Path) -> None:
    """25 folders with two links to the next: 2**25 paths, but a few links are in order."""
    for level in range(25):
        (tmp_path / str(level)).mkdir()
        for name in "ab":
            (tmp_path / str(level) / name).symlink_to(f"../{level + 1}")
    assert pictures_in(tmp_path / "20") == ([], [f"{'/'.join(p)}" for p in product(*["ab"] * 5)])
    with pytest.raises(ValueError, match=f"^{tmp_path / '0'}: found links that lead to the same"):
        pictures_in(tmp_path / "0")


def test_pipes_and_devices_are_not_pictures(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("pipe.png")
    (tmp_path / "zeros.png").symlink_to("/dev/zero")
    assert pictures_in(tmp_path) == ([], ["link.png", "pipe.png", "zeros.png"])
