"""What was downloaded -> three splits of labelled images: train, validation and test.

In: the folder that `download` filled.  Out: one file a split, and a list of the pictures that were
left out. The test split is the data set's own; where it has none, a share of each class is held out
at random. The validation split is held out of what is left to train on. What is on disk is uint8,
so that no arithmetic stands between the pictures and their hashes.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from typer import Option

from stages.base.command import run
from stages.base.csv_text import csv_text
from stages.base.params import Integer, Params, Real, number
from stages.base.whole_files import write_text
from stages.images.collection import collect
from stages.images.preprocessing import EDGE, Fit, Preprocessing
from stages.images.readers import read_source
from stages.images.splits import (
    Split,
    check_classes,
    check_duplicates,
    check_readable,
    check_shapes,
    name_classes,
)


def _one_or_three(value: Any) -> Any:
    if isinstance(value, bool):  # equal to 1
        raise ValueError("1 or 3")
    return number(value)


def _height_and_width(value: Any) -> Any:
    if value is None:
        return None
    sides = value if isinstance(value, list | tuple) else [value, value]
    sides = [number(side) for side in sides]
    if len(sides) != 2 or not all(type(side) is int and 1 <= side <= EDGE for side in sides):
        raise ValueError(f"pixels a side, or [height, width], 1 to {EDGE}; or null")
    return tuple(sides)


def _count_or_share(value: float) -> float:
    if value >= 1 and not value.is_integer():
        raise ValueError("a whole number of images, or a share below 1")
    return value


class TensorizeParams(Params):
    """Section `tensorize` of params.yaml."""

    channels: Annotated[Literal[1, 3], BeforeValidator(_one_or_three)] = Field(
        description="1 for grey, 3 for colour"
    )
    size: Annotated[tuple[int, int] | None, BeforeValidator(_height_and_width)] = Field(
        description=f"pixels a side, or [height, width], 1 to {EDGE}; null keeps the pictures' own"
    )
    fit: Fit = Field(description="crop or pad: how a picture of another shape comes to this size")
    test: Real = Field(
        gt=0, lt=1, description="share of each class to test on, if the data set has no test split"
    )
    validation: Annotated[Real, AfterValidator(_count_or_share)] = Field(
        ge=0, description="training images to choose params by: how many, or below 1 a share"
    )
    seed: Integer = Field(
        ge=0, lt=2**63, description="of the choice of those images, 0 to 2**63 - 1"
    )
    skip_broken: bool = Field(
        description="true or false: leave out and list pictures that cannot be read"
    )
    allow_duplicates: bool = Field(
        description="true or false: only count test images that are training images too"
    )

    @property
    def preprocessing(self) -> Preprocessing:
        """What becomes of each picture."""
        return Preprocessing(self.channels, self.size, self.fit)

    def hold_out_validation(self, images: Split) -> tuple[Split, Split]:
        """What is left to train on, and what to choose params by.

        Raises ValueError if nothing would be left to train on.
        """
        if 0 < self.validation < 1:
            return images.hold_out_of_each_class(self.validation, f"validation {self.seed}")
        if self.validation >= len(images):
            raise ValueError(
                f"tensorize.validation: found {self.validation:g}; expected less than"
                f" {len(images)}, the number of training images, or a share below 1"
            )
        return images.hold_out(int(self.validation), self.seed)


def tensorize(
    params: TensorizeParams,
    raw: Path,
    train_path: Path,
    validation_path: Path,
    test_path: Path,
    skipped_path: Path,
) -> None:
    """Decode the pictures in `raw`, split, write the splits and the list of what was left out."""
    source, preprocessing, scratch = read_source(raw), params.preprocessing, train_path.parent
    with (
        collect(source.train, preprocessing, scratch) as of_train,
        collect(source.test, preprocessing, scratch)
        if source.test
        else nullcontext(of_train) as of_test,
    ):
        skipped = of_train.unreadable + (of_test.unreadable if source.test else [])
        check_readable(skipped, params.skip_broken)
        check_shapes(of_train, of_test)
        check_duplicates(of_train, of_test, params.allow_duplicates)
        classes, files, test_files = name_classes(source, of_train, of_test)
        kept, test = Split.of_all(files), Split.of_all(test_files)
        if not source.test:
            kept, test = kept.hold_out_of_each_class(params.test, f"test {params.seed}")
        train, validation = params.hold_out_validation(kept)
        check_classes(classes, kept, test, train)

        train.write(train_path, classes, params.fit)
        validation.write(validation_path, classes, params.fit)
        test.write(test_path, classes, params.fit)
        rows = [(picture.name, picture.reason) for picture in skipped]
        write_text(skipped_path, csv_text(("picture", "reason"), rows))
        channels, height, width = of_train.images.shape
        print(
            f"train {len(train)}, validation {len(validation)}, test {len(test)}"
            f" images of {channels} x {height} x {width}, {len(classes)} classes"
        )
    if skipped:
        print(
            f"{len(skipped)} pictures that cannot be read are left out; {skipped_path} lists them"
        )


def main(
    params: Annotated[Path, Option(help="in: the file with the section `tensorize`")],
    raw: Annotated[Path, Option(help="in: the folder that `download` filled")],
    train: Annotated[Path, Option(help="out: the images to fit, safetensors")],
    validation: Annotated[Path, Option(help="out: the images to choose params by")],
    test: Annotated[Path, Option(help="out: the images to measure the model on")],
    skipped: Annotated[Path, Option(help="out: the pictures that were left out, CSV")],
) -> None:
    """Turn what was downloaded into three splits of labelled images.

    As many processes decode pictures as there are CPUs; that changes no byte of what comes out.
    """
    tensorize(TensorizeParams.load(params, "tensorize"), raw, train, validation, test, skipped)


if __name__ == "__main__":
    run(main, TensorizeParams)
