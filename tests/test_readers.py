import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays
from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

from stages.readers import read_idx, read_mnist
from stages.wheels import idx_bytes

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

SIX = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6])  # 2 x 3 values


@given(array=arrays(np.uint8, array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=4)))
def test_reading_is_the_inverse_of_writing(
    tmp_path_factory: pytest.TempPathFactory, array: Bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "written"
    path.write_bytes(idx_bytes(array))
    tensor = read_idx(path, array.ndim)
    assert tensor.dtype == torch.uint8
    np.testing.assert_array_equal(tensor.numpy(), array, strict=True)


# What torchvision reads has one to three dimensions and at least one value.
@given(array=arrays(np.uint8, array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4)))
def test_torchvision_reads_the_same(tmp_path_factory: pytest.TempPathFactory, array: Bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "written"
    path.write_bytes(idx_bytes(array))
    assert torch.equal(read_idx(path, array.ndim), read_sn3_pascalvincent_tensor(str(path)))


def test_sizes_stand_high_byte_first_and_the_last_dimension_is_the_fastest(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(SIX)
    assert read_idx(tmp_path / "file", 2).tolist() == [[1, 2, 3], [4, 5, 6]]
    (tmp_path / "file").write_bytes(bytes([0, 0, 8, 1, 0, 0, 1, 2]) + bytes(258))
    assert read_idx(tmp_path / "file", 1).shape == (258,)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (SIX[:-1], "its header says 2 x 3 values: expected 18 bytes, found 17"),
        (SIX + b"x", "its header says 2 x 3 values: expected 18 bytes, found 19"),
        (SIX[:11], "expected a header of 12 bytes, found 11"),
        (b"", "expected an IDX file that begins with 00 00 08 02, found nothing"),
        (b"\0\0", "expected an IDX file that begins with 00 00 08 02, found 00 00"),
        (b"<html>", "expected an IDX file that begins with 00 00 08 02, found 3c 68 74 6d"),
        (
            b"\0\0\x0d" + SIX[3:],
            "expected an IDX file that begins with 00 00 08 02, found 00 00 0d 02",
        ),
        (
            b"\0\0\x08\x03" + SIX[4:],
            "expected an IDX file that begins with 00 00 08 02, found 00 00 08 03",
        ),
    ],
    ids=[
        *("truncated", "too long", "truncated header", "empty", "two bytes", "HTML", "floats"),
        "other dimensions",
    ],
)
def test_what_is_no_such_file_is_told(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"\bIDX\b|header") as error:
        read_idx(path, 2)
    assert str(error.value) == f"{path}: {problem}; `dvc repro` restores it"


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        read_idx(tmp_path / "file", 2)
    assert str(error.value) == (f"{tmp_path / 'file'}: no such file; `dvc repro` restores it")


def write_mnist(raw: Path, split: str, images: Bytes, labels: Bytes) -> None:
    (raw / f"{split}-images-idx3-ubyte").write_bytes(idx_bytes(images))
    (raw / f"{split}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))


@pytest.mark.parametrize("split", ["train", "t10k"])
def test_mnist_is_images_with_their_labels(tmp_path: Path, split: str) -> None:
    images = np.arange(3 * 28 * 28).reshape(3, 28, 28).astype(np.uint8)
    write_mnist(tmp_path, split, images, np.array([9, 0, 3], np.uint8))
    mnist = read_mnist(tmp_path, split)
    assert mnist.classes == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    assert mnist.labels.tolist() == [9, 0, 3]
    assert mnist.images.shape == (3, 1, 28, 28)
    np.testing.assert_array_equal(mnist.images[:, 0].numpy(), images)


def test_mnist_with_unequal_counts_is_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path, "train", np.zeros((3, 28, 28), np.uint8), np.zeros(2, np.uint8))
    images, labels = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    with pytest.raises(ValueError, match=f"^{re.escape(f'{labels}: 2 labels for the 3 images')}"):
        read_mnist(tmp_path, "train")
    labels.unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(str(labels))):
        read_mnist(tmp_path, "train")
    images.unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(str(images))):
        read_mnist(tmp_path, "train")
