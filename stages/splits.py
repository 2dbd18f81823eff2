"""Which images are for training, which for choosing params, which for testing."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.collection import Collected
from stages.readers import Source
from stages.stored_images import Fit, Indices, Labels, StoredImages, write_split


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
        """What is kept, and `number` images chosen at random."""
        order = _random_order(seed)(len(self))
        return self._parts(order[number:], order[:number])

    def hold_out_of_each_class(self, share: float, seed: int) -> tuple["Split", "Split"]:
        """What is kept, and `share` of each class, rounded, chosen at random.

        At least one image of a class is held out, and one kept; a class of one image is kept.
        """
        random_order = _random_order(seed)
        kept, held_out = [], []
        for label in np.unique(self.labels):
            of_class = np.flatnonzero(self.labels == label)
            order = of_class[random_order(len(of_class))]
            number = min(max(1, int(len(order) * share + 0.5)), len(order) - 1)
            kept.append(order[number:])
            held_out.append(order[:number])
        return self._parts(np.concatenate(kept), np.concatenate(held_out))

    def _parts(self, kept: Indices, held_out: Indices) -> tuple["Split", "Split"]:
        return (
            Split(self.collected, self.indices[np.sort(kept)]),
            Split(self.collected, self.indices[np.sort(held_out)]),
        )

    def write(self, path: Path, classes: Sequence[str], fit: Fit) -> None:
        """Write the split's file."""
        images = self.collected.images
        write_split(path, images.chosen(self.indices), images.shape, self.labels, classes, fit)


def _random_order(seed: int) -> Callable[[int], Indices]:
    """N -> the numbers below n in a random order, another one at each call.

    The orders are those of torch.randperm, whose import takes longer than thousands of pictures: a
    shuffle of Fisher and Yates with the 32-bit numbers of a Mersenne twister.
    """
    twister = np.random.RandomState(seed % 2**32)

    def order(n: int) -> Indices:
        order = list(range(n))
        random = twister.randint(0, 2**32, max(0, n - 1), np.uint32)
        for i, step in enumerate((random % np.arange(n, 1, -1)).tolist()):
            order[i], order[i + step] = order[i + step], order[i]
        return np.array(order, np.int64)

    return order


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


def check_duplicates(train: Split, test: Split, allowed: bool) -> None:
    """Count the test images that are training images too, to the last pixel.

    Raises ValueError if there are some, and they are not allowed: a model that has seen its test
    images looks better than it is.
    """
    of_train = digests(train.collected.images)
    of_test = of_train if test.collected is train.collected else digests(test.collected.images)
    of_train, of_test = of_train[train.indices], of_test[test.indices]
    seen = np.isin(of_test, of_train)
    if not seen.any():
        return
    first = int(seen.argmax())
    twin = int((of_train == of_test[first]).argmax())
    found = (
        f"{seen.sum()} of {len(test)} test images are training images too; the first:"
        f" {test.collected.name(test.indices[first])} is"
        f" {train.collected.name(train.indices[twin])}"
    )
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
