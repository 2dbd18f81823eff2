"""Confidence intervals of accuracies, for the number of images they were measured on."""

from collections.abc import Sequence
from math import fsum, sqrt

Z = 1.959964  # of the normal distribution, 95 % lies within so many standard deviations


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share of which `hits` of n were counted, with six decimals.

    Wilson's score interval (1927), which holds for few and for extreme counts too. n: 1 or more.
    """
    centre = (hits + Z**2 / 2) / (n + Z**2)
    half = Z / (n + Z**2) * sqrt(hits * (n - hits) / n + Z**2 / 4)
    return round(max(0.0, centre - half), 6), round(min(1.0, centre + half), 6)


def balanced_accuracy_interval(hits: Sequence[int], images: Sequence[int]) -> tuple[float, float]:
    """The 95 % interval of the mean of K recalls, hits[k] / images[k].

    Each recall p_k has its own Wilson interval, l_k to u_k. The mean's reaches down by
    sqrt(sum (p_k - l_k)^2) / K and up by sqrt(sum (u_k - p_k)^2) / K: the method of variance
    estimates recovery (Zou and Donner 2008). For one class it is the Wilson interval itself.
    """
    recalls = [hit / of for hit, of in zip(hits, images, strict=True)]
    intervals = [wilson_interval(hit, of) for hit, of in zip(hits, images, strict=True)]
    mean, k = fsum(recalls) / len(recalls), len(recalls)
    down = fsum((p - low) ** 2 for p, (low, _) in zip(recalls, intervals, strict=True))
    up = fsum((high - p) ** 2 for p, (_, high) in zip(recalls, intervals, strict=True))
    return mean - sqrt(down) / k, mean + sqrt(up) / k
