"""What a folder of pictures holds: how many of which class, size and mode; broken; duplicates."""

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from stages.images.collection import collect
from stages.images.decoding import Unreadable
from stages.images.preprocessing import Preprocessing
from stages.images.readers import Dataset
from stages.images.splits import Duplicates, check_classes, find_duplicates, hold_out
from stages.images.survey import Survey, survey

NAMED = 3  # pictures in a line
NAMED_CLASSES = 10  # in a line


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found. `train` and `test` are numbers of readable pictures."""

    classes: Counter[str]  # pictures, readable or not
    found: Survey
    broken: list[Unreadable]
    duplicates: Duplicates
    train: int
    test: int
    held_out: bool  # whether the test pictures are a share of the others

    def lines(self) -> list[str]:
        """Five lines that describe it."""
        counts = self.classes.values()
        names = ", ".join([*self.classes][:NAMED_CLASSES])
        more = f" and {len(counts) - NAMED_CLASSES:,} more" if len(counts) > NAMED_CLASSES else ""
        each = " to ".join(f"{count:,}" for count in sorted({min(counts), max(counts)}))
        size = " x ".join(map(str, self.found.size))
        tested = "held out of each class" if self.held_out else "from its folder test"
        return [
            f"classes: {len(counts):,}, with {each} pictures each: {names}{more}",
            f"pictures: {self._sizes()}, {self._modes()}; the model sees {size} pixels in"
            f" {'colour' if self.found.has_colour else 'grey'}",
            f"broken: {_named(self.broken) if self.broken else 'none'}",
            f"duplicates: {self.duplicates or 'none'}",
            f"to train on: {self.train:,} pictures; to test on: {self.test:,}, {tested}",
        ]

    def _sizes(self) -> str:
        heights, widths = ([size[axis] for size in self.found.sizes] for axis in (0, 1))
        low, high = (f"{f(widths)} x {f(heights)}" for f in (min, max))
        return f"{low} pixels" if low == high else f"{low} to {high} pixels"

    def _modes(self) -> str:
        modes = ", ".join(f"{mode} {number:,}" for mode, number in self.found.modes.most_common())
        looked_at, number = self.found.modes.total(), self.classes.total()
        return (
            modes if looked_at + len(self.broken) >= number else f"{modes} of {looked_at} looked at"
        )


def inspect(
    dataset: Dataset, counts: Counter[str], fit: str, test: float, seed: int, scratch: Path
) -> Inspection:
    """Decode all pictures as `tensorize` does with `auto`, into unnamed files in `scratch`.

    `counts` are the pictures of each class; `test` and `seed` are params of `tensorize`. Raises
    ValueError if a class lacks readable pictures to train on or to test on.
    """
    found = survey(dataset.train)
    preprocessing = Preprocessing(found.channels, found.size, fit)
    with ExitStack() as files:
        train, broken = files.enter_context(collect(dataset.train, preprocessing, scratch))
        own_test = None
        if dataset.test:
            own_test, more = files.enter_context(collect(dataset.test, preprocessing, scratch))
            broken = broken + more
        duplicates = find_duplicates(train, own_test)
        if own_test is None:
            train, tested = hold_out(train, test, f"test {seed}", dataset.key_of)
        else:
            tested = own_test
        try:
            check_classes(dataset.classes or (), train.labels, tested.labels, train.labels)
        except ValueError as error:
            unreadable = f"; broken: {_named(broken)}" if broken else ""
            raise ValueError(f"{error}{unreadable}") from None
        return Inspection(
            counts, found, broken, duplicates, len(train), len(tested), own_test is None
        )


def _named(broken: list[Unreadable]) -> str:
    """How many there are, and some of them."""
    pictures = [f"{name} ({reason})" for name, reason in broken[:NAMED]]
    return f"{len(broken)}, left out: " + ", ".join(pictures + ["..."] * (len(broken) > NAMED))
