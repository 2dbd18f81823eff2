import json
from dataclasses import replace
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import log_softmax

from stages.formats.input_spec import InputSpec
from stages.formats.model_file import Model, rounded, straddling
from tests.formats.hostile import NESTED, damaged, short, write

SPEC = InputSpec(3, 4, 5, "pad")
ABOUT = {"classes": ["a", "b", "c"], "input": SPEC.to_json(), "params": {}}


def random_model(scale: float = 1.0, seed: int = 0) -> Model:
    generator = np.random.default_rng(seed)
    weight, bias = generator.normal(0, scale, (3, 60)), generator.normal(0, scale, 3)
    return Model(weight, bias, ("a", "b", "c"), SPEC)


@given(scale=st.floats(0, 100), seed=st.integers(0, 99), n=st.integers(0, 20))
def test_log_probabilities_equal_torchs_log_softmax_of_a_linear_layer(
    scale: float, seed: int, n: int
) -> None:
    model = random_model(scale, seed)
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 60), np.uint8)
    w, b = torch.from_numpy(model.weight), torch.from_numpy(model.bias)
    expected = log_softmax(torch.from_numpy(pixels) / torch.tensor(255.0).double() @ w.T + b, dim=1)
    found = model.log_probabilities(pixels)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-12, atol=1e-12)


def test_huge_logits_give_finite_log_probabilities() -> None:
    model = Model(np.array([[3e6], [-3e6]]), np.zeros(2), ("a", "b"), InputSpec(1, 1, 1))
    log_p = model.log_probabilities(np.array([[255], [0]], np.uint8))
    np.testing.assert_allclose(log_p, [[0, -6e6], [-np.log(2), -np.log(2)]])


def test_a_model_reads_back_as_saved_with_weights_rounded_to_float32(tmp_path: Path) -> None:
    model, path = replace(random_model(), params={"rate": 0.1}), tmp_path / "folder" / "model"
    model.save(path)
    loaded = Model.load(path)
    for found, exact in ((loaded.weight, model.weight), (loaded.bias, model.bias)):
        assert found.dtype == np.float64
        assert np.array_equal(found, exact.astype(np.float32))
    assert (loaded.classes, loaded.spec, loaded.params) == (("a", "b", "c"), SPEC, {"rate": 0.1})
    assert loaded.serialized() == path.read_bytes()


def test_a_missing_model_is_reported_with_the_remedy(tmp_path: Path) -> None:
    for path in (tmp_path / "model", tmp_path):
        with pytest.raises(FileNotFoundError, match="no such file; `dvc repro train` makes it"):
            Model.load(path)


WEIGHT, BIAS = np.zeros((3, 60), np.float32), np.zeros(3, np.float32)


@pytest.mark.parametrize(
    ("tensors", "about", "problem"),
    [
        ({"weight": WEIGHT.astype(np.float64)}, {}, r"found tensors .*'weight': 'F64'.*expected"),
        ({"bias": BIAS.astype(np.float16)}, {}, r"found tensors .*'bias': 'F16'.*expected"),
        ({"bias": BIAS.astype(np.int32)}, {}, r"found tensors .*'bias': 'I32'.*expected"),
        ({"another": BIAS}, {}, r"found tensors .*'another'.*expected"),
        ({"weight": WEIGHT + np.float32(nan)}, {}, "weights that are not finite"),
        ({"weight": WEIGHT - np.float32(inf)}, {}, "weights that are not finite"),
        ({"bias": BIAS + np.float32(inf)}, {}, "weights that are not finite"),
        ({"weight": WEIGHT.T}, {}, r"found weight \(60, 3\).*expected \(3, D\)"),
        ({"weight": WEIGHT.reshape(3, 3, 4, 5)}, {}, r"found weight \(3, 3, 4, 5\)"),
        ({"bias": BIAS[:, None]}, {}, r"bias \(3, 1\).*expected .* \(3,\)"),
        ({}, {"classes": ["a", "b"]}, r"expected \(2, D\)"),
        ({}, {"classes": ["a", "b", "a"]}, "classes: found .*expected two or more distinct"),
        ({"weight": WEIGHT[:1], "bias": BIAS[:1]}, {"classes": ["a"]}, "expected two or more"),
        ({}, {"classes": "abc"}, "classes: found 'abc'; expected a list of names"),
        ({}, {"classes": [1, 2, 3]}, "classes: found .*; expected a list of names"),
        ({}, {"classes": [["a"], ["b"], ["c"]]}, "classes: found .*; expected a list of names"),
        ({}, {"input": SPEC.to_json() | {"height": 5}}, "found 60 weights per class; expected 75"),
        ({}, {"input": SPEC.to_json() | {"fit": "squash"}}, "fit: found 'squash'"),
        ({}, {"params": []}, r"params: found \[\]; expected an object"),
        (
            {},
            None,
            "metadata model: found None; expected .* keys classes, input, params",
        ),
        (
            {},
            "[]",
            r"metadata model: found \[\]; expected .* keys classes, input, params",
        ),
        (
            {},
            '{"classes": ["a", "b", "c"]}',
            "expected .* keys classes, input, params",
        ),
        ({}, "{", "Expecting"),
        ({}, NESTED, "recursion"),
        ({}, f'{{"classes": {NESTED}}}', "recursion"),
    ],
    ids=short,
)
def test_an_invalid_model_file_is_refused_in_one_line(
    tmp_path: Path, tensors: dict[str, Any], about: dict[str, Any] | str | None, problem: str
) -> None:
    changed = ABOUT | about if isinstance(about, dict) else about
    write(tmp_path / "m", {"weight": WEIGHT, "bias": BIAS} | tensors, "model", changed)
    with pytest.raises(ValueError, match=rf"m: not a model of this .*{problem}") as caught:
        Model.load(tmp_path / "m")
    assert str(caught.value).endswith("; `dvc repro -f -s train` regenerates it")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_model_without_one_of_its_tensors_or_its_metadata_is_refused(tmp_path: Path) -> None:
    for tensors in ({"weight": WEIGHT}, {"bias": BIAS}, {}):
        write(tmp_path / "m", tensors, "model", ABOUT)
        with pytest.raises(ValueError, match="m: not a model .*found tensors"):
            Model.load(tmp_path / "m")
    write(tmp_path / "m", {"weight": WEIGHT, "bias": BIAS}, "another entry", ABOUT)
    with pytest.raises(ValueError, match="m: not a model .*metadata model: found None"):
        Model.load(tmp_path / "m")


def test_a_damaged_model_is_refused_unless_it_is_still_valid(tmp_path: Path) -> None:
    problems = []
    for content in damaged(random_model().serialized()):
        (tmp_path / "m").write_bytes(content)
        try:
            model = Model.load(tmp_path / "m")
        except ValueError as error:
            problems.append(str(error))
        else:  # a letter of a name, say
            assert model.weight.shape == (len(model.classes), np.prod(model.spec.image_shape))
    assert len(problems) > 200
    for problem in problems:
        assert problem.startswith(f"{tmp_path / 'm'}: not a model of this pipeline (")
        assert "\n" not in problem


def test_a_models_metadata_is_json_with_only_its_own_keys() -> None:
    content = replace(random_model(), params={"seed": 1}).serialized()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    about = json.loads(header["__metadata__"]["model"])
    assert about == ABOUT | {"params": {"seed": 1}}
    assert list(header["__metadata__"]) == ["model"]


@pytest.mark.parametrize("size", [1e-3, 1.0, 100.0])
def test_straddling_is_the_number_of_weights_that_round_differently(size: float) -> None:
    generator = np.random.default_rng(0)
    one = generator.uniform(size, 1.5 * size, 100_000) * generator.choice([-1, 1], 100_000)
    other = one + generator.normal(0, 3e-8, one.shape)
    counted = int((rounded(one) != rounded(other)).sum())
    expected = straddling(one, other)
    assert counted == pytest.approx(expected, abs=4 * np.sqrt(expected))
    assert expected > 100


def test_weights_far_apart_count_once_each() -> None:
    assert straddling(np.zeros(3), np.array([0.0, 1.0, -70.0])) == 2
