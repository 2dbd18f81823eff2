"""LogisticRegression: one linear layer and a softmax; save, load."""

import json
import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from stages.base.whole_files import write_bytes
from stages.images.stored_images import Fit


def pixels(images: Tensor) -> Tensor:
    """(N, C, H, W) uint8 -> (N, D) float64 in [0, 1]."""
    return images.flatten(1).to(torch.float64).mul_(1 / 255)


class LogisticRegression(nn.Module):
    """Multinomial logistic regression: P(class k | pixels x) = softmax(W x + b)_k.

    W is (K, D) and b is (K,), both zero at first: the loss is convex, so that there is no
    symmetry to break. Computed in float64, published in float32.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], classes: tuple[str, ...], fit: Fit = "crop"
    ) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.classes = classes
        self.fit = fit
        self.weight = nn.Parameter(
            torch.zeros(len(classes), prod(image_shape), dtype=torch.float64), requires_grad=False
        )
        self.bias = nn.Parameter(
            torch.zeros(len(classes), dtype=torch.float64), requires_grad=False
        )

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) uint8 -> (N, K) float64: the logarithms of the class probabilities."""
        return log_probabilities(self.weight, self.bias, pixels(images))

    def save(self, path: Path, params: Mapping[str, Any]) -> None:
        """Write the weights in float32, with the classes, the images' shape, `fit` and the params.

        Raises ValueError if a weight is not finite in float32.
        """
        write_bytes(path, self.serialized(params))

    def serialized(self, params: Mapping[str, Any]) -> bytes:
        """What `save` writes; the bytes depend on the content alone.

        Raises ValueError if a weight is not finite in float32. All metadata stands in one entry:
        safetensors does not promise the order of several.
        """
        weights = {
            name: tensor.to("cpu", torch.float32) for name, tensor in self.named_parameters()
        }
        if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
            raise ValueError(
                "the weights grew beyond float32: lower train.learning_rate or train.weight_decay"
            )
        about = {
            "classes": self.classes,
            "fit": self.fit,
            "image_shape": self.image_shape,
            "params": params,
        }
        metadata = {"model": json.dumps(about, ensure_ascii=False, sort_keys=True)}
        return save(weights, metadata)

    @classmethod
    def load(cls, path: Path) -> "LogisticRegression":
        """Read what `save` wrote: the float32 weights, in float64.

        Raises FileNotFoundError, or a ValueError if the file is not such a model.
        """
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; `dvc repro train` makes it")
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads(file.metadata()["model"])
                channels, height, width = about["image_shape"]
                model = cls((channels, height, width), tuple(about["classes"]), about["fit"])
                model.load_state_dict({name: file.get_tensor(name) for name in ("weight", "bias")})
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{path}: not a model ({reason}); `dvc repro -f train` makes it anew"
            ) from None
        return model


def log_probabilities(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """Weights (K, D), (K,) and pixels (N, D), all float64 -> log softmax(W x + b), (N, K)."""
    logits = torch.addmm(bias[:, None], weight, x.T)  # (K, N): faster than (N, K) for few classes
    return torch.log_softmax(logits, dim=0).T


def use_threads(
    batch_size: int, image_shape: tuple[int, int, int], classes: tuple[str, ...]
) -> None:
    """Use one thread where a batch is too little work to share, unless OMP_NUM_THREADS is set.

    It changes no result. On a busy machine, several threads that wait for each other at every small
    operation can take forty times as long as one.
    """
    if (
        "OMP_NUM_THREADS" not in os.environ
        and batch_size * prod(image_shape) * len(classes) < 2**24
    ):
        torch.set_num_threads(1)
