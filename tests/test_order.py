"""The orders in which `splits` chooses images, against torch's."""

import pytest
from torch import Generator, randperm

from stages.splits import _random_order


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**32 + 5, 2**63 - 1])
def test_the_orders_are_those_of_torch(seed: int) -> None:
    generator, order = Generator().manual_seed(seed), _random_order(seed)
    for n in (2, 0, 3, 1, 1000, 60_000, 7):
        assert order(n).tolist() == randperm(n, generator=generator).tolist()
