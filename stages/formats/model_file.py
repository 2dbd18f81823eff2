"""The fitted model and the file that holds it: read, written and applied with NumPy alone.

The file is safetensors: weight (K, D) and bias (K,), float32. Its metadata says what a picture must
become before the model sees it, so that nothing else is needed to predict.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from stages.base.whole_files import write_bytes
from stages.formats.split_file import FITS, class_names, metadata

DTYPES = {"bias": "F32", "weight": "F32"}  # as safetensors writes them


@dataclass(frozen=True)
class Model:
    """Multinomial logistic regression: P(class k | pixels x) = softmax(W x / 255 + b)_k.

    weight: W, (K, D) float64.  bias: b, (K,) float64.  classes: K distinct names, two or more.
    image_shape: (C, H, W), C being 1 or 3.  fit: crop or pad, for pictures of another shape.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    fit: str

    def __post_init__(self) -> None:
        k, d = len(self.classes), prod(self.image_shape)
        if self.image_shape[0] not in (1, 3) or min(self.image_shape) < 1:
            raise ValueError(f"image_shape: found {self.image_shape}; expected (1 or 3, H, W)")
        if self.fit not in FITS:
            raise ValueError(f"fit: found {self.fit!r:.200}; expected {' or '.join(FITS)}")
        if not 2 <= len(set(self.classes)) == k:
            raise ValueError(
                f"classes: found {self.classes!r:.200}; expected two or more distinct names"
            )
        if (self.weight.shape, self.bias.shape) != ((k, d), (k,)):
            raise ValueError(
                f"found weight {self.weight.shape} and bias {self.bias.shape};"
                f" expected ({k}, {d}) and ({k},)"
            )
        if not (np.isfinite(self.weight).all() and np.isfinite(self.bias).all()):
            raise ValueError("found weights that are not finite in float32")

    def log_probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(N, D) uint8 -> log softmax(W x / 255 + b), (N, K) float64."""
        logits = (pixels * (1 / 255)) @ self.weight.T + self.bias
        logits -= logits.max(1, keepdims=True)
        log_p: NDArray[np.float64] = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return log_p

    def save(self, path: Path, params: Mapping[str, Any]) -> None:
        """Write the file that `load` reads, with the params the model was trained with."""
        write_bytes(path, self.serialized(params))

    def serialized(self, params: Mapping[str, Any]) -> bytes:
        """What `save` writes; the bytes depend on the content alone.

        All metadata stands in one entry: safetensors does not promise the order of several.
        """
        about = {
            "classes": self.classes,
            "fit": self.fit,
            "image_shape": self.image_shape,
            "params": params,
        }
        metadata = {"model": json.dumps(about, ensure_ascii=False, sort_keys=True)}
        weights = {"weight": self.weight.astype(np.float32), "bias": self.bias.astype(np.float32)}
        content: bytes = save(weights, metadata)
        return content

    @classmethod
    def load(cls, path: Path) -> "Model":
        """Read a model: its float32 weights, in float64.

        Raises FileNotFoundError, or a ValueError if the file is not a model that can be applied.
        """
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; `dvc repro train` makes it")
        try:
            with safe_open(path, framework="np") as file:
                about = metadata(file, "model", {"classes", "fit", "image_shape"})
                found = {name: file.get_slice(name).get_dtype() for name in sorted(file.keys())}
                if found != DTYPES:
                    raise ValueError(f"found tensors {found!r:.200}; expected {DTYPES}")
                weight, bias = (file.get_tensor(name) for name in ("weight", "bias"))
            shape = about["image_shape"]
            if not isinstance(shape, list) or [type(edge) for edge in shape] != [int, int, int]:
                raise ValueError(f"image_shape: found {shape!r:.200}; expected [C, H, W]")
            return cls(
                weight.astype(np.float64),
                bias.astype(np.float64),
                class_names(about),
                (shape[0], shape[1], shape[2]),
                about["fit"],
            )
        except (SafetensorError, ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{path}: not a model of this pipeline ({reason}); `dvc repro -f train`"
                " regenerates it"
            ) from None
