import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from stages.formats.split_file import LabelledImages
from stages.images import stored_images
from stages.images.collection import Collected
from stages.images.decoding import Pictures, Unreadable
from stages.images.readers import Source, SourceSplit
from stages.images.splits import (
    Split,
    check_classes,
    check_duplicates,
    check_readable,
    check_shapes,
    choose,
    digests,
    name_classes,
)
from stages.images.stored_images import StoredImages


def never_opened(_: Any) -> NoReturn:
    raise AssertionError


def collected(
    labels: Sequence[int],
    values: Sequence[int] | None = None,
    shape: tuple[int, int, int] = (1, 1, 1),
) -> Collected:
    """Images whose pixels are all values[i], by default i; pictures with an odd number are none."""
    pixels = np.array(range(len(labels)) if values is None else values, np.uint8)
    content = np.repeat(pixels, shape[0] * shape[1] * shape[2]).tobytes()
    pictures = Pictures(range(2 * len(labels)), never_opened, "picture {}".format)
    return Collected(
        SourceSplit("train", pictures),
        StoredImages(BytesIO(content), 0, shape, np.array(labels, np.int64)),
        np.arange(0, 2 * len(labels), 2),
        [],
    )


def whole(labels: Sequence[int], values: Sequence[int] | None = None) -> Split:
    return Split.of_all(collected(labels, values))


few_labels = st.lists(st.integers(0, 2), max_size=40)
shares = st.floats(0, 1, exclude_max=True)


def chosen(labels: Sequence[int], amount: float, key: str = "key") -> list[int]:
    names = [f"{i}.png" for i in range(len(labels))]
    return choose(np.array(labels, np.int64), names, amount, key).tolist()


@given(labels=few_labels, share=shares.filter(bool), key=st.text())
def test_a_share_is_taken_of_each_class(labels: list[int], share: float, key: str) -> None:
    indices = chosen(labels, share, key)
    assert indices == sorted(set(indices))
    for label in set(labels):
        of_class, taken = labels.count(label), sum(labels[i] == label for i in indices)
        if of_class == 1:
            assert taken == 0
        else:
            assert 1 <= taken < of_class
            assert taken in {1, of_class - 1} or abs(taken - share * of_class) <= 0.5 + 1e-9


@given(labels=few_labels, data=st.data())
def test_a_count_is_exact_and_in_proportion(labels: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(labels)))
    indices = chosen(labels, count)
    assert indices == sorted(set(indices))
    assert len(indices) == count
    taken = np.bincount([labels[i] for i in indices], minlength=3)
    of_class = np.bincount(labels, minlength=3)
    assert (np.abs(taken - of_class * count / max(1, len(labels))) <= 2).all()
    if count >= 3:  # each class that can spare an image gives one
        assert (taken >= (of_class > 1)).all()
    if count <= len(labels) - 3:
        assert (taken < of_class)[of_class > 0].all()


@pytest.mark.parametrize("amount", [0.3, 30])
def test_shares_and_counts_agree_with_scikit_learn(amount: float) -> None:
    labels = [0] * 50 + [1] * 30 + [2] * 20
    _, expected = train_test_split(labels, test_size=amount, stratify=labels, random_state=0)
    found = [labels[i] for i in chosen(labels, amount)]
    assert np.bincount(found).tolist() == np.bincount(expected).tolist() == [15, 9, 6]


@pytest.mark.parametrize("amount", [0.25, 10])
def test_the_key_decides_which_images_are_chosen(amount: float) -> None:
    keys = ("test 0", "test 0", "test 1", "validation 0")
    first, again, *others = (chosen([0, 1] * 20, amount, key) for key in keys)
    assert first == again
    assert len({tuple(indices) for indices in (range(10), first, *others)}) == 4


def test_the_choice_never_changes() -> None:
    """Another order of hashes would move every user's images between splits."""
    assert chosen([0, 1, 1] * 5, 0.3, "test 0") == [1, 3, 4, 10]
    assert chosen([0, 1, 1] * 5, 4, "validation 0") == [3, 4, 7, 14]


def chosen_names(labels: dict[str, int], amount: float) -> set[str]:
    names = list(labels)
    return {names[i] for i in choose(np.array([*labels.values()], np.int64), names, amount, "key")}


@given(
    labels=st.dictionaries(st.text(), st.integers(0, 2), min_size=2, max_size=40), data=st.data()
)
def test_a_picture_added_or_removed_moves_at_most_two_others(
    labels: dict[str, int], data: st.DataObject
) -> None:
    amount = data.draw(shares | st.integers(1, len(labels) - 1))
    picture = data.draw(st.sampled_from(sorted(labels)))
    others = {name: label for name, label in labels.items() if name != picture}
    moved = (chosen_names(labels, amount) ^ chosen_names(others, amount)) - {picture}
    if amount < 1:
        assert [labels[name] for name in moved] in ([], [labels[picture]])
    else:
        assert len(moved) <= 2


@given(order=st.permutations(range(40)), amount=st.sampled_from([0.3, 12]))
def test_the_order_of_the_pictures_does_not_matter(order: list[int], amount: float) -> None:
    one, other = ({f"{i}.png": i % 3 for i in some} for some in (range(40), order))
    assert chosen_names(one, amount) == chosen_names(other, amount)


@given(labels=few_labels, amount=shares | st.integers(1, 40))
def test_each_image_is_either_kept_or_held_out(labels: list[int], amount: float) -> None:
    split = whole(labels)
    kept, held_out = split.hold_out(amount, "key")
    for part in (kept, held_out):
        assert (np.diff(part.indices) > 0).all()
        np.testing.assert_array_equal(part.labels, split.collected.images.labels[part.indices])
    both = np.concatenate([kept.indices, held_out.indices])
    np.testing.assert_array_equal(np.sort(both), np.arange(len(split)))


def test_a_part_is_split_further() -> None:
    first, rest = whole([0] * 40).hold_out(20, "one")
    second, third = rest.hold_out(5, "two")
    parts = [part.indices.tolist() for part in (first, second, third)]
    assert [len(part) for part in parts] == [20, 15, 5]
    assert sorted(i for part in parts for i in part) == list(range(40))


def test_a_split_is_written_as_what_the_other_stages_load(tmp_path: Path) -> None:
    split, _ = whole([2, 0, 1, 2], [40, 50, 60, 70]).hold_out(1, "key")
    split.write(tmp_path / "split", ("a", "b", "c"), "pad")
    loaded = LabelledImages.load(tmp_path / "split")
    assert loaded.images.flatten().tolist() == [(40, 50, 60, 70)[i] for i in split.indices]
    assert loaded.labels.tolist() == split.labels.tolist()
    assert loaded.pictures == [f"picture {2 * i}" for i in split.indices]
    assert (loaded.classes, loaded.fit) == (("a", "b", "c"), "pad")


def named(
    names: tuple[str, ...], train: Sequence[int], test: Sequence[int]
) -> tuple[tuple[str, ...], list[int], list[int]]:
    files = collected(train)
    source = Source(None, files.split, files.split, names)
    classes, *renamed = name_classes(source, files, collected(test))
    of_train, of_test = (one.images.labels.tolist() for one in renamed)
    return classes, of_train, of_test


def test_names_that_no_image_has_are_left_out() -> None:
    letters = ("N/A", "a", "b")
    assert named(letters, [2, 1, 2], [1, 1]) == (("a", "b"), [1, 0, 1], [0, 0])
    assert named(letters, [2, 2], [1]) == (("a", "b"), [1, 1], [0])


def test_classes_without_a_name_of_their_own_have_their_number() -> None:
    assert named((), [7, 3], [3]) == (("3", "7"), [1, 0], [0])
    assert named(("a",), [0, 1], [1]) == (("a", "1"), [0, 1], [1])
    assert named(("crane", "bird", "crane"), [0, 1, 2], [0]) == (("0", "1", "2"), [0, 1, 2], [0])
    assert named(("a", "b"), [-1, 0], [0]) == (("-1", "a"), [0, 1], [1])


def test_names_of_a_folder_are_all_classes() -> None:
    files = collected([0, 2])
    source = Source(("a", "b", "c"), files.split, None)
    assert name_classes(source, files, files) == (("a", "b", "c"), files, files)


def test_pictures_that_cannot_be_read_are_told_at_once() -> None:
    broken = [Unreadable(f"{i}.png", f"reason {i}") for i in range(5)]
    check_readable([], skip=False)
    check_readable(broken, skip=True)
    for number, named in (
        (1, "0.png (reason 0)"),
        (5, "0.png (reason 0), 1.png (reason 1), 2.png (reason 2)"),
    ):
        message = f"{number} of the pictures cannot be read: {named}; mend or remove them, or set"
        with pytest.raises(ValueError, match=f"^{re.escape(message)} tensorize.skip_broken"):
            check_readable(broken[:number], skip=False)


def test_test_images_have_the_shape_of_training_images() -> None:
    check_shapes(collected([0], shape=(1, 2, 3)), collected([0, 1], shape=(1, 2, 3)))
    message = "training images are 1 x 2 x 3, test images 1 x 3 x 2 pixels; set tensorize.size"
    with pytest.raises(ValueError, match=f"^{message}"):
        check_shapes(collected([0], shape=(1, 2, 3)), collected([0], shape=(1, 3, 2)))


@pytest.mark.parametrize(
    ("classes", "files", "test", "train", "message"),
    [
        (("a",), [0, 0], [0], [0], "one class only, 'a'; expected two or more"),
        (("a", "b"), [0, 0], [0, 1], [0], "class 'b': 0 images to train on and 1 to test on"),
        (("a", "b"), [0, 1, 1], [1], [0, 1], "class 'a': 1 images to train on and 0 to test on"),
        (("a", "b"), [0], [0], [0], "class 'b': 0 images to train on and 0 to test on"),
        (("a", "b"), [0, 1, 1], [0, 1], [0], "tensorize.validation takes all of its 2 training"),
    ],
)
def test_a_class_that_cannot_be_learned_or_tested_is_named(
    classes: tuple[str, ...], files: list[int], test: list[int], train: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_classes(classes, whole(files), whole(test), whole(train))


def test_two_classes_with_an_image_of_each_in_each_will_do() -> None:
    check_classes(("a", "b"), whole([0, 1]), whole([1, 0]), whole([0, 1]))


def check_told(
    train: Collected, test: Collected, found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = f"{found}; remove them, or set tensorize.allow_duplicates to true"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        check_duplicates(train, test, allowed=False)
    assert capsys.readouterr().out == ""
    check_duplicates(train, test, allowed=True)
    assert capsys.readouterr().out == f"{found}\n"


def test_training_images_among_the_test_images_are_counted_and_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    train, test = collected([0, 1, 0], [10, 20, 30]), collected([0, 1, 1, 0], [40, 30, 10, 50])
    named = "picture 2 (as picture 4), picture 4 (as picture 0)"
    found = f"2 of 4 test images are training images too, such as {named}"
    check_told(train, test, found, capsys)


def test_three_of_them_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    train, test = collected([0] * 3, [10, 10, 20]), collected([0] * 5, [10] * 5)
    named = "picture 0 (as picture 0), picture 2 (as picture 0), picture 4 (as picture 0)"
    found = f"5 of 5 test images are training images too, such as {named}"
    check_told(train, test, found, capsys)


def test_pictures_that_are_there_again_are_told_before_they_are_split(
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = collected([0, 0, 0, 1, 0, 1], [10, 20, 30, 20, 40, 20])
    named = "picture 6 (as picture 2), picture 10 (as picture 2)"
    found = f"2 of 6 pictures are there again, to be trained on and tested on, such as {named}"
    check_told(files, files, found, capsys)
    different = collected([0, 0, 1], [10, 20, 30])
    check_duplicates(different, different, allowed=False)
    assert capsys.readouterr().out == ""


def test_duplicates_within_a_split_are_no_leak(capsys: pytest.CaptureFixture[str]) -> None:
    check_duplicates(collected([0, 1], [10, 10]), collected([0, 1], [20, 20]), allowed=False)
    assert capsys.readouterr().out == ""


@given(values=st.lists(st.integers(0, 5), max_size=20), at_a_time=st.integers(1, 50))
def test_digests_are_equal_where_images_are(values: list[int], at_a_time: int) -> None:
    images = collected([0] * len(values), values, (1, 2, 3)).images
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_images, "CHUNK_BYTES", at_a_time)
        found = digests(images)
    for i, value in enumerate(values):
        np.testing.assert_array_equal(found == found[i], np.array(values) == value)


def test_one_pixel_makes_another_digest() -> None:
    pixels = np.zeros((2, 1, 3, 3), np.uint8)
    pixels[1, 0, 2, 2] = 1
    images = StoredImages(BytesIO(pixels.tobytes()), 0, (1, 3, 3), np.zeros(2, np.int64))
    one, other = digests(images)
    assert one != other
