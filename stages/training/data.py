"""The splits that training reads, as tensors on the disk's own pages."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stages.formats.split_file import LabelledImages


@dataclass(frozen=True)
class Examples:
    """What is fitted or measured: pixels (N, D) uint8 and labels (N,) int64, in [0, K)."""

    pixels: Tensor
    labels: Tensor

    @classmethod
    def of(cls, split: LabelledImages) -> "Examples":
        """The tensors share the split's memory, and must not be written to."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that the memory is read-only
            return cls(torch.from_numpy(split.pixels), torch.from_numpy(split.labels))

    def __len__(self) -> int:
        return len(self.labels)


def read_splits(train_path: Path, validation_path: Path) -> tuple[LabelledImages, LabelledImages]:
    """Read the two splits; raises ValueError if one cannot be trained on with the other."""
    training = LabelledImages.load(train_path)
    validation = LabelledImages.load(validation_path)
    if not len(training):
        raise ValueError(f"{train_path}: found no images; expected at least one to train on")
    if len(training.classes) < 2:
        raise ValueError(f"{train_path}: found one class; expected two or more to tell apart")
    if (validation.classes, validation.image_shape) != (training.classes, training.image_shape):
        raise ValueError(
            f"{validation_path}: found other classes or another image shape than in {train_path};"
            " `dvc repro -f tensorize` regenerates both"
        )
    return training, validation
