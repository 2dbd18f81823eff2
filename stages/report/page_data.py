"""What the page and the model card show of a run: plain values and arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stages.report.intervals import wilson_interval
from stages.report.metrics import confusion_counts

WIDE_INTERVAL = 0.05  # a wider one shows that the test set is small
SECTIONS = ("download", "tensorize", "train", "evaluate")  # of params, in the pipeline's order


@dataclass(frozen=True)
class PageData:
    """A run: its data set, its model, and the model's predictions for N test images.

    title: the data set's name.  licence, source: the data set's; None if not known.
    classes: K names.  image_shape: (C, H, W).  fit: crop or pad, for pictures of another shape.
    features: what the model sees of an image.  deskew: whether images are deskewed first.
    weight: (K, D) float32.  bias: (K,) float32.  The logits of features x are W x / 255 + b.
    images: (N, C, H, W) uint8, not deskewed.  pictures: their names, N.
    actual, predicted: (N,), in [0, K).  confidence: (N,), the probability of the predicted class.
    actual_probability: (N,), that of the actual class.
    metrics: the content of data/metrics.json.
    reliability: for each bin that holds images, mean confidence, accuracy and number of images;
    `evaluate.calibration_bins` of `params` is the number of bins, which have equal width.
    history: rows of iteration, training loss, validation loss and accuracy, None where there is no
    validation split.  params: by section and name.  counts: images by split.
    """

    title: str
    licence: str | None
    source: str | None
    classes: Sequence[str]
    image_shape: tuple[int, int, int]
    fit: str
    features: Literal["gradients", "pixels"]
    deskew: bool
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    images: NDArray[np.uint8]
    pictures: Sequence[str]
    actual: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    actual_probability: NDArray[np.float64]
    metrics: Mapping[str, Any]
    reliability: Sequence[tuple[float, float, int]]
    history: Sequence[tuple[int, float, float | None, float | None]]
    params: Mapping[str, Mapping[str, Any]]
    counts: Mapping[str, int]

    @property
    def confusion_counts(self) -> NDArray[np.int64]:
        """Images by actual and predicted class, (K, K)."""
        return confusion_counts(self.actual, self.predicted, len(self.classes))

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the accuracy."""
        images, errors = self.metrics["images"], self.metrics["errors"]
        return wilson_interval(images - errors, images)

    @property
    def small_test_set(self) -> str:
        """A sentence about a test set that tells little; empty for one that tells enough."""
        low, high = self.accuracy_interval
        if high - low <= WIDE_INTERVAL:
            return ""
        return f"A test set of {self.metrics['images']:,} cannot tell the accuracy more exactly."

    @property
    def rows_of_params(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """The params as text, by section in the pipeline's order, and by name."""
        known = [name for name in SECTIONS if name in self.params]
        others = sorted(name for name in self.params if name not in SECTIONS)
        return [
            (section, [(name, as_text(value)) for name, value in sorted(values.items())])
            for section, values in ((name, self.params[name]) for name in known + others)
        ]

    @property
    def seen(self) -> str:
        """What the model sees of a picture, in words."""
        channels, height, width = self.image_shape
        size = f"{height} \N{MULTIPLICATION SIGN} {width}"
        pixels = f"its {size} {'grey' if channels == 1 else 'colour'} pixels"
        what = (
            f"{self.weight.shape[1]:,} integer features of the gradients in {pixels}"
            if self.features == "gradients"
            else f"the {self.weight.shape[1]:,} values of {pixels}"
        )
        return f"{what}, after deskewing" if self.deskew else what


def as_text(value: Any) -> str:
    """A param as a person writes it in params.yaml."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_text, value))}]"
    return str(value)


def percent_range(interval: tuple[float, float]) -> str:
    """Two shares as percentages."""
    return " to ".join(map(percent, interval))


def percent(share: float) -> str:
    """A share as a percentage: 100 % and 0 % only for exactly all and nothing."""
    if 0 < share < 0.00005:
        return "< 0.01 %"
    if 0.99995 <= share < 1:
        return "> 99.99 %"
    return f"{share:.2%}".replace("%", " %")
