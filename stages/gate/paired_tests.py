"""Two models on the same images -> how much they differ, and whether the difference is real.

Images on which the two agree say nothing about it, so comparing image by image leaves much less
noise than comparing two accuracies. All tests are two-sided. SciPy takes a second to import, so it
is imported where it is needed.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

CONFIDENCE = 0.95  # of every interval
SWAPS = 9_999  # random ones; all of them are tried if there are no more than this
BATCH = 2**22  # numbers held at a time

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class PairedTest:
    """p_value: the probability of at least this large a difference between equally good models.

    interval: 95 % confidence interval of the change, now - base, in the metric's unit; None if the
    test gives none.
    """

    interval: tuple[float, float] | None
    p_value: float


def mcnemar_test(lost: int, gained: int, images: int) -> PairedTest:
    """The change of accuracy, where only the base is right (lost) or only the model now (gained).

    Exact McNemar test (1947): if the models are equally good, `lost` is binomial with
    `lost + gained` trials and probability 1/2. The interval is Bonett and Price's (2012): Wald's,
    after adding one image to each of the two counts, so that it does not shrink to a point where
    the models agree on every image.
    """
    from scipy import stats

    disagreements = lost + gained
    p_value = stats.binomtest(lost, disagreements).pvalue if disagreements else 1.0
    down, up = (lost + 1) / (images + 2), (gained + 1) / (images + 2)
    error = math.sqrt((up + down - (up - down) ** 2) / (images + 2))
    half = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * error
    return PairedTest((max(-1.0, up - down - half), min(1.0, up - down + half)), float(p_value))


def paired_t_test(base: Floats, now: Floats) -> PairedTest:
    """The change of the mean of one value per image; `base` and `now` are (N,).

    Student's paired t-test (1908). Losses are skewed, but the mean of thousands of differences is
    normal for all practical purposes. Raises ValueError for a single image, whose spread is
    unknown.
    """
    from scipy import stats

    differences = now - base
    if len(differences) < 2:
        raise ValueError(
            f"found {len(differences)} images; expected at least two for a paired test"
        )
    if np.ptp(differences) == 0:  # no spread: SciPy would divide 0 by 0
        change = float(differences[0])
        return PairedTest((change, change), 0.0 if change else 1.0)
    result = stats.ttest_rel(now, base)
    low, high = result.confidence_interval(CONFIDENCE)
    return PairedTest((float(low), float(high)), float(result.pvalue))


def randomization_test(base: Any, now: Any, of: Callable[[Floats], Any]) -> PairedTest:
    """The change of a metric that is `of(the sum of its rows)`: base and now, sparse (N, M).

    Paired randomization test (Noreen 1989; for F1, Yeh 2000): between equally good models, it is
    chance which of the two answers to an image is whose. So answers are swapped at random, and p is
    the share of the swaps that change the metric at least as much as was found. Exact for up to 13
    images that differ; beyond, 9,999 swaps by a generator with a fixed seed, to which the one found
    is added (Phipson and Smyth 2010).
    """
    step = now - base
    step = step[np.flatnonzero(abs(step).sum(1))]  # (D, M), the images that differ
    images, width = step.shape
    if not images:
        return PairedTest(None, 1.0)
    sums = base.sum(0), now.sum(0)

    def extreme(swaps: np.ndarray[Any, Any]) -> int:
        """How many of the swaps, (S, D) of 0 and 1, change the metric as much as was found."""
        moved = swaps.astype(np.float64) @ step  # (S, M)
        change = np.abs(of(sums[1] - moved) - of(sums[0] + moved))
        return int((change >= np.abs(of(sums[1]) - of(sums[0])) - 1e-12).sum())

    if 2**images <= SWAPS:
        every = np.arange(2**images)[:, None] >> np.arange(images) & 1
        return PairedTest(None, extreme(every) / len(every))
    generator = np.random.default_rng(0)
    batch = max(1, BATCH // (images + width))
    sizes = [min(batch, SWAPS - start) for start in range(0, SWAPS, batch)]
    found = sum(extreme(generator.integers(2, size=(s, images), dtype=np.int8)) for s in sizes)
    return PairedTest(None, (found + 1) / (SWAPS + 1))
