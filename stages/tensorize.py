"""Downloaded data -> three splits of labelled images: train, validation and test.

In: the folder that `download` filled.  Out: one file per split, and a list of the pictures that
were left out. The test split is the data set's own; if it has none, a share of each class is held
out. The validation split is held out of the remaining training images. Images are stored as uint8,
so that the files' hashes do not depend on floating-point arithmetic.
"""

import json
from contextlib import ExitStack
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field
from typer import Option

from stages.base.canonical_text import csv_text
from stages.base.command import run
from stages.base.params import Integer, Params, Real, Seed, number
from stages.base.process_count import on_several_machines, processes_asked_for, under_torchrun
from stages.base.process_group import ALONE, ProcessGroup
from stages.base.whole_files import whole_files
from stages.formats.input_spec import InputSpec
from stages.formats.origin import UNKNOWN
from stages.formats.split_file import create_split, write_rows
from stages.images.augmentation import moved_chunks, moves_by
from stages.images.collection import collect
from stages.images.decoding import cpus
from stages.images.inputs import feature_count, with_features
from stages.images.preprocessing import EDGE, Preprocessing
from stages.images.readers import Dataset, read_dataset
from stages.images.splits import (
    automatic_validation,
    check_classes,
    check_duplicates,
    check_readable,
    check_shapes,
    hold_out,
    name_classes,
)
from stages.images.stored_images import StoredImages
from stages.images.survey import survey

AUTO = "auto"
Auto = Literal["auto"]


def _one_or_three(value: Any) -> Any:
    if isinstance(value, bool):  # True equals 1
        raise ValueError("1, 3 or auto")
    return number(value)


def _height_and_width(value: Any) -> Any:
    if value in (None, AUTO):
        return value
    sides = value if isinstance(value, list | tuple) else [value, value]
    sides = [number(side) for side in sides]
    if len(sides) != 2 or not all(type(side) is int and 1 <= side <= EDGE for side in sides):
        raise ValueError(f"pixels per side, or [height, width], 1 to {EDGE}; or auto")
    return tuple(sides)


def _count_or_share(value: Any) -> Any:
    if value == AUTO:
        return value
    amount = number(value)
    is_number = isinstance(amount, int | float) and not isinstance(amount, bool)
    if not is_number or not 0 <= amount < inf or (amount >= 1 and amount != int(amount)):
        raise ValueError("a whole number of images, a share below 1, or auto")
    return float(amount)


def _true_or_false(value: Any) -> Any:
    if value != AUTO and not isinstance(value, bool):
        raise ValueError("true, false or auto")
    return value


class TensorizeParams(Params):
    """Section `tensorize` of params.yaml."""

    channels: Annotated[Literal[1, 3, "auto"], BeforeValidator(_one_or_three)] = Field(
        description="1 for grey, 3 for colour, or auto"
    )
    size: Annotated[tuple[int, int] | Auto | None, BeforeValidator(_height_and_width)] = Field(
        description=f"pixels per side, or [height, width], 1 to {EDGE}; or auto"
    )
    fit: Literal["crop", "pad"] = Field(
        description="crop or pad: how a picture of another shape is made to fit"
    )
    features: Literal["gradients", "pixels"] = Field(
        description="gradients or pixels: what the model sees of an image"
    )
    deskew: Annotated[bool | Auto, BeforeValidator(_true_or_false)] = Field(
        description="true, false or auto: shear handwriting upright first"
    )
    shift: Integer = Field(
        ge=0,
        le=100,
        description="pixels by which copies of training images are moved, 0 to 100; 0: no copies",
    )
    test: Real = Field(
        gt=0, lt=1, description="share of each class to test on if the data set has no test split"
    )
    validation: Annotated[float | Auto, BeforeValidator(_count_or_share)] = Field(
        description="training images held out to choose params by: a count, a share below 1 or auto"
    )
    seed: Seed = Field(description="of the choice of test and validation images, 0 to 2**63 - 1")
    skip_broken: bool = Field(description="true or false: leave out and list unreadable pictures")
    allow_duplicates: bool = Field(
        description="true or false: only count test images that are also training images"
    )


def tensorize(
    params: TensorizeParams,
    raw: Path,
    train_path: Path,
    validation_path: Path,
    test_path: Path,
    skipped_path: Path,
    *,
    group: ProcessGroup = ALONE,
) -> None:
    """Decode the pictures in `raw`; write three splits and the list of what was left out.

    Each process of `group` decodes its share and writes its rows into files that the first makes.
    """
    dataset, scratch = read_dataset(raw), train_path.parent
    preprocessing = preprocessing_for(params, dataset)
    with whole_files() as outputs, ExitStack() as files:
        images, skipped = files.enter_context(collect(dataset.train, preprocessing, scratch, group))
        own_test = None
        if dataset.test:
            own_test, more = files.enter_context(
                collect(dataset.test, preprocessing, scratch, group)
            )
            skipped = skipped + more
        check_readable(skipped, params.skip_broken)
        classes, splits = make_splits(params, dataset, images, own_test, group)
        deskew = dataset.handwriting if isinstance(params.deskew, str) else params.deskew
        spec = InputSpec(*images.shape, params.fit, deskew, params.features)
        decided = {
            "channels": spec.channels,
            "size": [spec.height, spec.width],
            "deskew": deskew,
            "validation": number(validation_amount(params, len(splits[0]) + len(splits[1]))),
        }
        origin = replace(
            dataset.origin,
            counts=dict(zip(("train", "validation", "test"), map(len, splits), strict=True)),
            params=params.model_dump(mode="json") | decided,
        )
        for path, split in zip((train_path, validation_path, test_path), splits, strict=True):
            testing = path == test_path  # `evaluate` shows images, and names them
            moves = moves_by(params.shift if path == train_path else 0)
            part = outputs.part(path) if group.first else path
            if group.first:
                create_split(
                    part,
                    np.tile(split.labels, len(moves)),
                    split.names() if testing else (),
                    classes,
                    spec,
                    feature_count(spec),
                    with_images=testing and not spec.shows_images,
                    origin=origin if testing else UNKNOWN,
                )
            part = group.gather(part)[0]
            for copy, move in enumerate(moves):
                row = copy * len(split) + split.rows.start
                write_rows(part, row, with_features(moved_chunks(split, move), spec))
        group.gather(None)  # all have written their rows
        if group.first:
            outputs.write_text(skipped_path, csv_text(("picture", "reason"), skipped))
            print(
                "train {}, validation {}, test {} images of".format(*map(len, splits)),
                f"{' x '.join(map(str, images.shape))}, {len(classes)} classes",
            )
            if automatic := [name for name in decided if getattr(params, name) == AUTO]:
                values = ", ".join(f"{name} {json.dumps(decided[name])}" for name in automatic)
                print("auto:", values)
    group.gather(None)  # the files are in their places
    if skipped and group.first:
        print(f"unreadable pictures left out: {len(skipped)}, listed in {skipped_path}")


def preprocessing_for(params: TensorizeParams, dataset: Dataset) -> Preprocessing:
    """How each picture becomes an image; `auto` means as the training pictures suggest."""
    channels, size = params.channels, params.size
    if isinstance(channels, str) or isinstance(size, str):
        found = survey(dataset.train)
        channels = found.channels if isinstance(channels, str) else channels
        size = found.size if isinstance(size, str) else size
    return Preprocessing(channels, size, params.fit)


def validation_amount(params: TensorizeParams, available: int) -> float:
    """How many of the training images `available` to hold out: a count, or a share below 1."""
    amount = params.validation
    return automatic_validation(available) if isinstance(amount, str) else amount


def make_splits(
    params: TensorizeParams,
    dataset: Dataset,
    images: StoredImages,
    own_test: StoredImages | None,
    group: ProcessGroup,
) -> tuple[tuple[str, ...], tuple[StoredImages, StoredImages, StoredImages]]:
    """The names of the classes; the images to train on, to choose params by, and to test on.

    `own_test` is the data set's own test split. Raises ValueError if the images will not do.
    """
    if own_test is not None:
        check_shapes(images, own_test)
    check_duplicates(images, own_test, params.allow_duplicates, group)
    classes, images, test = name_classes(dataset, images, own_test)
    if test is None:
        images, test = hold_out(images, params.test, f"test {params.seed}", dataset.key_of, group)
    amount = validation_amount(params, len(images))
    if amount >= len(images):
        raise ValueError(
            f"tensorize.validation: found {amount:g}; expected less than"
            f" {len(images)}, the number of training images, or a share below 1"
        )
    key = f"validation {params.seed}"
    train, validation = hold_out(images, amount, key, dataset.key_of, group)
    check_classes(classes, images.labels, test.labels, train.labels)
    return classes, (train, validation, test)


def main(
    params: Annotated[Path, Option(help="in: the file with the section `tensorize`")],
    raw: Annotated[Path, Option(help="in: the folder that `download` filled")],
    train: Annotated[Path, Option(help="out: the images to train on, safetensors")],
    validation: Annotated[Path, Option(help="out: the images to choose params by, safetensors")],
    test: Annotated[Path, Option(help="out: the images to test on, safetensors")],
    skipped: Annotated[Path, Option(help="out: the pictures that were left out, CSV")],
) -> None:
    """Turn what was downloaded into three splits of labelled images.

    The environment variable PROCESSES says how many processes decode, and how many threads compute
    features: one per CPU if it is unset. torchrun shares the work among machines. That changes no
    byte of the output.
    """
    loaded = TensorizeParams.load(params, "tensorize")
    with ExitStack() as stack:
        group = ALONE
        if on_several_machines() or under_torchrun():
            from stages.training.processes import (  # torch takes seconds to import
                errors_told_to_torchrun,
                joined_processes,
                run_processes,
                watched,
            )

            if not under_torchrun():
                run_processes("stages.tensorize", processes_asked_for() or cpus())
                return
            stack.enter_context(errors_told_to_torchrun())
            group = stack.enter_context(watched(stack.enter_context(joined_processes())))
        tensorize(loaded, raw, train, validation, test, skipped, group=group)


if __name__ == "__main__":
    run(main, TensorizeParams)
