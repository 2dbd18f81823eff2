"""The data set's files -> three splits of labelled images: train, validation and test.

In: the folder that `download` filled.  Out: one file a split. The validation split is held out of
the training files at random; the test split is the data set's own. What is on disk is uint8, so
that no arithmetic stands between the files and their hashes.
"""

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from typer import Option

from stages.command import run
from stages.images import LabelledImages
from stages.params import Integer, Params
from stages.readers import read_mnist


class TensorizeParams(Params):
    """Section `tensorize` of params.yaml."""

    validation: Integer = Field(
        ge=0, description="images held out of the training files; 0 leaves an empty split"
    )
    seed: Integer = Field(
        ge=0, lt=2**63, description="of the choice of those images, 0 to 2**63 - 1"
    )


def hold_out(
    images: LabelledImages, validation: int, seed: int
) -> tuple[LabelledImages, LabelledImages]:
    """Split off `validation` examples, chosen at random; both parts keep the order of the files.

    Raises ValueError if that would leave nothing to train on.
    """
    if validation >= len(images):
        raise ValueError(
            f"tensorize.validation: found {validation}; expected less than {len(images)},"
            " the number of training images"
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)
    held_out, kept = order[:validation].sort().values, order[validation:].sort().values
    return images.subset(kept), images.subset(held_out)


def tensorize(
    params: TensorizeParams, raw: Path, train_path: Path, validation_path: Path, test_path: Path
) -> None:
    """Read the files in `raw`, split, write the three splits."""
    train, validation = hold_out(read_mnist(raw, "train"), params.validation, params.seed)
    test = read_mnist(raw, "t10k")
    train.save(train_path)
    validation.save(validation_path)
    test.save(test_path)
    print(f"train {len(train)}, validation {len(validation)}, test {len(test)} images")


def main(
    params: Annotated[Path, Option(help="in: the file with the section `tensorize`")],
    raw: Annotated[Path, Option(help="in: the folder with the data set's files")],
    train: Annotated[Path, Option(help="out: the images to fit, safetensors")],
    validation: Annotated[Path, Option(help="out: the images to choose params by")],
    test: Annotated[Path, Option(help="out: the images to measure the model on")],
) -> None:
    """Turn a data set's files into three splits of labelled images."""
    tensorize(TensorizeParams.load(params, "tensorize"), raw, train, validation, test)


if __name__ == "__main__":
    run(main, TensorizeParams)
