"""Splits of images whose features are their pixels."""

from typing import Any

import numpy as np

from stages.formats.input_spec import InputSpec
from stages.formats.split_file import Images, Labels, Split


def pixel_split(
    images: Images,
    labels: Labels,
    classes: tuple[str, ...],
    fit: str = "crop",
    names: np.ndarray[Any, np.dtype[np.uint8]] | None = None,
) -> Split:
    """A split of `images`, (N, C, H, W), for a model of raw pixels."""
    channels, height, width = images.shape[1:]
    spec = InputSpec(channels, height, width, fit)
    lines = np.empty(0, np.uint8) if names is None else names
    features = images.reshape(len(images), channels * height * width)
    return Split(features, labels, classes, spec, lines)
