"""The fitted model and the file that holds it: read, written and applied with NumPy alone.

The file is safetensors: weight (K, D) and bias (K,), float32. Its metadata says how a picture
must be prepared for the model, so nothing else is needed to predict.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save

from stages.base.whole_files import write_bytes
from stages.formats.input_spec import InputSpec
from stages.formats.metadata import class_names, metadata, valid

DTYPES = {"bias": "F32", "weight": "F32"}  # as safetensors writes them

GRID = 2.0**-18  # between published weights; see `rounded`


def rounded(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights as they are published: multiples of GRID that float32 has; not finite beyond those.

    Two machines publish different weights where a rounding boundary lies between their float64
    values. Around 0, float32 has boundaries so close together that this would happen to one of tens
    of thousands of weights; a grid has few, and changes a logit by some millionths.
    """
    step = steps(weights)
    published: NDArray[np.float64] = np.rint(weights / step) * step
    return published


def steps(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distance between published values next to each weight."""
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 it is not a number
        spacing = np.spacing(np.abs(weights).astype(np.float32)).astype(np.float64)
    return np.maximum(spacing, GRID)


def straddling(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The expected number of weights that two runs publish differently.

    Two float64 values a distance d apart lie on different sides of a rounding boundary with
    probability d / s, at most 1, where s is the step between published values. (N,), (N,) -> the
    sum.
    """
    return float(np.minimum(np.abs(one - other) / steps(one), 1).sum())


@dataclass(frozen=True)
class Model:
    """Multinomial logistic regression: P(class k | features x) = softmax(W x / 255 + b)_k.

    weight: W, (K, D) float64.  bias: b, (K,) float64.  classes: K distinct names, two or more.
    spec: how a picture is prepared for the model.  params: those it was trained with.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    classes: tuple[str, ...]
    spec: InputSpec
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        k, d = len(self.classes), self.weight.shape[-1]
        if not 2 <= len(set(self.classes)) == k:
            raise ValueError(
                f"classes: found {self.classes!r:.200}; expected two or more distinct names"
            )
        if (self.weight.shape, self.bias.shape) != ((k, d), (k,)):
            raise ValueError(
                f"found weight {self.weight.shape} and bias {self.bias.shape};"
                f" expected ({k}, D) and ({k},)"
            )
        if self.spec.features == "pixels" and d != prod(self.spec.image_shape):
            raise ValueError(f"found {d} weights per class; expected {prod(self.spec.image_shape)}")
        if not isinstance(self.params, Mapping):
            raise ValueError(f"params: found {self.params!r:.200}; expected an object")
        if not (np.isfinite(self.weight).all() and np.isfinite(self.bias).all()):
            raise ValueError("found weights that are not finite in float32")

    def log_probabilities(self, features: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(N, D) uint8 -> log softmax(W x / 255 + b), (N, K) float64."""
        logits = (features * (1 / 255)) @ self.weight.T + self.bias
        logits -= logits.max(1, keepdims=True)
        log_p: NDArray[np.float64] = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return log_p

    def save(self, path: Path) -> None:
        """Write the file that `load` reads."""
        write_bytes(path, self.serialized())

    def serialized(self) -> bytes:
        """The bytes that `save` writes; they depend on the content alone.

        All metadata is in one entry: safetensors does not promise an order for several.
        """
        about = {
            "classes": self.classes,
            "input": self.spec.to_json(),
            "params": self.params,
        }
        text = json.dumps(about, ensure_ascii=False, sort_keys=True)
        weights = {"weight": self.weight.astype(np.float32), "bias": self.bias.astype(np.float32)}
        content: bytes = save(weights, {"model": text})
        return content

    @classmethod
    def load(cls, path: Path) -> "Model":
        """Read a model: its float32 weights, in float64.

        Raises FileNotFoundError, or ValueError if the file is not a valid model.
        """
        with valid(path, "model", "train"):
            with safe_open(path, framework="np") as file:
                about = metadata(file, "model", {"classes", "input", "params"})
                found = {name: file.get_slice(name).get_dtype() for name in sorted(file.keys())}
                if found != DTYPES:
                    raise ValueError(f"found tensors {found!r:.200}; expected {DTYPES}")
                weight, bias = (file.get_tensor(name) for name in ("weight", "bias"))
            return cls(
                weight.astype(np.float64),
                bias.astype(np.float64),
                class_names(about),
                InputSpec.from_json(about["input"]),
                about["params"],
            )
