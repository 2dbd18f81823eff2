"""Measure everything and print the tables, in Markdown; progress goes to standard error."""

import json
import platform
import subprocess
import sys
from dataclasses import astuple
from importlib.metadata import version
from math import prod
from os import cpu_count
from pathlib import Path
from statistics import median

from benchmarks import growth, page, pictures, pipeline, processes, whole_processes
from benchmarks.memory import SAMPLED
from benchmarks.tables import markdown
from benchmarks.training import RAW, ROWS, Measured
from scripts.chromium import MISSING

NEEDED = (RAW, Path("data/tensors"))


def measure_rows() -> dict[str, Measured]:
    """The medians of each row's repetitions, each in a process of its own.

    The rows take turns, so that a busy minute of the machine does not fall on one alone.
    """
    runs: dict[str, list[Measured]] = {name: [] for name in ROWS}
    for turn in range(max(row.repetitions for row in ROWS.values())):
        for name, row in ROWS.items():
            if turn < row.repetitions:
                print(f"{row.title}, {turn + 1} of {row.repetitions}", file=sys.stderr)
                command = [sys.executable, "-m", "benchmarks.training", name]
                runs[name].append(Measured(**json.loads(subprocess.check_output(command))))
    return {
        name: Measured(*map(median, zip(*map(astuple, of), strict=True)))
        for name, of in runs.items()
    }


def training_table() -> str:
    """The training loops, on the same data."""
    measured = measure_rows()
    tutorial = measured["tutorial"].seconds / measured["ours"].seconds
    table = markdown(
        ("training", "seconds", "ratio to ours", "test accuracy", "MB above its imports"),
        [
            (
                ROWS[name].title,
                f"{row.seconds:.2f}",
                f"{row.seconds / measured['ours'].seconds:.1f}",
                f"{row.accuracy:.2%}",
                f"{row.megabytes:.0f}",
            )
            for name, row in measured.items()
        ],
    )
    whole = whole_processes.measure()
    ratios = markdown(
        ("the tutorial against ours, at its settings", "seconds", "ratio", "to reach"),
        [
            ("its loop", f"{measured['tutorial'].seconds:.2f}", f"{tutorial:.1f}", "> 22"),
            (
                f"its whole process against `python -m stages.train` ({whole.ours:.2f} s), each"
                " less its imports",
                f"{whole.tutorial:.2f}",
                f"{whole.tutorial / whole.ours:.1f}",
                "> 18",
            ),
        ],
    )
    return f"{table}\n\n{ratios}"


def pipeline_table() -> str:
    """The pipeline's commands, relative to what they cannot do without."""
    found = pipeline.measure()
    repro, no_op = found.changed / found.bare_torch, found.no_op / found.empty_no_op
    return markdown(
        ("pipeline", "seconds", "measured", "to reach"),
        [
            (
                "peak memory of `python -m stages.train` above `import torch`",
                "",
                f"{found.megabytes:.0f} MB",
                "< 300 MB",
            ),
            (
                "`dvc repro` after a change of train.learning_rate, relative to `import torch`"
                f" ({found.bare_torch:.2f} s)",
                f"{found.changed:.2f}",
                f"{repro:.2f}",
                "< 4.5",
            ),
            (
                "`dvc repro` with nothing to do, relative to the same on an empty pipeline"
                f" ({found.empty_no_op:.2f} s)",
                f"{found.no_op:.2f}",
                f"{no_op:.2f}",
                "< 1.2",
            ),
            (
                f"throughput of two processes relative to one, images of {prod(processes.PIXELS):,}"
                f" pixels, {processes.CLASSES} classes, batches of {processes.BATCH_SIZE}",
                "",
                f"{processes.measure():.2f}",
                "> 1.5",
            ),
        ],
    )


def pictures_table() -> str:
    """Decoding, compared with what people write by hand."""
    found = pictures.measure()
    decoded, digits = pictures.PHOTOGRAPHS, pictures.DIGITS
    height, width = pictures.SIZE
    rows = [
        (
            "`python -m stages.tensorize`: the features of MNIST's 70,000 images",
            70_000,
            found.features,
            "",
            "",
        ),
        (
            f"`python -m stages.tensorize`: {decoded:,} photographs of 128 x 96 pixels,"
            f" to 3 x {height} x {width} pixels",
            decoded,
            found.tensorize,
            "",
            "",
        ),
        (
            "a plain loop over Pillow, relative to tensorize",
            decoded,
            found.loop,
            f"{found.loop / found.tensorize:.1f}",
            "> 1",
        ),
        (
            "a DataLoader over ImageFolder, one worker per CPU, relative to tensorize",
            decoded,
            found.data_loader,
            f"{found.data_loader / found.tensorize:.1f}",
            "> 1",
        ),
        (
            f"Pillow alone: {digits:,} grey pictures of 28 x 28 pixels opened and decoded",
            digits,
            found.load,
            "",
            "",
        ),
        (
            "`python -m stages.predict` on them, features and all, relative to Pillow alone",
            digits,
            found.predict,
            f"{found.predict / found.load:.1f}",
            "",
        ),
    ]
    return markdown(
        ("pictures", "seconds", "per second", "ratio", "to reach"),
        [
            (title, f"{seconds:.2f}", f"{number / seconds:,.0f}", *rest)
            for title, number, seconds, *rest in rows
        ],
    )


def growth_table() -> str:
    """Memory by number of images."""
    shape = " x ".join(map(str, growth.SHAPE))
    titles = {
        "tensorize": f"`python -m stages.tensorize`, N = {growth.PHOTOGRAPHS:,} photographs,"
        " with the processes that decode them",
        "train": f"`python -m stages.train`, N = {growth.IMAGES:,} images of {shape}",
        "evaluate": "`python -m stages.evaluate` on the same images",
    }
    return markdown(
        ("memory, without the file cache", "MB at N", "MB at 10 N", "ratio", "to reach"),
        [
            (titles[name], f"{few:.0f}", f"{many:.0f}", f"{many / few:.2f}", "< 1.1")
            for name, (few, many) in growth.measure().items()
        ],
    )


def main() -> int:
    """Print the tables; return 2 if the pipeline has not been run."""
    missing = [str(folder) for folder in NEEDED if not folder.is_dir()]
    if missing:
        print(
            f"error: {', '.join(missing)}: no such folder; run `dvc repro` in the repository's root"
            " first",
            file=sys.stderr,
        )
        return 2
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "scikit-learn", "dvc"))
    print(f"{libraries}, Python {platform.python_version()}, {cpu_count()} CPUs\n")
    print(training_table(), end="\n\n", flush=True)
    print(pipeline_table(), end="\n\n", flush=True)
    print(pictures_table(), end="\n\n", flush=True)
    print(MISSING or page.table(), end="\n\n", flush=True)
    if SAMPLED:
        print(growth_table())
    else:
        print("Memory at N and at 10 N is not measured: this system has no /proc/PID/status.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
