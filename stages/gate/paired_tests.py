"""Two models on the same images -> how much they differ, and whether the difference is real.

Images on which the two agree say nothing about it, so comparing image by image leaves much less
noise than comparing two accuracies. Both tests are two-sided. SciPy takes a second to import, so it
is imported where it is needed.
"""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

CONFIDENCE = 0.95  # of every interval

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class PairedTest:
    """interval: 95 % confidence interval of the change, now - base, in the metric's unit.

    p_value: the probability of at least this large a difference if the models were equally good.
    """

    interval: tuple[float, float]
    p_value: float


def accuracy_test(lost: int, gained: int, images: int) -> PairedTest:
    """The change of accuracy, from the images that only the base (lost) or only now (gained) are
    right.

    Exact McNemar test (McNemar 1947): if the models are equally good, `lost` is binomial with
    `lost + gained` trials and probability 1/2.
    The interval is Bonett and Price's (2012): Wald's, after adding one image to each of the two
    counts. Fagerland, Lydersen and Laake (2014) recommend it; unlike Wald's own, it does not shrink
    to a point where the models agree on every image.
    """
    from scipy import stats

    disagreements = lost + gained
    p_value = stats.binomtest(lost, disagreements).pvalue if disagreements else 1.0
    down, up = (lost + 1) / (images + 2), (gained + 1) / (images + 2)
    error = math.sqrt((up + down - (up - down) ** 2) / (images + 2))
    half = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * error
    return PairedTest((max(-1.0, up - down - half), min(1.0, up - down + half)), float(p_value))


def mean_test(base: Floats, now: Floats) -> PairedTest:
    """The change of the mean of one value per image; `base` and `now` are (N,), N at least 2.

    Student's paired t-test (Student 1908). It tests the mean, which is what cross entropy is; a
    rank test ignores how large a loss is, and so tests something else. Losses are skewed, but the
    mean of thousands of differences is normal for all practical purposes. Raises ValueError for
    fewer than two images, whose spread is unknown.
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
