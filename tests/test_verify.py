import numpy as np
import pytest

from stages.formats.model_file import rounded
from stages.verify import ENVIRONMENTS, straddling


def test_the_twenty_environments_have_names_of_their_own() -> None:
    names = [str(environment) for environment in ENVIRONMENTS]
    assert len(set(names)) == len(names) == 20
    assert {"native-1-thread", "avx2-1-thread-3-processes", "sse4.2-2-threads-killed"} < {*names}
    assert {environment.processes for environment in ENVIRONMENTS} == {1, 2, 3}
    assert sum(environment.killed for environment in ENVIRONMENTS) == 6


@pytest.mark.parametrize("size", [1e-3, 1.0, 100.0])
def test_straddling_is_the_number_of_weights_that_round_differently(size: float) -> None:
    generator = np.random.default_rng(0)
    one = generator.uniform(size, 1.5 * size, 100_000) * generator.choice([-1, 1], 100_000)
    other = one + generator.normal(0, 3e-8, one.shape)
    counted = int((rounded(one) != rounded(other)).sum())
    expected = straddling(one, other)
    assert counted == pytest.approx(expected, abs=4 * np.sqrt(expected))
    assert expected > 100
