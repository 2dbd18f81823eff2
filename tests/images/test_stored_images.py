import tracemalloc
from collections import deque
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stages.images import stored_images
from stages.images.stored_images import StoredImages

Shape = tuple[int, int, int]
shapes = st.tuples(*[st.integers(1, 4)] * 3)


def images_of(n: int, shape: Shape) -> NDArray[np.uint8]:
    return np.random.default_rng(n).integers(0, 256, (n, *shape), np.uint8)


def stored(path: Path, images: NDArray[np.uint8], offset: int = 0) -> StoredImages:
    """Image i has label i and is named "i"."""
    path.write_bytes(bytes(offset) + images.tobytes() + b"what comes after")
    every = np.arange(len(images))
    return StoredImages(path.open("rb"), offset, images.shape[1:], every, every, str)


@given(
    chosen=st.lists(st.booleans(), max_size=9),
    shape=shapes,
    offset=st.integers(0, 20),
    at_a_time=st.integers(1, 40),
)
def test_chunks_are_the_images_of_the_subset_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    chosen: list[bool],
    shape: Shape,
    offset: int,
    at_a_time: int,
) -> None:
    images, mask = images_of(len(chosen), shape), np.array(chosen, np.bool_)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_images, "CHUNK_BYTES", at_a_time)
        whole = stored(tmp_path_factory.getbasetemp() / "stored", images, offset)
        subset = whole.subset(mask)
        chunks = list(subset.chunks())
        np.testing.assert_array_equal(np.concatenate([images[:0], *whole.chunks()]), images)
        whole.file.close()
    assert all(len(chunk) == 1 or chunk.nbytes <= at_a_time for chunk in chunks)
    np.testing.assert_array_equal(np.concatenate([images[:0], *chunks]), images[mask])
    assert len(subset) == sum(chosen)
    assert subset.labels.tolist() == np.flatnonzero(mask).tolist()
    assert list(subset.names()) == [str(i) for i in subset.labels]


def test_two_readers_of_one_file_do_not_disturb_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = images_of(4, (1, 2, 2))
    of_file = stored(tmp_path / "stored", images)
    monkeypatch.setattr(stored_images, "CHUNK_BYTES", 4)
    for one, other in zip(of_file.chunks(), of_file.chunks(), strict=True):
        np.testing.assert_array_equal(one, other)
    of_file.file.close()


def test_memory_does_not_grow_with_the_number_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_images, "CHUNK_BYTES", 2**16)

    def peak(n: int) -> int:
        of_file = stored(tmp_path / "stored", np.zeros((n, 1, 32, 32), np.uint8))
        half = of_file.subset(np.arange(n) % 2 == 0)
        tracemalloc.start()
        deque(half.chunks(), maxlen=0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        of_file.file.close()
        return peak

    assert peak(4_000) < peak(400) + 40 * 4_000  # 4 MB of images, and some bytes a label
