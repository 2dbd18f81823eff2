"""Each stage on N pictures in shards, with one process and with two; next to a DataLoader.

`python -m benchmarks.scale [N ...]`, by default 10,000 and 100,000 pictures. CPU seconds are
those of all processes together: on a busy machine, they wander less than elapsed time.
`python -m benchmarks.scale loader FOLDER PROCESSES` runs the peer.
`python -m benchmarks.scale cold [N]`, as root on Linux, reads pictures from shards and from loose
files that are not in memory.
`python -m benchmarks.scale rows [N ...]` trains on N rows of 3,616 random features.
"""

import io
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, process_time, sleep

import numpy as np
import yaml
from PIL import Image

from benchmarks.memory import anonymous_bytes, family
from benchmarks.tables import markdown
from stages.download import DownloadParams, download
from stages.images.readers import read_dataset

PYTHON = sys.executable
NUMBERS = (10_000, 100_000)
SIDE = 32  # pixels
PER_SHARD = 10_000
CLASSES = 10
INTERVAL = 0.02  # seconds between two samples of the memory
BATCH, ITERATIONS = 1000, 100


@dataclass(frozen=True)
class Cost:
    """Elapsed and CPU seconds; the most anonymous memory of one process, in MB."""

    seconds: float
    processor: float
    megabytes: float


def main(numbers: Sequence[int]) -> None:
    """Print a table for each stage: a row for each N and number of processes."""
    rows: dict[str, list[list[str]]] = {}
    for number in numbers:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            print(f"making {number:,} pictures", file=sys.stderr)
            make_shards(folder / "pictures", number)
            for processes in (1, 2):
                for stage, pictures, command in commands(folder, number, processes):
                    print(f"{stage}: {number:,}, {processes}", file=sys.stderr)
                    cost = run(command, processes)
                    row = [
                        *(f"{number:,}", str(processes), f"{cost.seconds:.1f}"),
                        f"{cost.processor:.1f}",
                        f"{pictures / cost.seconds:,.0f}",
                        f"{cost.processor / pictures * 1e6:.0f}",
                        f"{cost.megabytes:.0f}",
                    ]
                    print(*row, sep=" | ", file=sys.stderr)
                    rows.setdefault(stage, []).append(row)
    header = [
        *("pictures", "processes", "seconds", "CPU seconds", "pictures/s"),
        *("CPU µs per picture", "MB of the largest process"),
    ]
    for stage, found in rows.items():
        print(f"\n{stage}\n\n{markdown(header, found)}")


def make_shards(folder: Path, number: int) -> None:
    """Shards as `stages.shards` writes them, without the loose files before them."""
    folder.mkdir()
    starts = range(0, number, PER_SHARD)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(partial(make_shard, folder, number), starts))


def make_shard(folder: Path, number: int, start: int) -> None:
    """Noise with a class's tint, as JPEG, about 1.2 kB a picture."""
    with tarfile.open(folder / f"{start // PER_SHARD:06}.tar", "w") as shard:
        for i in range(start, min(start + PER_SHARD, number)):
            pixels = np.random.default_rng(i).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
            pixels[..., i % 3] //= 1 + i % CLASSES
            picture = io.BytesIO()
            Image.fromarray(pixels).save(picture, "JPEG", quality=75)
            for suffix, content in (("jpg", picture.getvalue()), ("cls", b"%d" % (i % CLASSES))):
                info = tarfile.TarInfo(f"{i:09}.{suffix}")
                info.size = len(content)
                shard.addfile(info, io.BytesIO(content))


def commands(folder: Path, number: int, processes: int) -> list[tuple[str, int, list[str]]]:
    """Each stage, how many pictures it handles, and its command."""
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    params["download"]["dataset"] = str(folder / "pictures")
    params["tensorize"].update(channels=3, size=SIDE, deskew=False, validation=0.01, test=0.1)
    params["tensorize"].update(allow_duplicates=False, shift=0)
    params["train"].update(batch_size=BATCH, iterations=ITERATIONS, eval_every=ITERATIONS)
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    splits = {name: folder / f"{name}.safetensors" for name in ("train", "validation", "test")}
    common = f"--params={folder / 'params.yaml'}"
    stage = [PYTHON, "-m"]
    history, model = f"--history={folder / 'history.csv'}", f"--model={folder / 'model'}"
    raw = f"--raw={folder / 'raw'}"
    return [
        (
            "download: copy, check and index",
            number,
            [*stage, "stages.download", common, f"--watched={folder}", raw],
        ),
        (
            "tensorize: decode, and compute 3,808 features",
            number,
            [
                *(*stage, "stages.tensorize", common, raw),
                *(f"--{name}={path}" for name, path in splits.items()),
                f"--skipped={folder / 'skipped.csv'}",
            ],
        ),
        (
            f"train: {ITERATIONS} batches of {BATCH}",
            BATCH * ITERATIONS,
            [
                *(*stage, "stages.train", common, f"--train={splits['train']}", model, history),
                *(f"--validation={splits['validation']}", f"--metrics={folder / 'validation'}"),
            ],
        ),
        (
            "evaluate: a tenth of the pictures, with plots and the page",
            number // 10,
            [
                *(*stage, "stages.evaluate", common, f"--test={splits['test']}", model, history),
                *(f"--metrics={folder / 'metrics.json'}", f"--plots={folder / 'plots'}"),
                *(f"--predictions={folder / 'predictions.csv'}",),
                *(f"--report={folder / 'report.html'}", f"--model-card={folder / 'card.md'}"),
            ],
        ),
        (
            "the peer: a DataLoader over the same shards, pixels in memory, no features",
            number,
            [*stage, "benchmarks.scale", "loader", str(folder / "pictures"), str(processes)],
        ),
    ]


def run(command: Sequence[str], processes: int) -> Cost:
    """Run a command to its end. Raises RuntimeError with its output if it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    largest, start = 0, perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command,
            env=os.environ | {"PROCESSES": str(processes), "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        while process.poll() is None:
            largest = max(largest, *map(anonymous_bytes, family(process.pid)))
            sleep(INTERVAL)
        output.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{output.read()}")
    seconds = perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(seconds, processor, largest / 1e6)


def loader(folder: Path, processes: int) -> None:
    """Decode all pictures with webdataset and torch's DataLoader: batches of uint8 tensors."""
    import torch
    import webdataset
    from torch.utils.data import DataLoader

    shards = sorted(map(str, folder.glob("*.tar")))
    dataset = webdataset.WebDataset(shards, shardshuffle=False, empty_check=False)
    samples = dataset.decode("pilrgb").to_tuple("jpg", "cls").map_tuple(np.asarray)
    workers = processes if processes > 1 else 0
    batches = DataLoader(samples, batch_size=100, num_workers=workers)
    images, labels = zip(*batches, strict=True)
    print(torch.cat(images).shape, torch.cat(labels).shape)


def cold(number: int) -> None:
    """Read N pictures from shards and from loose files, three times in turns, dropping caches."""
    with tempfile.TemporaryDirectory(suffix=".part", dir=".") as scratch:  # on a disk
        folder = Path(scratch)
        make_shards(folder / "shards", number)
        for shard in (folder / "shards").iterdir():
            with tarfile.open(shard) as members:
                for member in members:
                    key, _, suffix = member.name.partition(".")
                    path = folder / "loose" / str(int(key) % CLASSES) / member.name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    if suffix == "jpg":
                        members.makefile(member, path)
        for kind in ("shards", "loose"):
            download(DownloadParams(dataset=str(folder / kind)), folder, folder / f"{kind} raw")
        for kind in ("shards", "loose") * 3:
            os.sync()
            Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")
            start, processor = perf_counter(), process_time()
            raw = folder / f"{kind} raw"
            for item in read_dataset(raw).train.pictures.items:
                place = (item.shard, item.start, item.size) if kind == "shards" else (item, 0, -1)
                with (raw / "train" / place[0]).open("rb", buffering=0) as file:
                    file.seek(place[1])
                    file.read(place[2])
            seconds = [perf_counter() - start, process_time() - processor]
            print(kind, *(f"{spent / number * 1e6:.0f} µs" for spent in seconds), sep=" | ")


def rows(numbers: Sequence[int]) -> None:
    """Fit N random rows for 100 batches, after ten that do not count."""
    import torch

    from stages.formats.input_spec import InputSpec
    from stages.formats.split_file import Split, create_split, write_rows
    from stages.training.data import Examples
    from stages.training.loop import fit
    from stages.training.settings import TrainParams

    torch.set_num_threads(1)
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))["train"]
    params.update(batch_size=BATCH, iterations=ITERATIONS + 10, eval_every=ITERATIONS)
    block = np.random.default_rng(0).integers(0, 256, (10_000, 3616), np.uint8)
    with tempfile.TemporaryDirectory(suffix=".part", dir=".") as scratch:
        for number in numbers:
            path, classes = Path(scratch, str(number)), [str(i) for i in range(CLASSES)]
            spec = InputSpec(1, 28, 28, features="gradients")
            create_split(path, np.arange(number) % CLASSES, (), classes, spec, 3616, False)
            for first in range(0, number, len(block)):
                chunk = np.roll(block, first // len(block), 1)[: number - first]
                write_rows(path, first, [(chunk, chunk)])
        for number in [*numbers] * 2:
            examples = Examples.of(Split.load(Path(scratch, str(number))))
            for step in fit(TrainParams(**params), examples, CLASSES):
                if step.iteration == 10:
                    start = process_time()
            seconds = process_time() - start
            each = BATCH * ITERATIONS / seconds
            megabytes = anonymous_bytes(os.getpid()) / 1e6
            print(f"{number:,} rows: {each:,.0f} per CPU second, {megabytes:.0f} MB")


if __name__ == "__main__":
    if sys.argv[1:2] == ["cold"]:
        cold(int((sys.argv[2:] or ["20000"])[0]))
    elif sys.argv[1:2] == ["rows"]:
        rows([int(text) for text in sys.argv[2:]] or (100_000, 1_000_000))
    elif sys.argv[1:2] == ["loader"]:
        loader(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main([int(text.replace(",", "")) for text in sys.argv[1:]] or NUMBERS)
