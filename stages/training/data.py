"""The splits that training reads, as tensors mapped from disk."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stages.formats.split_file import Split


@dataclass(frozen=True)
class Examples:
    """Examples to fit or to evaluate: features (N, D) uint8 and labels (N,) int64, in [0, K)."""

    features: Tensor
    labels: Tensor

    @classmethod
    def of(cls, split: Split) -> "Examples":
        """Tensors that share the split's memory, and must not be written to."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that the memory is read-only
            return cls(torch.from_numpy(split.features), torch.from_numpy(split.labels))

    def __len__(self) -> int:
        return len(self.labels)


def read_splits(train_path: Path, validation_path: Path) -> tuple[Split, Split]:
    """Read the two splits; raises ValueError if they cannot be used together."""
    training = Split.load(train_path)
    validation = Split.load(validation_path)
    if not len(training):
        raise ValueError(f"{train_path}: found no images; expected at least one to train on")
    if len(training.classes) < 2:
        raise ValueError(f"{train_path}: found one class; expected two or more to distinguish")
    if (validation.classes, validation.spec, validation.features.shape[1]) != (
        training.classes,
        training.spec,
        training.features.shape[1],
    ):
        raise ValueError(
            f"{validation_path}: found other classes or another input spec than in {train_path};"
            " `dvc repro -f -s tensorize` regenerates both"
        )
    return training, validation
