import re
from collections.abc import Sequence
from io import BytesIO
from math import prod
from typing import NoReturn

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from stages.images import stored_images
from stages.images.decoding import Pictures, Unreadable
from stages.images.readers import Dataset, RawSplit
from stages.images.splits import (
    automatic_validation,
    check_classes,
    check_duplicates,
    check_readable,
    check_shapes,
    choose,
    digests,
    hold_out,
    name_classes,
    name_hashes,
)
from stages.images.stored_images import StoredImages


def images_of(
    labels: Sequence[int],
    values: Sequence[int] | None = None,
    shape: tuple[int, int, int] = (1, 1, 1),
) -> StoredImages:
    """Image i has the label labels[i], and values[i], by default i, in all its pixels."""
    pixels = np.array(range(len(labels)) if values is None else values, np.uint8)
    content = np.repeat(pixels, prod(shape)).tobytes()
    every = np.arange(len(labels))
    numbers = np.array(labels, np.int64)
    return StoredImages(BytesIO(content), 0, shape, every, numbers, "{}.png".format)


few_labels = st.lists(st.integers(0, 2), max_size=40)
shares = st.floats(0, 1, exclude_max=True)


def chosen(labels: Sequence[int], amount: float, key: str = "key") -> list[int]:
    names = [f"{i}.png" for i in range(len(labels))]
    hashes = name_hashes(names, key)
    indices: list[int] = choose(np.array(labels, np.int64), hashes, amount).tolist()
    return indices


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
    numbers = np.array([*labels.values()], np.int64)
    return {names[i] for i in choose(numbers, name_hashes(names, "key"), amount)}


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
    images = images_of(labels)
    kept, held_out = hold_out(images, amount, "key")
    assert held_out.positions.tolist() == chosen(labels, amount)
    both = np.concatenate([kept.positions, held_out.positions])
    np.testing.assert_array_equal(np.sort(both), images.positions)


def test_a_part_can_be_split_again() -> None:
    first, rest = hold_out(images_of([0] * 40), 20, "one")
    second, third = hold_out(rest, 5, "two")
    parts = [list(part.names()) for part in (first, second, third)]
    assert [len(part) for part in parts] == [20, 15, 5]
    assert sorted(name for part in parts for name in part) == sorted(images_of([0] * 40).names())


def never_opened(_: object) -> NoReturn:
    raise AssertionError


NOT_READ = RawSplit("train", Pictures((), never_opened, str))
LETTERS = ("N/A", "a", "b")


@pytest.mark.parametrize(
    ("names", "train", "test", "expected"),
    [
        (LETTERS, [2, 1, 2], [1, 1], (("a", "b"), [1, 0, 1], [0, 0])),
        (LETTERS, [2, 2], [1], (("a", "b"), [1, 1], [0])),
        (LETTERS, [2, 1], None, (("a", "b"), [1, 0], None)),
        ((), [7, 3], [3], (("3", "7"), [1, 0], [0])),
        (("a",), [0, 1], [1], (("a", "1"), [0, 1], [1])),
        (("crane", "bird", "crane"), [0, 1, 2], [0], (("0", "1", "2"), [0, 1, 2], [0])),
        (("a", "b"), [-1, 0], [0], (("-1", "a"), [0, 1], [1])),
    ],
    ids=[
        *("unused name", "class missing in a split", "no test split", "no names"),
        *("name missing", "repeated names", "negative label"),
    ],
)
def test_without_given_classes_they_are_the_labels_that_occur(
    names: tuple[str, ...], train: list[int], test: list[int] | None, expected: object
) -> None:
    dataset = Dataset(None, NOT_READ, None, names)
    own_test = None if test is None else images_of(test)
    classes, of_train, of_test = name_classes(dataset, images_of(train), own_test)
    labels = None if of_test is None else of_test.labels.tolist()
    assert (classes, of_train.labels.tolist(), labels) == expected


def test_given_classes_are_kept_even_without_images() -> None:
    images = images_of([0, 2])
    classes, train, test = name_classes(Dataset(("a", "b", "c"), NOT_READ, None), images, None)
    assert (classes, test) == (("a", "b", "c"), None)
    assert train is images


@pytest.mark.parametrize(
    ("number", "examples"),
    [
        (1, "0.png (reason 0)"),
        (5, "0.png (reason 0), 1.png (reason 1), 2.png (reason 2)"),
    ],
)
def test_unreadable_pictures_are_counted_and_three_are_named(number: int, examples: str) -> None:
    unreadable = [Unreadable(f"{i}.png", f"reason {i}") for i in range(number)]
    message = f"unreadable pictures: found {number}, such as {examples}; fix or remove them, or set"
    with pytest.raises(ValueError, match=f"^{re.escape(message)} tensorize.skip_broken"):
        check_readable(unreadable, skip=False)
    check_readable(unreadable, skip=True)
    check_readable([], skip=False)


def test_test_images_must_have_the_shape_of_training_images() -> None:
    train = images_of([0], shape=(1, 2, 3))
    check_shapes(train, images_of([0, 1], shape=(1, 2, 3)))
    message = "found test images of 1 x 3 x 2 pixels; expected 1 x 2 x 3 like the training images"
    with pytest.raises(ValueError, match=f"^{message}"):
        check_shapes(train, images_of([0], shape=(1, 3, 2)))


@pytest.mark.parametrize(
    ("classes", "available", "test", "train", "message"),
    [
        ("a", [0, 0], [0], [0], "found one class, 'a'; expected two or more"),
        ("ab", [0, 0], [0, 1], [0], "class 'b': found 0 training and 1 test images"),
        ("ab", [0, 1, 1], [1], [0, 1], "class 'a': found 1 training and 0 test images"),
        ("ab", [0], [0], [0], "class 'b': found 0 training and 0 test images"),
        ("ab", [0, 1, 1], [0, 1], [0], "class 'b': tensorize.validation takes all 2 training"),
        ("ab", [0, 1, 1], [0, 1], [0, 1], None),
    ],
)
def test_a_class_without_images_to_train_or_test_on_is_an_error(
    classes: str, available: list[int], test: list[int], train: list[int], message: str | None
) -> None:
    labels = (np.array(labels) for labels in (available, test, train))
    if message is None:
        check_classes(classes, *labels)
    else:
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            check_classes(classes, *labels)


TWO_OF_FOUR = (
    "2 of 4 test images are also training images, such as"
    " 1.png (same as 2.png), 2.png (same as 0.png)"
)


@pytest.mark.parametrize(
    ("train", "test", "found"),
    [
        ([10, 20, 30], [40, 30, 10, 50], TWO_OF_FOUR),
        (
            [10, 10, 20],
            [10] * 5,
            "5 of 5 test images are also training images, such as 0.png (same as 0.png),"
            " 1.png (same as 0.png), 2.png (same as 0.png)",
        ),
        ([10, 10], [20, 20], None),
        (
            [10, 20, 30, 20, 40, 20],
            None,
            "2 of 6 images are duplicates, which could land in both train and test, such as"
            " 3.png (same as 1.png), 5.png (same as 1.png)",
        ),
        ([10, 20, 30], None, None),
    ],
    ids=["some", "more than are named", "within a split", "before splitting", "none"],
)
def test_duplicates_across_train_and_test_are_an_error_unless_allowed(
    train: list[int], test: list[int] | None, found: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    images = images_of([0] * len(train), train)
    own_test = None if test is None else images_of([0] * len(test), test)
    if found:
        message = f"{found}; remove them, or set tensorize.allow_duplicates to true"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            check_duplicates(images, own_test, allowed=False)
    else:
        check_duplicates(images, own_test, allowed=False)
    assert capsys.readouterr().out == ""
    check_duplicates(images, own_test, allowed=True)
    assert capsys.readouterr().out == (f"{found}\n" if found else "")


@pytest.mark.parametrize(
    ("labels", "values", "test", "found"),
    [
        (
            [0, 1, 1],
            [10, 10, 20],
            None,
            "1 picture stands in two classes: 1.png and 0.png",
        ),
        (
            [0, 1, 1],
            [10, 20, 30],
            ([0, 1, 1], [20, 10, 20]),
            "2 pictures stand in two classes: 0.png and 1.png; 1.png and 0.png;"
            " 1 of 3 test images are also training images, such as 2.png (same as 1.png)",
        ),
    ],
    ids=["before splitting", "some"],
)
def test_a_picture_in_two_classes_is_told_apart_from_other_duplicates(
    labels: list[int],
    values: list[int],
    test: tuple[list[int], list[int]] | None,
    found: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train, own_test = images_of(labels, values), images_of(*test) if test else None
    message = f"{found}; leave each in one class, or set tensorize.allow_duplicates to true"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        check_duplicates(train, own_test, allowed=False)
    check_duplicates(train, own_test, allowed=True)
    assert capsys.readouterr().out == f"{found}\n"


@pytest.mark.parametrize(
    ("available", "amount"),
    [(0, 0), (199, 0), (200, 0.1), (50_000, 0.1), (50_001, 5000), (60_000, 5000), (10**6, 5000)],
)
def test_a_tenth_is_held_out_for_validation_but_neither_too_few_nor_too_many(
    available: int, amount: float
) -> None:
    assert automatic_validation(available) == amount


@given(values=st.lists(st.integers(0, 5), max_size=20), at_a_time=st.integers(1, 50))
def test_digests_are_equal_exactly_where_images_are(values: list[int], at_a_time: int) -> None:
    images = images_of([0] * len(values), values, (1, 2, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_images, "CHUNK_BYTES", at_a_time)
        found = digests(images)
    assert len(found) == len(values)
    for i, value in enumerate(values):
        np.testing.assert_array_equal(found == found[i], np.array(values) == value)


def test_one_different_pixel_changes_the_digest() -> None:
    pixels = np.zeros((2, 1, 3, 3), np.uint8)
    pixels[1, 0, 2, 2] = 1
    file, labels = BytesIO(pixels.tobytes()), np.zeros(2, np.int64)
    one, other = digests(StoredImages(file, 0, (1, 3, 3), np.arange(2), labels, str))
    assert one != other
