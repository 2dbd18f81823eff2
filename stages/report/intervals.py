"""How far a share that was counted in a sample may lie from the share in general."""

from math import sqrt

Z = 1.959964  # of the normal distribution, 95 % lies within so many standard deviations


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share of which `hits` of n were counted, with six decimals.

    Wilson's score interval (1927), which holds for few and for extreme counts too. n: 1 or more.
    """
    centre = (hits + Z**2 / 2) / (n + Z**2)
    half = Z / (n + Z**2) * sqrt(hits * (n - hits) / n + Z**2 / 4)
    return round(max(0.0, centre - half), 6), round(min(1.0, centre + half), 6)
