import numpy as np
import pytest

from stages.verify import ENVIRONMENTS, straddling


def test_twenty_environments_that_all_differ() -> None:
    assert len(set(ENVIRONMENTS)) == len(ENVIRONMENTS) == 20
    assert {environment.processes for environment in ENVIRONMENTS} == {1, 2, 3}
    assert sum(environment.killed for environment in ENVIRONMENTS) == 6


@pytest.mark.parametrize("size", [1e-3, 1.0, 3.0])
def test_straddling_is_the_share_that_rounds_differently(size: float) -> None:
    generator = np.random.default_rng(0)
    one = generator.uniform(size, 1.5 * size, 100_000) * generator.choice([-1, 1], 100_000)
    other = one + generator.normal(0, 1e-9 * size, one.shape)
    counted = int((one.astype(np.float32) != other.astype(np.float32)).sum())
    expected = straddling(one, other)
    assert counted == pytest.approx(expected, abs=4 * np.sqrt(expected))
    assert expected > 100
