"""What the model sees of images: as one call gives it, in whatever chunks and threads."""

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from stages.formats.input_spec import InputSpec
from stages.formats.split_file import Images
from stages.images.features import deskew, gradient_features
from stages.images.inputs import compute_features, feature_count, with_features

SPECS = [
    InputSpec(channels, 12, 9, "crop", deskewed, kind)
    for channels in (1, 3)
    for deskewed in (False, True)
    for kind in ("pixels", "gradients")
]


def random_images(spec: InputSpec, number: int = 30) -> Images:
    return np.random.default_rng(0).integers(0, 256, (number, *spec.image_shape), np.uint8)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_features_are_of_the_kind_that_the_spec_names(spec: InputSpec) -> None:
    images = random_images(spec)
    upright = deskew(images) if spec.deskew else images
    expected = upright.reshape(30, -1) if spec.features == "pixels" else gradient_features(upright)
    np.testing.assert_array_equal(compute_features(images, spec), expected)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_number_of_features_is_that_of_the_spec_even_without_images(spec: InputSpec) -> None:
    for number in (0, 1):
        found = compute_features(random_images(spec, number), spec)
        assert found.shape == (number, feature_count(spec))
        assert found.dtype == np.uint8


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("size", [1, 7, 30])
def test_neither_chunks_nor_threads_change_the_features_or_their_order(
    monkeypatch: pytest.MonkeyPatch, threads: int, size: int
) -> None:
    monkeypatch.setattr("stages.images.inputs.cpus", lambda: threads)
    spec = SPECS[-1]
    images = random_images(spec)
    chunks = [images[start : start + size] for start in range(0, 30, size)]
    features, beside = zip(*with_features(iter(chunks), spec), strict=True)
    np.testing.assert_array_equal(np.concatenate(beside), images)
    np.testing.assert_array_equal(np.concatenate(features), compute_features(images, spec))


@pytest.mark.parametrize("threads", [1, 3])
def test_features_are_computed_with_a_few_chunks_in_memory(
    monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr("stages.images.inputs.cpus", lambda: threads)
    taken, most = 0, 0

    def chunks() -> Iterator[Images]:
        nonlocal taken
        for value in range(100):
            taken += 1
            yield np.full((2, 1, 4, 4), value, np.uint8)

    for given, (features, images) in enumerate(with_features(chunks(), InputSpec(1, 4, 4))):
        assert images[0, 0, 0, 0] == features[0, 0] == given
        most = max(most, taken - given)
    assert (taken, most) == (100, 2 * threads + 1)


def test_processes_says_how_many_threads_compute_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROCESSES", "3")
    taken = iter(range(100))
    chunks = (np.full((2, 1, 4, 4), value, np.uint8) for value in taken)
    next(with_features(chunks, InputSpec(1, 4, 4)))
    assert next(taken) == 2 * 3 + 1  # so many chunks were in memory


def test_the_memory_does_not_grow_with_the_number_of_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stages.images.inputs.cpus", lambda: 2)
    spec = InputSpec(1, 100, 100)

    def peak(number: int) -> int:
        chunks = (np.zeros((10, 1, 100, 100), np.uint8) for _ in range(number))  # 100 kB each
        tracemalloc.start()
        try:
            for _ in with_features(chunks, replace(spec, deskew=True)):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    assert peak(200) < 1.5 * peak(20)


def test_an_error_while_features_are_computed_is_raised_to_the_reader() -> None:
    spec = InputSpec(1, 4, 2**27, features="gradients")
    images = np.broadcast_to(np.zeros(1, np.uint8), (1, *spec.image_shape))
    with pytest.raises(ValueError, match=r"expected at most .* set tensorize\.size"):
        list(with_features([images], spec))
