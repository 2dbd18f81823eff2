"""Two models on the same images -> how large the difference is, and whether it is real.

Both models see the same images, so the images on which they agree say nothing: what remains is
much less noise than two accuracies of their own have. Both tests are two-sided. SciPy takes a
second to import, and is imported where it is needed.
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

    p_value: the probability of a difference this large or larger if there were none.
    """

    interval: tuple[float, float]
    p_value: float


def accuracy_test(lost: int, gained: int, images: int) -> PairedTest:
    """The change of accuracy, from the images that only the base, or only the new model, got right.

    Exact McNemar test (McNemar 1947): if the models are equally good, `lost` is binomial with
    `lost + gained` trials and probability 1/2.
    Interval of Bonett and Price (2012), Wald's with one image added to each of the two counts,
    which Fagerland, Lydersen and Laake (2014) recommend: unlike Wald's own, it has a width where
    there are no differences.
    """
    from scipy import stats

    disagreements = lost + gained
    p_value = stats.binomtest(lost, disagreements).pvalue if disagreements else 1.0
    down, up = (lost + 1) / (images + 2), (gained + 1) / (images + 2)
    error = math.sqrt((up + down - (up - down) ** 2) / (images + 2))
    half = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * error
    return PairedTest((max(-1.0, up - down - half), min(1.0, up - down + half)), float(p_value))


def mean_test(base: Floats, now: Floats) -> PairedTest:
    """The change of the mean of one value an image; `base` and `now` are (N,), N at least 2.

    Student's paired t-test (Student 1908). It is of the mean, which is what cross entropy is: a
    rank test, blind to how large a loss is, would be of something else. The losses are skewed; the
    mean of thousands of differences is as good as normal all the same. Raises ValueError below two
    images, whose spread is unknown.
    """
    from scipy import stats

    differences = now - base
    if len(differences) < 2:
        raise ValueError(f"found {len(differences)} images; a paired test needs at least two")
    if np.ptp(differences) == 0:  # no spread: SciPy would divide 0 by 0
        change = float(differences[0])
        return PairedTest((change, change), 0.0 if change else 1.0)
    result = stats.ttest_rel(now, base)
    low, high = result.confidence_interval(CONFIDENCE)
    return PairedTest((float(low), float(high)), float(result.pvalue))
