"""Confidence intervals of measured accuracies, for the number of images they were measured on."""

from collections.abc import Sequence
from math import fsum, sqrt

CONFIDENCE = 0.95


def accuracy_interval(hits: int, images: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927, without continuity correction), `images` > 0."""
    from scipy.stats import binomtest

    low, high = binomtest(hits, images).proportion_ci(CONFIDENCE, method="wilson")
    return float(low), float(high)


def balanced_accuracy_interval(hits: Sequence[int], images: Sequence[int]) -> tuple[float, float]:
    """The 95 % interval of the mean of K recalls, hits[k] / images[k].

    Each recall p_k has its own Wilson interval, l_k to u_k. The mean's reaches down by
    sqrt(sum (p_k - l_k)^2) / K and up by sqrt(sum (u_k - p_k)^2) / K: the method of variance
    estimates recovery (Zou and Donner 2008). For one class it is the Wilson interval itself.
    """
    recalls = [hit / of for hit, of in zip(hits, images, strict=True)]
    intervals = [accuracy_interval(hit, of) for hit, of in zip(hits, images, strict=True)]
    mean, k = fsum(recalls) / len(recalls), len(recalls)
    down = fsum((p - low) ** 2 for p, (low, _) in zip(recalls, intervals, strict=True))
    up = fsum((high - p) ** 2 for p, (_, high) in zip(recalls, intervals, strict=True))
    return mean - sqrt(down) / k, mean + sqrt(up) / k
