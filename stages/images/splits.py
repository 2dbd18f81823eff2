"""Which images are for training, which for choosing params, which for testing; their checks."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from stages.base.process_group import ALONE, ProcessGroup
from stages.formats.split_file import Labels
from stages.images.decoding import Unreadable
from stages.images.readers import Dataset
from stages.images.stored_images import Indices, StoredImages

NAMED = 3  # pictures in a message
Hashes = NDArray[np.uint64]  # (N,)
TENTH, MOST, TOO_FEW = 0.1, 5000.0, 20  # of the training images, for validation


def automatic_validation(available: int) -> float:
    """How many of the training images `available` to hold out: a count, or a share below 1.

    A tenth, at most 5,000; none if that leaves fewer than 20, too few to choose params by.
    """
    if available < TOO_FEW / TENTH:
        return 0.0
    return MOST if available > MOST / TENTH else TENTH


def hold_out(
    images: StoredImages,
    amount: float,
    key: str,
    key_of: Callable[[str], str] = str,
    group: ProcessGroup = ALONE,
) -> tuple[StoredImages, StoredImages]:
    """What is kept, and the images that `choose` chooses by the hashes of `key` and key_of(name).

    Each process hashes the names of its share.
    """
    share = range(len(images))[images.rows]
    hashes = group.gather(name_hashes((key_of(images.name(i)) for i in share), key))
    held_out = np.zeros(len(images), np.bool_)
    held_out[choose(images.labels, np.concatenate(hashes), amount)] = True
    return images.subset(~held_out), images.subset(held_out)


def name_hashes(names: Iterable[str], key: str) -> Hashes:
    """64 bits of BLAKE2 of `key` and each name, (N,)."""
    hashes = (blake2b(f"{key} {name}".encode()).digest()[:8] for name in names)
    return np.fromiter((int.from_bytes(value) for value in hashes), np.uint64)


def choose(labels: Labels, hashes: Hashes, amount: float) -> Indices:
    """Choose images with the classes in proportion, a count of them or below 1 a share: (n,).

    Within its class, each image has a place between 0 and 1, decided by the hash of its name. A
    share takes the places below it, a count the lowest places (Webster's method of apportionment).
    Every class has its first image at 0 and its last at 1, so that a share chooses at least one of
    each class and leaves at least one; a class of one image is left as it is.
    Adding or removing a picture moves no more than two others in or out.
    """
    order = np.argsort(hashes, kind="stable")  # (N,)
    places = np.empty(len(order))
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        places[of_class] = (np.arange(len(of_class)) + 0.5) / len(of_class)
        places[of_class[0]], places[of_class[-1]] = 0, 1
    if amount < 1:
        return np.flatnonzero(places < amount)
    return np.sort(order[np.argsort(places[order], kind="stable")][: int(amount)])


def name_classes(
    dataset: Dataset, train: StoredImages, test: StoredImages | None
) -> tuple[tuple[str, ...], StoredImages, StoredImages | None]:
    """The names of the K classes, and the images with labels in [0, K).

    torchvision's lists of names can be missing, or hold names that no image has (EMNIST's letters).
    There, the classes are the labels that occur, and a label without a name of its own is named by
    its number.
    """
    if dataset.classes is not None:
        return dataset.classes, train, test
    occurring = np.unique(
        np.concatenate([images.labels for images in (train, test) if images is not None])
    )
    unique = len(set(dataset.label_names)) == len(dataset.label_names)
    names = dict(enumerate(dataset.label_names)) if unique else {}
    classes = tuple(names.get(label, str(label)) for label in occurring.tolist())

    def relabelled(images: StoredImages) -> StoredImages:
        return replace(images, labels=np.searchsorted(occurring, images.labels))

    return classes, relabelled(train), None if test is None else relabelled(test)


def check_readable(unreadable: Sequence[Unreadable], skip: bool) -> None:
    """Raise ValueError if pictures could not be read and are not to be skipped."""
    if unreadable and not skip:
        examples = ", ".join(f"{name} ({reason})" for name, reason in unreadable[:NAMED])
        raise ValueError(
            f"unreadable pictures: found {len(unreadable)}, such as {examples}; fix or remove them,"
            " or set tensorize.skip_broken to true, which leaves them out"
        )


def check_shapes(train: StoredImages, test: StoredImages) -> None:
    """Raise ValueError if test images have another shape than training images."""
    if train.shape != test.shape:
        of_train, of_test = (" x ".join(map(str, images.shape)) for images in (train, test))
        raise ValueError(
            f"found test images of {of_test} pixels; expected {of_train} like the training images;"
            " set tensorize.size, which resizes them all"
        )


def check_classes(classes: Sequence[str], available: Labels, test: Labels, train: Labels) -> None:
    """Check that there are two classes or more, each with images to train on and to test on.

    `available` are the labels before the validation images are held out, `train` those after.
    """
    if len(classes) < 2:
        raise ValueError(f"found one class, {classes[0]!r}; expected two or more")
    counts = (np.bincount(labels, minlength=len(classes)) for labels in (available, test, train))
    for name, of_available, of_test, of_train in zip(classes, *counts, strict=True):
        if not of_available or not of_test:
            raise ValueError(
                f"class {name!r}: found {of_available} training and {of_test} test images; expected"
                " some of both; add pictures, or remove the class"
            )
        if not of_train:
            raise ValueError(
                f"class {name!r}: tensorize.validation takes all {of_available} training images;"
                " expected at least one to train on; lower it, or add pictures"
            )


@dataclass(frozen=True)
class Duplicates:
    """Pictures that are the same as others, pixel for pixel, once they have become images.

    Each pair is the repeated picture's name and that of the one it repeats: `same_class`, or
    `other_class` where the two are of different classes. `what` says of how many they are, and why
    it matters.
    """

    what: str
    same_class: Sequence[tuple[str, str]]
    other_class: Sequence[tuple[str, str]]

    def __len__(self) -> int:
        return len(self.same_class) + len(self.other_class)

    def __str__(self) -> str:
        """A sentence about each kind that there is."""
        sentences = []
        if self.other_class:
            pairs = "; ".join(f"{name} and {first}" for name, first in self.other_class[:NAMED])
            number = len(self.other_class)
            stand = "1 picture stands" if number == 1 else f"{number} pictures stand"
            sentences.append(f"{stand} in two classes: {pairs}")
        if self.same_class:
            pairs = ", ".join(
                f"{name} (same as {first})" for name, first in self.same_class[:NAMED]
            )
            sentences.append(f"{len(self.same_class)} of {self.what}, such as {pairs}")
        return "; ".join(sentences)


def find_duplicates(
    train: StoredImages, test: StoredImages | None, group: ProcessGroup = ALONE
) -> Duplicates:
    """Look for test images that are training images too.

    Without test images, which are then held out of `train`, any two equal images count.
    """
    of_train = digests(train, group)
    values, first = np.unique(of_train, return_index=True)
    if test is not None:
        of_test, what = digests(test, group), f"{len(test)} test images are also training images"
        repeated = np.isin(of_test, of_train)
    else:
        test, of_test = train, of_train
        what = f"{len(test)} images are duplicates, which could land in both train and test"
        repeated = ~np.isin(np.arange(len(train)), first)
    pairs: tuple[list[tuple[str, str]], ...] = ([], [])
    for i in np.flatnonzero(repeated).tolist():
        j = int(first[np.searchsorted(values, of_test[i])])
        pairs[int(test.labels[i] != train.labels[j])].append((test.name(i), train.name(j)))
    return Duplicates(what, *pairs)


def check_duplicates(
    train: StoredImages, test: StoredImages | None, allowed: bool, group: ProcessGroup = ALONE
) -> None:
    """Print what `find_duplicates` finds if duplicates are allowed; raise ValueError otherwise.

    A model that has seen its test images looks better than it is.
    """
    found = find_duplicates(train, test, group)
    if not found:
        return
    if not allowed:
        remedy = "leave each in one class" if found.other_class else "remove them"
        raise ValueError(
            f"{found}; {remedy}, or set tensorize.allow_duplicates to true, which only counts them"
        )
    if group.first:
        print(found)


def digests(images: StoredImages, group: ProcessGroup = ALONE) -> Hashes:
    """A number per image, (N,), equal for equal images; each process computes those of its share.

    64 bits of BLAKE2: among a million different images, two collide with probability 3e-8.
    """
    share = bytearray()
    for chunk in images.chunks():
        for image in chunk:
            share += blake2b(image, digest_size=8).digest()
    return np.concatenate(group.gather(np.frombuffer(share, np.uint64)))
