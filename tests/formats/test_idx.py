import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays
from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

from stages.formats.idx import idx_bytes, read_idx

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

SIX = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6])  # 2 x 3 values


@given(array=arrays(np.uint8, array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=4)))
def test_an_idx_file_reads_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, array: Bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "written"
    path.write_bytes(idx_bytes(array))
    np.testing.assert_array_equal(np.array(read_idx(path, array.ndim)), array, strict=True)


# torchvision's reader takes one to three dimensions and at least one value.
@given(array=arrays(np.uint8, array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4)))
def test_torchvision_reads_the_idx_files_we_write(
    tmp_path_factory: pytest.TempPathFactory, array: Bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "written"
    path.write_bytes(idx_bytes(array))
    written = read_sn3_pascalvincent_tensor(str(path)).numpy()
    np.testing.assert_array_equal(written, array, strict=True)


def test_the_last_idx_dimension_varies_fastest_whatever_the_memory_layout() -> None:
    array = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    assert idx_bytes(array) == SIX
    assert idx_bytes(np.asfortranarray(array)) == SIX


def test_idx_sizes_are_stored_high_byte_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes([0, 0, 8, 1, 0, 0, 1, 2]) + bytes(258))
    assert read_idx(tmp_path / "file", 1).shape == (258,)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (SIX[:-1], "found 17 bytes; expected 18, since its header says 2 x 3 values"),
        (SIX + b"x", "found 19 bytes; expected 18, since its header says 2 x 3 values"),
        (SIX[:11], "found 11 bytes; expected a header of 12"),
        (b"", "found an empty file; expected an IDX file, which begins with 00 00 08 02"),
        (b"\0\0", "found 00 00; expected an IDX file, which begins with 00 00 08 02"),
        (b"<html>", "found 3c 68 74 6d; expected an IDX file, which begins with 00 00 08 02"),
        (b"\0\0\x0d" + SIX[3:], "found 00 00 0d 02; expected an IDX file, which begins with 00 00"),
        (b"\0\0\x08\x03" + SIX[4:], "found 00 00 08 03; expected an IDX file, which begins with"),
        (gzip.compress(SIX), "found 1f 8b 08 00; expected an IDX file, which begins with 00 00"),
    ],
    ids=[
        *("truncated", "too long", "truncated header", "empty", "two bytes", "HTML", "floats"),
        *("other dimensions", "gzipped"),
    ],
)
def test_a_file_that_is_not_valid_idx_is_refused(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="found") as error:
        read_idx(path, 2)
    assert str(error.value).startswith(f"{path}: {problem}")
    assert str(error.value).endswith("; `dvc repro -f -s download` fetches it again")


def test_a_missing_idx_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        read_idx(tmp_path / "file", 2)
    assert str(error.value) == (
        f"{tmp_path / 'file'}: no such file; `dvc repro -f -s download` fetches it again"
    )
