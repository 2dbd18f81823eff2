"""A folder of your own pictures -> a model of them: looked at, versioned, trained and measured.

In: a folder with one sub-folder per class, or with `train` and `test` of such, or a zip or tar of
one.  Out: a copy in the folder that DVC watches, added to DVC; params.yaml, set for these pictures;
and what `dvc repro` makes of both. params.yaml is written last, so a run that is killed has lost
nothing, and the next one goes on.
"""

import csv
import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field
from ruamel.yaml.comments import CommentedMap
from typer import Argument, Option

from stages.base.command import printable, run
from stages.base.params import Params, Real, Seed
from stages.base.params_file import ParamsFile
from stages.base.whole_files import clear_leftovers
from stages.formats.input_spec import FEATURES, InputSpec
from stages.images.inputs import feature_count
from stages.images.inspection import Inspection, inspect
from stages.images.readers import folder_dataset
from stages.report.intervals import balanced_accuracy_interval, wilson_interval
from stages.sources.own_pictures import Layout, opened
from stages.sources.placed_pictures import holds, originals, place, place_for

PARAMS = Path("params.yaml")
FEW_TESTED = 50  # pictures; the accuracy of fewer may be off by more than 0.1 either way
COPIES = 3  # of the pictures: in the folder that DVC watches, in its cache, and in its output
FEW_TRAINED = 5000  # pictures that a third of the iterations is enough for


class SplitParams(Params):
    """The params of `tensorize` that decide which pictures are held out."""

    model_config = ConfigDict(extra="ignore")
    fit: Literal["crop", "pad"] = Field(description="crop or pad")
    test: Real = Field(gt=0, lt=1, description="share of each class to test on")
    seed: Seed = Field(description="of the choice of test images, 0 to 2**63 - 1")


def pictures(source: Path, shown: str, dry_run: bool) -> None:
    """Make a model of the pictures in `source`, which the user calls `shown`."""
    watched, raw = options_of("download", "watched", "raw")
    metrics, predictions, page = options_of("evaluate", "metrics", "predictions", "report")
    target = place_for(source, watched)
    params, splitting = ParamsFile(PARAMS), SplitParams.load(PARAMS, "tensorize")
    with only_one(watched):
        with opened(source, watched) as layout:
            files = {} if target.exists() and target.samefile(source) else originals(layout)
            inspection = look_at(layout, shown, splitting, watched)
            megabytes = size_on_disk(layout)
            found = (f"{shown}: {describe(layout, megabytes)}", *inspection.lines())
            print(*map(printable, found), sep="\n")
            check_not_in_git(target)
            is_there = not files or (target.is_dir() and holds(target, files))
            if not is_there:
                check_replaceable(target)
                check_space(megabytes, inspection)
            changes = params_for(str(target), inspection, params)
            is_new = params.get("download.dataset") != str(target)
            described = params.change(changes) + (lift_limits(params) if is_new else [])
            copied = f"a copy, added to DVC, which keeps another; a third goes to {raw}"
            print(f"{target}: {'there already' if is_there else copied}")
            print(f"{PARAMS}: {', '.join(described) or 'as it is'}")
            advise(inspection)
            if dry_run:
                print("nothing has been changed: this was a dry run")
                return
            if is_there:
                clear_leftovers(target)
            else:
                place(files, target)
        dvc("add", "--quiet", str(target))
        params.save()
        dvc("repro", "--quiet")
        report(metrics, predictions, page)


def options_of(stage: str, *names: str) -> tuple[Path, ...]:
    """The paths that a stage's command in dvc.yaml gives to its options `names`.

    Raises FileNotFoundError or ValueError in any other folder than a pipeline's.
    """
    path = Path("dvc.yaml")
    if not path.is_file() or not Path(".dvc").is_dir():
        raise FileNotFoundError(f"no pipeline in {Path.cwd()}; run this in the repository's folder")
    try:
        command = yaml.safe_load(path.read_text(encoding="utf-8"))["stages"][stage]["cmd"]
        words = shlex.split(command)
        return tuple(Path(words[words.index(f"--{name}") + 1]) for name in names)
    except (yaml.YAMLError, LookupError, TypeError, AttributeError, ValueError):
        expected = ", ".join(f"--{name}" for name in names)
        raise ValueError(
            f"{path}: found no stage {stage} with the options {expected}; `git checkout {path}`"
            " restores the committed one"
        ) from None


@contextmanager
def only_one(watched: Path) -> Iterator[None]:
    """Raise OSError if another process is in such a block, or what `dvc` started in it still runs.

    DVC outlives this process if that is killed.
    """
    folder = os.open(watched, os.O_RDONLY)
    os.set_inheritable(folder, True)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise OSError(
            f"{watched}: another `stages.pictures`, or the DVC that it started, is at work there;"
            " wait for it"
        ) from None
    finally:
        os.close(folder)


def look_at(layout: Layout, shown: str, params: SplitParams, scratch: Path) -> Inspection:
    """Decode all pictures, and count them by class."""
    folders = {split: layout.folder / within for split, within in layout.classes.items()}
    names = {split: str(PurePath(shown, within)) for split, within in layout.classes.items()}
    counts = Counter(path.split("/")[1] for path in layout.origins)
    with redirect_stdout(None):  # not the number per second
        dataset = folder_dataset(folders, names)
        return inspect(dataset, counts, params.fit, params.test, params.seed, scratch)


def describe(layout: Layout, megabytes: float) -> str:
    """How many pictures there are, their size, and what else there is."""
    text = f"{len(layout.origins):,} pictures, {megabytes:,.1f} MB"
    if layout.others:
        text += f"; {len(layout.others)} other files ignored, such as {layout.others[0]}"
    return text


def size_on_disk(layout: Layout) -> float:
    """Of all pictures, in MB."""
    paths = (layout.folder / origin for origin in layout.origins.values())
    return sum(path.stat().st_size for path in paths if path.exists()) / 1e6


def check_space(megabytes: float, inspection: Inspection) -> None:
    """Raise OSError if there is no space for the copies, and for the images and their features."""
    channels, size = inspection.found.channels, inspection.found.size
    image = sum(
        feature_count(InputSpec(channels, *size, features=features)) for features in FEATURES
    )
    needed = COPIES * megabytes + (inspection.train + inspection.test) * image / 1e6
    free = shutil.disk_usage(".").free / 1e6
    if needed > free:
        raise OSError(
            f"found {free:,.0f} MB free; expected {needed:,.0f} MB, for {COPIES} copies of the"
            " pictures and for what the model sees of them; make space"
        )


def check_not_in_git(target: Path) -> None:
    """Raise ValueError if git holds pictures in `target`, OSError if git cannot tell."""
    tracked = subprocess.run(
        ["git", "ls-files", "--", target], capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        raise OSError(f"git: {tracked.stderr.partition(os.linesep)[0]}")
    if tracked.stdout:
        raise ValueError(f"{target}: in git; take it out with `git rm -r --cached {target}`")


def check_replaceable(target: Path) -> None:
    """Raise ValueError if replacing `target` would lose what DVC does not have."""
    if not os.path.lexists(target):
        return
    file = target.with_name(f"{target.name}.dvc")
    if not target.is_dir() or not file.is_file():
        raise ValueError(f"{target}: found other pictures, which would be lost; move them away")
    status = dvc("status", "--json", str(file), capture_output=True)
    if json.loads(status) != {}:
        raise ValueError(
            f"{target}: found other pictures, with changes that DVC does not have; `dvc add"
            f" {target}` stores them"
        )
    print(f"{target}: other pictures, which are replaced; DVC keeps them")


def params_for(target: str, inspection: Inspection, params: ParamsFile) -> dict[str, Any]:
    """The params to set. If they are about these pictures already, only what these demand."""
    demanded: dict[str, Any] = {"download.dataset": target}
    if inspection.broken:
        demanded["tensorize.skip_broken"] = True
    if inspection.duplicates:
        demanded["tensorize.allow_duplicates"] = True
    if params.get("download.dataset") == target:
        return demanded
    few = inspection.train < FEW_TRAINED
    return {
        "tensorize.channels": "auto",
        "tensorize.size": "auto",
        "tensorize.features": "gradients",
        "tensorize.deskew": "auto",
        "tensorize.shift": 0,
        "tensorize.validation": "auto",
        "tensorize.skip_broken": False,
        "tensorize.allow_duplicates": False,
        "train.optimizer": "adamw",
        "train.learning_rate": 0.004,
        "train.momentum": 0.9,
        "train.nesterov": False,
        "train.weight_decay": 0.01,
        "train.schedule": "cosine",
        "train.batch_size": 100,
        "train.iterations": 1000 if few else 3000,
        "train.eval_every": 100 if few else 500,
    } | demanded


def lift_limits(params: ParamsFile) -> list[str]:
    """Turn the gate's rules into those that suit any test set; describe the change."""
    for name, rule in params.section("gate").items():
        if not isinstance(rule, CommentedMap):
            raise ValueError(
                f"{PARAMS}: gate.{name}: found {rule!r}; expected a rule, as in docs/gate.md"
            )
        for key in ("floor", "ceiling", "accepted", "accepted_because"):
            rule.pop(key, None)
        for key, value in (("tolerance", "auto"), ("alpha", 0.05)):
            if rule.get(key) != value:
                rule[key] = value
                rule.ca.items.pop(key, None)  # the comment is about another value
    return ["gate without limits, tolerance auto"]


def advise(inspection: Inspection) -> None:
    """Say how little few test pictures tell, and what helps."""
    number = inspection.test
    if number >= FEW_TESTED:
        return
    low, high = wilson_interval(round(number * 0.8), number)
    remedy = "add pictures" + (
        ", or test on five other choices of them too: `dvc exp run --queue -S"
        " 'tensorize.seed=1,2,3,4,5'`, then `dvc exp run --run-all`"
        if inspection.held_out
        else ""
    )
    print(
        f"note: {number} test pictures tell little: of a measured accuracy of 80 %, the true one"
        f" may be {low:.0%} to {high:.0%}; {remedy}"
    )


def dvc(*arguments: str, capture_output: bool = False) -> str:
    """Run DVC with this interpreter, whose `python` the stages find too.

    Returns its output if that is captured. Raises OSError if it fails.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", *arguments],
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE if capture_output else None,
        text=True,
        close_fds=False,  # to share the lock of `only_one`
    )
    try:
        output = process.communicate()[0]
    except KeyboardInterrupt:  # DVC receives it too, and stops its stage
        process.wait()
        raise
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if process.returncode:
        reason = "; without --quiet it says why" if "--quiet" in arguments else ""
        raise OSError(
            f"`dvc {shlex.join(arguments)}` failed, with exit code {process.returncode}{reason};"
            " once that is fixed, run this again: it goes on from here"
        )
    return output


def report(metrics_path: Path, predictions_path: Path, page: Path) -> None:
    """Print the accuracies with their intervals, and where to go from here."""
    metrics = json.loads(metrics_path.read_text(encoding="utf-8"))
    with predictions_path.open(encoding="utf-8", newline="") as file:
        rows = [(row["actual"], row["actual"] == row["predicted"]) for row in csv.DictReader(file)]
    images = Counter(actual for actual, _ in rows)
    hits = Counter(actual for actual, hit in rows if hit)
    low, high = wilson_interval(hits.total(), len(rows))
    print(
        f"accuracy {metrics['accuracy']:.1%} (95 % interval: {low:.1%} to {high:.1%}) of"
        f" {len(rows):,} test pictures; {metrics['baseline_accuracy']:.1%} if the answer is always"
        " the most frequent class"
    )
    low, high = balanced_accuracy_interval([hits[name] for name in images], [*images.values()])
    print(
        f"balanced accuracy {metrics['balanced_accuracy']:.1%} ({low:.1%} to {high:.1%}), the mean"
        f" over the classes; {1 / len(images):.1%} for that answer"
    )
    print(f"look at {page}, then:")
    print("  git add . && git commit -m 'A model of my pictures'")
    program, here = Path(sys.executable), Path.cwd()  # not on the PATH where make ran this
    shown = program.relative_to(here) if program.is_relative_to(here) else "python"
    print(f"  {shown} -m stages.predict NEW_PICTURES")


def main(
    folder: Annotated[str, Argument(help="a folder, zip or tar with one sub-folder per class")],
    dry_run: Annotated[
        bool, Option("--dry-run", help="say what would be done, and change nothing")
    ] = False,
) -> None:
    """Make a model of your own pictures: copy them, add them to DVC, set the params, run all.

    `train` and `test` may stand above the classes; else a fifth of each class is held out to test
    on. Run again with the same folder, it takes what is new and leaves your params as they are.
    """
    if not folder:
        raise ValueError("found no folder; expected `make pictures FROM=~/animals`")
    source = Path(os.path.expanduser(folder))  # noqa: PTH111  # Path's own raises for unknown users
    pictures(source, folder, dry_run)


if __name__ == "__main__":
    run(main)
