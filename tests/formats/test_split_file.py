import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.formats.split_file import LabelledImages
from stages.images.stored_images import write_split

Make = Callable[..., LabelledImages]


# What is no line feed, though splitlines() takes it for one, and what UTF-8 writes as many bytes.
NAMES = ("train/a/x.png", "train/a/\u2028\u2029\x85\r\x0b.png", "", "train/猫 cat/ü.png", "😀")


@given(n=st.integers(0, 5), shape=st.tuples(*[st.integers(1, 3)] * 3), seed=st.integers(0, 9))
def test_save_and_load_are_inverse(
    tmp_path_factory: pytest.TempPathFactory, n: int, shape: tuple[int, int, int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 3, (n,), generator=generator)
    names = torch.tensor(
        list("".join(f"{name}\n" for name in NAMES[:n]).encode()), dtype=torch.uint8
    )
    saved = LabelledImages(images, labels, ("naïve", "二", 'a "b", c'), "pad", names)
    path = tmp_path_factory.mktemp("images") / "split.safetensors"
    saved.save(path)
    about = json.dumps({"classes": saved.classes, "fit": saved.fit}, ensure_ascii=False)
    assert path.read_bytes() == safetensors.torch.save(
        {"images": images, "labels": labels, "names": names}, {"split": about}
    )
    loaded = LabelledImages.load(path)
    assert torch.equal(loaded.images, saved.images)
    assert torch.equal(loaded.labels, saved.labels)
    assert (loaded.classes, loaded.fit) == (saved.classes, saved.fit)
    assert loaded.pictures == saved.pictures == list(NAMES[:n])


def test_pictures_without_names_have_their_numbers(tmp_path: Path, make_images: Make) -> None:
    split = make_images(n=3)
    assert split.pictures == ["0", "1", "2"]
    split.save(tmp_path / "split")
    loaded = LabelledImages.load(tmp_path / "split")
    assert bytes(loaded.names.tolist()) == b"0\n1\n2\n"
    assert loaded.pictures == split.pictures


def test_a_subset_has_no_names(tmp_path: Path) -> None:
    write_split(tmp_path / "split", [IMAGES.numpy()], (1, 2, 2), LABELS.numpy(), "xy", "ab", "crop")
    split = LabelledImages.load(tmp_path / "split")
    assert split.pictures == ["x", "y"]
    subset = split.subset(torch.tensor([1]))
    assert torch.equal(subset.labels, LABELS[1:])
    assert subset.pictures == ["0"]


def test_bytes_depend_on_the_content_alone(tmp_path: Path, make_images: Make) -> None:
    make_images().save(tmp_path / "here" / "one.safetensors")
    code = (
        "import sys; from pathlib import Path;"
        "from stages.formats.split_file import LabelledImages as L;"
        "L.load(Path(sys.argv[1])).save(Path(sys.argv[2]))"
    )
    one, two = tmp_path / "here" / "one.safetensors", tmp_path / "two.safetensors"
    subprocess.run([sys.executable, "-c", code, str(one), str(two)], check=True)
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="Windows files have no holes")
def test_a_split_may_be_larger_than_the_memory(tmp_path: Path) -> None:
    shape, path = (3, 2000, 2000), tmp_path / "split.safetensors"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    n = 2 * memory // 12_000_000
    write_split(path, [], shape, np.zeros(n, np.int64), [], ("a", "b"), "crop")
    os.truncate(path, path.stat().st_size + n * 12_000_000)  # a hole: it takes no space on disk
    split = LabelledImages.load(path)
    assert split.images.shape == (n, *shape)
    assert not split.images[-1].any()


def test_how_pictures_fit_is_kept(tmp_path: Path) -> None:
    saved = LabelledImages(IMAGES, LABELS, ("a", "b"), "pad")
    saved.subset(torch.tensor([1])).save(tmp_path / "split")
    assert LabelledImages.load(tmp_path / "split").fit == "pad"


def test_batches_leave_nothing_out(make_images: Make) -> None:
    split = make_images(n=7)
    batches = list(split.batches(3))
    assert [len(labels) for _, labels in batches] == [3, 3, 1]
    assert torch.equal(torch.cat([images for images, _ in batches]), split.images)
    assert torch.equal(torch.cat([labels for _, labels in batches]), split.labels)


IMAGES = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
LABELS = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("images", "labels", "classes", "message"),
    [
        (IMAGES.float(), LABELS, ("a", "b"), "expected .N, C, H, W. uint8, found"),
        (IMAGES[0], LABELS, ("a", "b"), "expected .N, C, H, W. uint8, found .1, 2, 2."),
        (IMAGES, LABELS.int(), ("a", "b"), "int64, found .2,. torch.int32"),
        (IMAGES, LABELS[:1], ("a", "b"), "expected .2,. int64"),
        (IMAGES, LABELS, ("a",), "expected 0 to 0 .1 classes., found 0 to 1"),
        (IMAGES, LABELS - 1, ("a", "b"), "found -1 to 0"),
        (IMAGES, LABELS, ("a", "a"), "distinct names"),
        (IMAGES[:0], LABELS[:0], (), "distinct names"),
    ],
)
def test_refuses_what_is_not_labelled_images(
    images: torch.Tensor, labels: torch.Tensor, classes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        LabelledImages(images, labels, classes)


def test_load_names_a_file_that_is_missing_or_broken(tmp_path: Path, make_images: Make) -> None:
    path = tmp_path / "split.safetensors"
    with pytest.raises(FileNotFoundError, match="split.safetensors: no such file; `dvc repro"):
        LabelledImages.load(path)
    make_images().save(path)
    whole = path.read_bytes()
    for broken in (
        b"",
        whole[:-1],
        whole[:40],
        b"\0" * 100,
        whole.replace(b"classes", b"klasses"),
        whole.replace(b"fit", b"fat"),
    ):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="split.safetensors: not labelled images") as caught:
            LabelledImages.load(path)
        assert "\n" not in str(caught.value)
