"""Which images are for training, which for choosing params, which for testing; their checks."""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from stages.formats.split_file import Labels
from stages.images.decoding import Unreadable
from stages.images.readers import Dataset
from stages.images.stored_images import Indices, StoredImages

NAMED = 3  # pictures in a message


def hold_out(images: StoredImages, amount: float, key: str) -> tuple[StoredImages, StoredImages]:
    """What is kept, and the images that `choose` chooses."""
    held_out = np.zeros(len(images), np.bool_)
    held_out[choose(images.labels, images.names, amount, key)] = True
    return images.subset(~held_out), images.subset(held_out)


def choose(labels: Labels, names: Sequence[str], amount: float, key: str) -> Indices:
    """Choose images with the classes in proportion, a count of them or below 1 a share: (n,).

    Within its class, each image has a place between 0 and 1, decided by the hash of `key` and its
    name. A share takes the places below it, a count the lowest places (Webster's method of
    apportionment). Every class has its first image at 0 and its last at 1, so that a share chooses
    at least one of each class and leaves at least one; a class of one image is left as it is.
    Adding or removing a picture moves no more than two others in or out.
    """
    hashes = [blake2b(f"{key} {name}".encode()).digest()[:8] for name in names]
    order = np.argsort(np.frombuffer(b"".join(hashes), ">u8"), kind="stable")  # (N,)
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


def check_duplicates(train: StoredImages, test: StoredImages | None, allowed: bool) -> None:
    """Look for test images that are training images too, pixel for pixel.

    Without test images, which are then held out of `train`, any two equal images count. Prints how
    many there are if duplicates are allowed; raises ValueError otherwise, since a model that has
    seen its test images looks better than it is.
    """
    of_train = digests(train)
    values, first = np.unique(of_train, return_index=True)
    if test is not None:
        of_test, what = digests(test), "test images are also training images"
        repeated = np.isin(of_test, of_train)
    else:
        test, of_test, what = (
            train,
            of_train,
            "images are duplicates, which could land in both train and test",
        )
        repeated = ~np.isin(np.arange(len(train)), first)
    if not repeated.any():
        return
    pairs = ", ".join(
        f"{test.names[i]} (same as {train.names[first[np.searchsorted(values, of_test[i])]]})"
        for i in np.flatnonzero(repeated)[:NAMED]
    )
    found = f"{repeated.sum()} of {len(test)} {what}, such as {pairs}"
    if not allowed:
        raise ValueError(
            f"{found}; remove them, or set tensorize.allow_duplicates to true, which only counts"
            " them"
        )
    print(found)


def digests(images: StoredImages) -> NDArray[np.uint64]:
    """A number per image, (N,), equal for equal images.

    64 bits of BLAKE2: among a million different images, two collide with probability 3e-8.
    """
    hashes = (
        blake2b(image, digest_size=8).digest() for chunk in images.chunks() for image in chunk
    )
    return np.frombuffer(b"".join(hashes), np.uint64)
