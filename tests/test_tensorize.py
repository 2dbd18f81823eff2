from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.images import LabelledImages
from stages.tensorize import hold_out

Make = Callable[..., LabelledImages]


@given(validation=st.integers(0, 29), seed=st.integers(0, 99))
def test_each_image_is_in_one_split_in_the_files_order(validation: int, seed: int) -> None:
    images = torch.arange(30, dtype=torch.uint8).view(30, 1, 1, 1)
    split = LabelledImages(images, torch.arange(30) % 3, ("a", "b", "c"))
    kept, held_out = hold_out(split, validation, seed)
    assert len(held_out) == validation
    for part in (kept, held_out):
        order = part.images.flatten().tolist()
        assert order == sorted(order)
        assert torch.equal(part.labels, part.images.flatten().long() % 3)
        assert part.classes == split.classes
    assert sorted(torch.cat([kept.images, held_out.images]).flatten().tolist()) == list(range(30))


def test_the_seed_decides_which(make_images: Make) -> None:
    split = make_images(n=40)
    chosen = [hold_out(split, 10, seed)[1].images for seed in (0, 0, 1)]
    assert torch.equal(chosen[0], chosen[1])
    assert not torch.equal(chosen[0], chosen[2])


@pytest.mark.parametrize("validation", [40, 41])
def test_something_must_be_left_to_train_on(make_images: Make, validation: int) -> None:
    with pytest.raises(ValueError, match=rf"validation: found {validation}; expected less than 40"):
        hold_out(make_images(n=40), validation, seed=0)
