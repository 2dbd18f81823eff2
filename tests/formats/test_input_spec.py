from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.formats.input_spec import FEATURES, FITS, InputSpec

ABOUT = InputSpec(3, 4, 5, "pad", deskew=True, features="gradients").to_json()


@given(
    st.builds(
        InputSpec,
        st.sampled_from([1, 3]),
        st.integers(1, 99),
        st.integers(1, 99),
        st.sampled_from(FITS),
        st.booleans(),
        st.sampled_from(FEATURES),
    )
)
def test_an_input_spec_survives_a_round_trip_through_json(spec: InputSpec) -> None:
    assert InputSpec.from_json(spec.to_json()) == spec
    assert spec.shows_images == (spec.features == "pixels" and not spec.deskew)


@pytest.mark.parametrize(
    ("about", "problem"),
    [
        (None, "input: found None; expected an object with the keys channels, height, width"),
        ({}, "input: found {}; expected an object"),
        (ABOUT | {"scale": 2}, "input: found .*'scale': 2"),
        (ABOUT | {"channels": 2}, "channels: found 2; expected 1 or 3"),
        (ABOUT | {"channels": True}, "channels: found True; expected 1 or 3"),
        (ABOUT | {"channels": 10**5000}, "channels|digits"),
        (ABOUT | {"height": 0}, "height: found 0; expected pixels, 1 or more"),
        (ABOUT | {"width": 5.0}, "width: found 5.0; expected pixels, 1 or more"),
        (ABOUT | {"fit": ["crop"]}, r"fit: found \['crop'\]; expected crop or pad"),
        (ABOUT | {"deskew": 1}, "deskew: found 1; expected true or false"),
        (ABOUT | {"features": "sift"}, "features: found 'sift'; expected pixels or gradients"),
    ],
)
def test_an_invalid_input_spec_is_refused(about: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        InputSpec.from_json(about)
