"""What the model looks for, and what it got wrong, as SVG."""

from math import ceil, sqrt

import numpy as np

from stages.formats.model_file import Model
from stages.formats.split_file import LabelledImages
from stages.report.metrics import Predictions
from stages.report.svg import diverging, figure, fitted, rgb, templates


def weights_figure(model: Model) -> str:
    """One picture per class: what each pixel adds to its logit, beyond what it adds to all classes.

    Whatever is added to all classes alike changes no probability, so the mean over the classes is
    taken off: softmax(z + c) = softmax(z).
    """
    weights = fitted(model.weight.reshape(-1, *model.image_shape))  # (K, C, h, w)
    weights -= weights.mean(0)
    largest = f"{np.abs(weights).max():.2f} per pixel"
    if weights.shape[1] == 1:
        pictures = diverging(weights[:, 0])
        subtitle = f"red speaks for the class, blue against; full colour is {largest}"
    else:
        pictures = templates(weights)
        subtitle = f"the colours that speak for the class; grey is neutral, full colour {largest}"
    return figure(
        "What the model looks for",
        subtitle,
        pictures,
        [(name,) for name in model.classes],
        columns=min(len(model.classes), max(5, ceil(sqrt(len(model.classes))))),
    )


def mistakes_figure(predictions: Predictions, split: LabelledImages, number: int) -> str:
    """The images that the model got wrong with the most confidence, the worst first."""
    wrong = np.flatnonzero(predictions.actual != predictions.predicted)
    worst = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")[:number]]
    captions = [
        (
            f"{predictions.confidence[i]:.1%}: {split.classes[predictions.predicted[i]]}",
            f"actual {split.classes[predictions.actual[i]]}",
        )
        for i in worst.tolist()
    ]
    return figure(
        "The most confident mistakes",
        f"{len(worst)} of {len(wrong)} among {len(split)} test images:"
        " how sure the model was of which class, and the actual one",
        rgb(fitted(split.images[worst])),
        captions,
        columns=max(5, ceil(sqrt(len(worst)))),
    )
