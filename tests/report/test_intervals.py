from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from stages.report.intervals import balanced_accuracy_interval, wilson_interval


def test_the_interval_of_a_share_is_wilsons() -> None:
    # Newcombe 1998 (Statistics in Medicine 17), table I, method 3
    for hits, images, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson_interval(hits, images) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 20), (13, 20), (9945, 10_000)])
def test_the_interval_of_a_share_equals_that_of_scipy(hits: int, n: int) -> None:
    expected = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(hits, n) == pytest.approx((expected.low, expected.high), abs=1e-6)


@given(images=st.integers(1, 500), share=st.floats(0, 1))
def test_for_one_class_the_balanced_interval_is_wilsons(images: int, share: float) -> None:
    hits = round(images * share)
    expected = wilson_interval(hits, images)
    assert balanced_accuracy_interval([hits], [images]) == pytest.approx(expected, abs=1e-12)


def test_for_many_large_classes_it_is_the_normal_interval() -> None:
    hits, images = [9000, 16000, 5000], [10000, 20000, 10000]
    p = np.divide(hits, images)
    half = 1.959964 * sqrt((p * (1 - p) / images).sum()) / 3
    expected = (p.mean() - half, p.mean() + half)
    assert balanced_accuracy_interval(hits, images) == pytest.approx(expected, abs=2e-4)


def test_it_covers_the_true_value_95_times_in_100_for_small_uneven_classes() -> None:
    random = np.random.default_rng(0)
    images, p = np.array([3, 8, 20, 6]), np.array([0.9, 0.7, 0.85, 0.5])
    drawn, counts = np.unique(random.binomial(images, p, (2000, 4)), axis=0, return_counts=True)
    covered = 0
    for hits, count in zip(drawn.tolist(), counts.tolist(), strict=True):
        low, high = balanced_accuracy_interval(hits, images.tolist())
        covered += count * (low <= p.mean() <= high)
    assert 0.93 <= covered / 2000 <= 0.99


def test_a_perfect_small_test_set_does_not_claim_certainty() -> None:
    low, high = balanced_accuracy_interval([5, 5], [5, 5])
    assert low < 0.75
    assert high == pytest.approx(1)
