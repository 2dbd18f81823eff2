import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stages.formats.split_file import write_split
from stages.images import stored_images
from stages.images.stored_images import StoredImages

Shape = tuple[int, int, int]
shapes = st.tuples(*[st.integers(1, 4)] * 3)


def images_of(n: int, shape: Shape) -> NDArray[np.uint8]:
    return np.random.default_rng(n).integers(0, 256, (n, *shape), np.uint8)


def stored(path: Path, images: NDArray[np.uint8], offset: int = 0) -> StoredImages:
    """Image i has label i and is named "i"."""
    path.write_bytes(bytes(offset) + images.tobytes() + b"what comes after")
    (n, channels, height, width), every = images.shape, np.arange(len(images))
    names = [str(i) for i in range(n)]
    return StoredImages(path.open("rb"), offset, (channels, height, width), every, every, names)


lines = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]))


@given(
    names=st.lists(lines, max_size=5),
    shape=shapes,
    classes=st.lists(st.text(), min_size=1, max_size=3),
    fit=st.sampled_from(["crop", "pad"]),
)
def test_a_splits_file_is_what_safetensors_would_write(
    tmp_path_factory: pytest.TempPathFactory,
    names: list[str],
    shape: Shape,
    classes: list[str],
    fit: Literal["crop", "pad"],
) -> None:
    images, labels = images_of(len(names), shape), np.arange(len(names))
    path = tmp_path_factory.getbasetemp() / "split.safetensors"
    write_split(path, np.array_split(images, 2), shape, labels, iter(names), classes, fit)
    about = json.dumps({"classes": classes, "fit": fit}, ensure_ascii=False)
    text = np.frombuffer("".join(f"{name}\n" for name in names).encode(), np.uint8)
    tensors: dict[str, NDArray[Any]] = {"images": images, "labels": labels, "names": text}
    assert path.read_bytes() == safetensors.numpy.save(tensors, {"split": about})


def test_a_split_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def broken_off() -> Iterator[NDArray[np.uint8]]:
        yield images_of(1, (1, 2, 2))
        raise OSError("the disk is gone")

    path = tmp_path / "split.safetensors"
    with pytest.raises(OSError, match="the disk is gone"):
        write_split(path, broken_off(), (1, 2, 2), np.arange(2), "xy", ["a", "b"], "crop")
    assert not list(tmp_path.iterdir())


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
    assert subset.names == [str(i) for i in subset.labels]


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
        chunks: Any = half.chunks()
        write_split(tmp_path / "split", chunks, half.shape, half.labels, half.names, ["a"], "crop")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        of_file.file.close()
        return peak

    assert peak(4_000) < peak(400) + 40 * 4_000  # 4 MB of images, and some bytes a label
