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

from stages.images import stored_images
from stages.images.stored_images import StoredImages, write_split

Shape = tuple[int, int, int]
shapes = st.tuples(*[st.integers(1, 4)] * 3)


def images_of(n: int, shape: Shape) -> NDArray[np.uint8]:
    return np.random.default_rng(n).integers(0, 256, (n, *shape), np.uint8)


def stored(path: Path, images: NDArray[np.uint8], offset: int = 0) -> StoredImages:
    path.write_bytes(bytes(offset) + images.tobytes() + b"what comes after")
    channels, height, width = images.shape[1:]
    return StoredImages(path.open("rb"), offset, (channels, height, width), np.arange(len(images)))


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


@given(n=st.integers(0, 9), shape=shapes, offset=st.integers(0, 20), at_a_time=st.integers(1, 40))
def test_chunks_are_all_the_images_in_order(
    tmp_path_factory: pytest.TempPathFactory, n: int, shape: Shape, offset: int, at_a_time: int
) -> None:
    images = images_of(n, shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_images, "CHUNK_BYTES", at_a_time)
        of_file = stored(tmp_path_factory.getbasetemp() / "stored", images, offset)
        chunks = list(of_file.chunks())
        of_file.file.close()
    assert len(of_file) == n
    assert all(len(chunk) == 1 or chunk.nbytes <= at_a_time for chunk in chunks)
    np.testing.assert_array_equal(np.concatenate([images[:0], *chunks]), images)


@given(chosen=st.sets(st.integers(0, 8)), at_a_time=st.integers(1, 40))
def test_the_chosen_are_those_at_the_indices(
    tmp_path_factory: pytest.TempPathFactory, chosen: set[int], at_a_time: int
) -> None:
    images, indices = images_of(9, (1, 2, 2)), np.array(sorted(chosen), np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_images, "CHUNK_BYTES", at_a_time)
        of_file = stored(tmp_path_factory.getbasetemp() / "stored", images, 3)
        found = [images[:0], *of_file.chosen(indices)]
        of_file.file.close()
    np.testing.assert_array_equal(np.concatenate(found), images[indices])


def test_two_can_read_in_turns(tmp_path: Path) -> None:
    images = images_of(4, (1, 2, 2))
    of_file = stored(tmp_path / "stored", images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_images, "CHUNK_BYTES", 4)
        for one, other in zip(of_file.chunks(), of_file.chunks(), strict=True):
            np.testing.assert_array_equal(one, other)
    of_file.file.close()


def test_memory_does_not_grow_with_the_number_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_images, "CHUNK_BYTES", 2**16)

    def peak(n: int) -> int:
        of_file = stored(tmp_path / "stored", np.zeros((n, 1, 32, 32), np.uint8))
        labels, every_other = np.zeros(n // 2, np.int64), np.arange(0, n, 2)
        names = map(str, every_other)
        tracemalloc.start()
        chosen: Any = of_file.chosen(every_other)
        write_split(tmp_path / "split", chosen, (1, 32, 32), labels, names, ["a"], "crop")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        of_file.file.close()
        return peak

    assert peak(4_000) < peak(400) + 40 * 4_000  # 4 MB of images, and some bytes a label
