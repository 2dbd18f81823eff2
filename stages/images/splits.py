"""Which images are for training, which for choosing params, which for testing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.formats.split_file import Labels, write_split
from stages.images.collection import Collected
from stages.images.decoding import Unreadable
from stages.images.preprocessing import Fit
from stages.images.readers import Source
from stages.images.stored_images import Indices, StoredImages

NAMED = 3  # pictures in a message


@dataclass(frozen=True)
class Split:
    """The images of a split: those at `indices`, which ascend, of what was collected."""

    collected: Collected
    indices: Indices

    @classmethod
    def of_all(cls, collected: Collected) -> "Split":
        """All that was collected."""
        return cls(collected, np.arange(len(collected.images)))

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> Labels:
        """The images' labels, (N,)."""
        return self.collected.images.labels[self.indices]

    def hold_out(self, number: int, seed: int) -> tuple["Split", "Split"]:
        """What is kept, and `number` images chosen at random.

        The order is that of torch.randperm, whose import takes longer than thousands of pictures: a
        shuffle of Fisher and Yates with the 32-bit numbers of a Mersenne twister.
        """
        n = len(self)
        random = np.random.RandomState(seed % 2**32).randint(0, 2**32, max(0, n - 1), np.uint32)
        order = list(range(n))
        for i, step in enumerate((random % np.arange(n, 1, -1)).tolist()):
            order[i], order[i + step] = order[i + step], order[i]
        return self._parts(np.array(order[:number], np.int64))

    def hold_out_of_each_class(self, share: float, key: str) -> tuple["Split", "Split"]:
        """What is kept, and `share` of each class, rounded, which `key` and their names choose.

        At least one image of a class is held out, and one kept; a class of one image is kept. A
        picture that is added or taken away leaves the others where they are, but for one that makes
        up the share.
        """
        labels, chosen = self.labels, [np.arange(0)]
        for label in np.unique(labels):
            of_class = np.flatnonzero(labels == label)
            names = [self.collected.name(index) for index in self.indices[of_class]]
            order = np.argsort([blake2b(f"{key} {name}".encode()).digest() for name in names])
            number = min(max(1, int(len(order) * share + 0.5)), len(order) - 1)
            chosen.append(of_class[order[:number]])
        return self._parts(np.concatenate(chosen))

    def _parts(self, held_out: Indices) -> tuple["Split", "Split"]:
        chosen = np.zeros(len(self), np.bool_)
        chosen[held_out] = True
        return (
            Split(self.collected, self.indices[~chosen]),
            Split(self.collected, self.indices[chosen]),
        )

    def write(self, path: Path, classes: Sequence[str], fit: Fit) -> None:
        """Write the split's file."""
        images = self.collected.images
        names = map(self.collected.name, self.indices)
        chosen = images.chosen(self.indices)
        write_split(path, chosen, images.shape, self.labels, names, classes, fit)


def name_classes(
    source: Source, train: Collected, test: Collected
) -> tuple[tuple[str, ...], Collected, Collected]:
    """The classes, and what was collected with labels in [0, K).

    torchvision's lists of names can be missing, or hold names that no image has (EMNIST's letters):
    there, the classes are those that occur, named by their number if names are missing or repeated.
    """
    if source.classes is not None:
        return source.classes, train, test
    labels = np.union1d(train.images.labels, test.images.labels)
    names = dict(enumerate(source.names if len(set(source.names)) == len(source.names) else ()))
    classes = tuple(names.get(i, str(i)) for i in labels.tolist())

    def relabelled(collected: Collected) -> Collected:
        images = collected.images
        ranks = np.searchsorted(labels, images.labels)
        return replace(collected, images=replace(images, labels=ranks))

    return classes, relabelled(train), relabelled(test)


def check_readable(unreadable: Sequence[Unreadable], skip: bool) -> None:
    """Raise ValueError if pictures could not be read and are not to be skipped."""
    if unreadable and not skip:
        named = [f"{picture.name} ({picture.reason})" for picture in unreadable[:NAMED]]
        raise ValueError(
            f"{len(unreadable)} of the pictures cannot be read: {', '.join(named)}; mend or remove"
            " them, or set tensorize.skip_broken to true, which leaves them out"
        )


def check_shapes(train: Collected, test: Collected) -> None:
    """Raise ValueError if test images have another shape than training images."""
    if train.images.shape != test.images.shape:
        shapes = [" x ".join(map(str, split.images.shape)) for split in (train, test)]
        raise ValueError(
            f"training images are {shapes[0]}, test images {shapes[1]} pixels; set tensorize.size,"
            " to which all are brought"
        )


def check_classes(classes: Sequence[str], files: Split, test: Split, train: Split) -> None:
    """Check the classes of the training files, of the test images, and of what is left to train on.

    Raises ValueError if there are not two classes, or if one has no images in a split.
    """
    in_files, in_test, in_train = (
        np.bincount(split.labels, minlength=len(classes)) for split in (files, test, train)
    )
    if len(classes) < 2:
        raise ValueError(
            f"one class only, {classes[0]!r}; expected two or more to tell from each other"
        )
    for name, of_files, of_test, of_train in zip(classes, in_files, in_test, in_train, strict=True):
        if not of_files or not of_test:
            raise ValueError(
                f"class {name!r}: {of_files} images to train on and {of_test} to test on; expected"
                " some of both: add pictures, or leave the class out"
            )
        if not of_train:
            raise ValueError(
                f"class {name!r}: tensorize.validation takes all of its {of_files} training images;"
                " lower it, or add pictures"
            )


def check_duplicates(train: Collected, test: Collected, allowed: bool) -> None:
    """Count the test images that are training images too, to the last pixel.

    Of pictures that are yet to be split, `train` and `test` alike, those that are there again.
    Raises ValueError if there are some, and they are not allowed: a model that has seen its test
    images looks better than it is.
    """
    of_train = digests(train.images)
    if test is train:
        seen = np.ones(len(of_train), np.bool_)
        seen[np.unique(of_train, return_index=True)[1]] = False
        of_test, what = of_train, "pictures are there again, to be trained on and tested on"
    else:
        of_test, what = digests(test.images), "test images are training images too"
        seen = np.isin(of_test, of_train)
    if not seen.any():
        return
    twins = ", ".join(
        f"{test.name(i)} (as {train.name(int((of_train == of_test[i]).argmax()))})"
        for i in np.flatnonzero(seen)[:NAMED].tolist()
    )
    found = f"{seen.sum()} of {len(seen)} {what}, such as {twins}"
    if not allowed:
        raise ValueError(
            f"{found}; remove them, or set tensorize.allow_duplicates to true, which only counts"
        )
    print(found)


def digests(images: StoredImages) -> NDArray[np.uint64]:
    """A number for each image, (N,), equal for equal images.

    64 bits of BLAKE2: that any two of a million different images collide has probability 3e-8.
    """
    return np.fromiter(_digests(images), np.uint64, len(images))


def _digests(images: StoredImages) -> Iterator[int]:
    for chunk in images.chunks():
        for image in chunk:
            yield int.from_bytes(blake2b(image.tobytes(), digest_size=8).digest(), "little")
