import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from stages.gate.paired_tests import PairedTest, mcnemar_test, paired_t_test

ALPHA = 0.05


def interval(test: PairedTest) -> tuple[float, float]:
    assert test.interval
    return test.interval


# The sign test's two-sided 5 % points (Dixon and Mood 1946, table 1): of n disagreements, the
# largest number of the rarer kind that is still significant.
@pytest.mark.parametrize(
    ("disagreements", "rarer"), [(6, 0), (9, 1), (12, 2), (20, 5), (25, 7), (50, 17), (100, 39)]
)
def test_p_values_match_published_critical_values_of_the_sign_test(
    disagreements: int, rarer: int
) -> None:
    at_most = mcnemar_test(disagreements - rarer, rarer, 1000)
    one_more = mcnemar_test(disagreements - rarer - 1, rarer + 1, 1000)
    assert at_most.p_value <= 0.05 < one_more.p_value


def test_p_value_matches_a_published_exact_mcnemar_test() -> None:
    # Airway hyper-responsiveness (Bentur et al. 2009), as in Fagerland, Lydersen and Laake (2014):
    # 1 and 7 of 21 pairs disagree, P = 0.0703.
    assert mcnemar_test(7, 1, 21).p_value == pytest.approx(0.0703, abs=5e-5)
    assert mcnemar_test(1, 7, 21).p_value == pytest.approx(0.0703, abs=5e-5)


def test_interval_matches_the_published_one_of_bonett_and_price() -> None:
    # The worked example of `ci.prop.ps` in Bonett's R package statpsych: counts 12, 26, 4, 6.
    low, high = interval(mcnemar_test(lost=4, gained=26, images=48))
    assert (low, high) == pytest.approx((0.2548067, 0.6251933), abs=5e-8)


def test_loss_test_matches_the_published_paired_t_test_of_student() -> None:
    # Student (1908), table 1: hours of sleep gained by ten patients with two drugs.
    dextro = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
    laevo = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
    test = paired_t_test(laevo, dextro)
    assert test.p_value == pytest.approx(0.002833, abs=5e-7)
    assert test.interval == pytest.approx((-2.4598858, -0.7001142), abs=5e-8)


def test_p_is_1_for_two_equal_models() -> None:
    assert mcnemar_test(0, 0, 10_000).p_value == 1
    losses = np.array([0.1, 0.2, 3.0])
    assert paired_t_test(losses, losses).p_value == 1
    assert interval(paired_t_test(losses, losses)) == (0, 0)


def test_without_disagreements_the_interval_still_has_a_width() -> None:
    low, high = interval(mcnemar_test(0, 0, 10_000))
    assert low == pytest.approx(-high)
    assert 1e-4 < high < 1e-3


def test_the_same_difference_on_every_image_is_real() -> None:
    test = paired_t_test(np.zeros(4), np.ones(4))
    assert (test.p_value, test.interval) == (0, (1, 1))


def test_a_gain_is_the_mirror_image_of_a_loss() -> None:
    lost, gained = mcnemar_test(60, 40, 10_000), mcnemar_test(40, 60, 10_000)
    assert lost.p_value == gained.p_value
    low, high = interval(gained)
    assert lost.interval == pytest.approx((-high, -low))


def test_the_interval_has_the_sign_of_the_change() -> None:
    low, high = interval(mcnemar_test(lost=300, gained=100, images=10_000))
    assert low < high < 0
    low, high = interval(paired_t_test(np.array([0.1, 0.2, 0.3]), np.array([1.1, 1.3, 1.2])))
    assert 0 < low < high


def test_the_loss_test_needs_two_images() -> None:
    with pytest.raises(ValueError, match=r"found 1 images; .* at least two"):
        paired_t_test(np.zeros(1), np.ones(1))


@pytest.fixture(scope="module")
def fewest() -> NDArray[np.int64]:
    """By the number of disagreements, how many of them must be lost for accuracy to be worse."""
    found = [0]
    for disagreements in range(1, 200):
        lost = found[-1]  # one more disagreement never makes fewer losses significant
        while lost <= disagreements and not (
            2 * lost > disagreements
            and mcnemar_test(lost, disagreements - lost, 10_000).p_value <= ALPHA
        ):
            lost += 1
        found.append(lost)
    return np.array(found)


def rejections(fewest: NDArray[np.int64], lost: float, gained: float) -> float:
    """The probability that accuracy on 10,000 images is called worse, over all outcomes.

    lost, gained: the probabilities of an image. `fewest` ends where 200 disagreements are
    improbable.
    """
    n = np.arange(len(fewest))
    outcomes = stats.binom.pmf(n, 10_000, lost + gained)
    assert outcomes.sum() > 1 - 1e-9
    return float(outcomes @ stats.binom.sf(fewest - 1, n, lost / (lost + gained)))


def test_equally_accurate_models_fail_at_most_alpha_of_the_time(
    fewest: NDArray[np.int64],
) -> None:
    share = rejections(fewest, lost=0.005, gained=0.005)
    assert share <= ALPHA / 2  # two-sided: the other half would be called better
    assert share > ALPHA / 5  # and the test is not blind


def test_the_accuracy_test_has_the_power_of_the_exact_test(fewest: NDArray[np.int64]) -> None:
    # 60 lost and 40 gained of 10,000 on average. Given n disagreements, the exact test rejects
    # from the smallest count on whose two-sided tail is at most alpha.
    n = np.arange(1, 200)
    critical = stats.binom.isf(ALPHA / 2, n, 0.5) + 1  # P(X >= critical) <= alpha / 2
    power = np.sum(stats.binom.pmf(n, 10_000, 0.01) * stats.binom.sf(critical - 1, n, 0.6))
    assert 0.47 < power < 0.49  # as docs/gate.md says
    assert rejections(fewest, lost=0.006, gained=0.004) == pytest.approx(power, rel=1e-9)


def test_equal_losses_fail_at_most_alpha_of_the_time() -> None:
    # Skewed, as cross entropies are. The shares are from the formula, which the test follows.
    generator = np.random.default_rng(0)
    base, now = generator.exponential(size=(2, 10_000, 100))
    change = now - base
    t = change.mean(1) / (change.std(1, ddof=1) / np.sqrt(100))
    p_values = 2 * stats.t.sf(np.abs(t), 99)
    for pair in range(100):
        test = paired_t_test(base[pair], now[pair])
        assert test.p_value == pytest.approx(p_values[pair])
        assert (interval(test)[0] > 0) == (t[pair] > 0 and p_values[pair] < ALPHA)
    worse = np.mean((p_values <= ALPHA) & (t > 0))  # its standard error is 0.0016
    assert ALPHA / 5 < worse <= ALPHA / 2 + 0.005


def test_95_percent_of_the_intervals_cover_the_true_change() -> None:
    generator = np.random.default_rng(0)
    counts = generator.multinomial(2_000, [0.02, 0.01, 0.97], size=500)
    covered = 0
    for lost, gained, _ in counts:
        low, high = interval(mcnemar_test(lost, gained, 2_000))
        covered += low <= -0.01 <= high
    assert covered / 500 == pytest.approx(0.95, abs=0.025)
