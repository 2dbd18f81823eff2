import pytest
from scipy.stats import binomtest

from stages.report.intervals import wilson_interval


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 20), (13, 20), (9945, 10_000)])
def test_the_interval_of_a_share_equals_that_of_scipy(hits: int, n: int) -> None:
    expected = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(hits, n) == pytest.approx((expected.low, expected.high), abs=1e-6)
