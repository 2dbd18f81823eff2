"""Whatever a file holds, its reader gives a valid object or one error that says what is wrong.

FUZZ_SECONDS, 10 by default, is shared by all readers; `make fuzz` takes an hour and prints the
executions per second.
"""

import io
import os
import tarfile
import time
import warnings
import zipfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.base.command import message
from stages.download import DownloadParams
from stages.evaluate import EvaluateParams, read_history
from stages.formats.idx import idx_bytes, read_idx
from stages.formats.input_spec import InputSpec
from stages.formats.model_file import Model
from stages.formats.split_file import Split
from stages.images.decoding import Decoded, Decoder
from stages.images.preprocessing import Preprocessing, open_picture
from stages.images.readers import read_dataset
from stages.sources.archives import unpack
from stages.sources.portable_names import check_names
from stages.tensorize import TensorizeParams
from stages.training.checkpoint import Checkpoint, State
from stages.training.settings import TrainParams
from tests.fuzz.mutations import mutated
from tests.pipelines import PARAMS

READERS = 10
SECONDS = float(os.environ.get("FUZZ_SECONDS", "10")) / READERS  # for each


def fuzz(name: str, strategy: st.SearchStrategy[Any], check: Callable[[Any], object]) -> None:
    """Call `check` with examples of the strategy until the time is up.

    It may raise OSError or ValueError with a message of at least a few words: that is refusing.
    """
    executions, refused, reasons = 0, 0, {9}  # words of messages
    start, start_of_cpu = time.perf_counter(), time.process_time()

    def execute(example: Any) -> None:
        nonlocal executions, refused
        executions += 1
        try:
            check(example)
        except (OSError, ValueError) as error:
            refused += 1
            reasons.add(len(message(error).split()))

    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    profile = settings(max_examples=100, database=None, deadline=None, suppress_health_check=checks)
    while not executions or time.perf_counter() - start < SECONDS:
        profile(given(strategy)(execute))()
    seconds = time.process_time() - start_of_cpu
    print(
        f"{name}: {executions} executions, {executions / seconds:.0f} per CPU second,"
        f" {refused / executions:.0%} refused"
    )
    assert 0 < refused < executions
    assert min(reasons) > 2


def in_a_file(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """A check that writes its bytes to `path` and reads them there."""

    def check(content: bytes) -> object:
        path.write_bytes(content)
        return read(path)

    return check


def test_readers_of_params(tmp_path: Path) -> None:
    sections = (
        ("download", DownloadParams),
        ("tensorize", TensorizeParams),
        ("train", TrainParams),
        ("evaluate", EvaluateParams),
    )

    def read(path: Path) -> None:
        for section, params in sections:
            params.load(path, section)

    fuzz("params", mutated([PARAMS.read_bytes()]), in_a_file(tmp_path / "params.yaml", read))


def a_split(count: int, spec: InputSpec) -> Split:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, *spec.image_shape), dtype=np.uint8)
    labels = np.arange(count) % 3
    names = np.frombuffer(b"".join(b"%d.png\n" % i for i in range(count)), np.uint8)
    return Split(
        images.reshape(count, prod(spec.image_shape)), labels, ("a", "b", "ç"), spec, names
    )


def test_the_reader_of_splits(tmp_path: Path) -> None:
    originals = []
    for count, spec in ((5, InputSpec(1, 3, 4)), (0, InputSpec(3, 2, 2))):
        a_split(count, spec).save(tmp_path / "split")
        originals.append((tmp_path / "split").read_bytes())

    def read(path: Path) -> None:
        split = Split.load(path)
        assert len(split.pictures) == len(split.images) == len(split.labels)
        assert split.features.sum() >= 0  # every page of the file is there

    fuzz("splits", mutated(originals), in_a_file(tmp_path / "split", read))


def test_the_reader_of_models(tmp_path: Path) -> None:
    spec = InputSpec(1, 3, 4)
    model = Model(np.eye(3, 12), np.zeros(3), ("a", "b", "ç"), spec, {"seed": 0})

    def read(path: Path) -> None:
        model = Model.load(path)
        features = np.full((2, model.weight.shape[1]), 255, np.uint8)
        probabilities = np.exp(model.log_probabilities(features))
        np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-9)

    fuzz("models", mutated([model.serialized()]), in_a_file(tmp_path / "model", read))


def test_the_reader_of_checkpoints(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path / "model", lambda: "a" * 64)
    kept.keep(State(7, [torch.arange(6.0)], [{"loss": 0.5}]))
    original = kept.path.read_bytes()

    def read(path: Path) -> None:
        with redirect_stderr(io.StringIO()):
            state = Checkpoint(tmp_path / "model", lambda: "a" * 64).load()
        assert (state is None) == (path.read_bytes() != original)
        if state is None:
            raise ValueError("it was passed over, with a line")

    fuzz("checkpoints", mutated([original]), in_a_file(kept.path, read))


def test_the_reader_of_histories(tmp_path: Path) -> None:
    original = (
        b"iteration,training_loss,validation_loss,validation_accuracy\n10,0.5,,\n20,1,2,0.3\n"
    )

    def read(path: Path) -> None:
        for row in read_history(path):
            assert [type(value) for value in row[:2]] == [int, float]

    fuzz("histories", mutated([original]), in_a_file(tmp_path / "history.csv", read))


def archives() -> Sequence[bytes]:
    """Two pictures' worth of bytes in a zip, and in a tar of each compression."""
    files = {"cat/1.png": b"a" * 3000, "dog/é.png": bytes(range(256))}
    originals = []
    for mode in ("w:", "w:gz", "w:bz2", "w:xz"):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode=mode) as tar:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        originals.append(file.getvalue())
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return [*originals, file.getvalue()]


def test_the_reader_of_archives(tmp_path: Path) -> None:
    runs = iter(range(10**9))

    def read(path: Path) -> None:
        folder = tmp_path / "out" / str(next(runs))
        folder.mkdir(parents=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile's, for names that occur twice
            try:
                unpack(path, folder)
            finally:
                assert {entry.name for entry in tmp_path.iterdir()} == {"archive", "out"}
                assert not any(entry.is_symlink() for entry in folder.rglob("*"))

    fuzz("archives", mutated(archives()), in_a_file(tmp_path / "archive", read))


def test_the_checker_of_file_names(tmp_path: Path) -> None:
    letters = st.sampled_from("aAbéẞs\u017f\u0131Iİ./\\ \n\x1b\ud800e\u0301\u212a")
    paths = st.lists(st.text(letters, min_size=1, max_size=6), max_size=6)
    runs = iter(range(10**9))

    def check(names: list[str]) -> None:
        relative = [name for name in names if ".." not in name and not name.startswith("/")]
        relative = [name for name in relative if set(name) - set("./") and not name.endswith("/")]
        check_names(relative)
        folder = tmp_path / str(next(runs))
        for name in relative:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with (folder / name).open("x"):
                pass
        if len(names) > len(relative):
            raise ValueError("names that archives refuse before")

    fuzz("file names", paths, check)


def test_the_reader_of_dataset_json(tmp_path: Path) -> None:
    (tmp_path / "train" / "cat").mkdir(parents=True)
    origin = b'"licence": null, "name": "x", "source": "y"'
    originals = [
        b'{"format": "pictures", %s}' % origin,
        b'{"classes": ["a", "b"], "format": "idx", %s}' % origin,
    ]
    for split in ("train", "t10k"):
        for kind, shape in (("images-idx3", (2, 3, 4)), ("labels-idx1", (2,))):
            path = tmp_path / f"{split}-{kind}-ubyte"
            path.write_bytes(idx_bytes(np.zeros(shape, np.uint8)))

    def read(_: Path) -> None:
        dataset = read_dataset(tmp_path)
        for split in (dataset.train, dataset.test):
            if split and split.stored:
                split.stored.file.close()

    fuzz("dataset.json", mutated(originals), in_a_file(tmp_path / "dataset.json", read))


def test_the_reader_of_idx_files(tmp_path: Path) -> None:
    original = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))

    def read(path: Path) -> None:
        assert read_idx(path, 3).sum() >= 0

    fuzz("IDX files", mutated([original]), in_a_file(tmp_path / "images-idx3-ubyte", read))


def pictures() -> Sequence[bytes]:
    """A small picture in each of many formats and modes."""
    originals = []
    image = Image.linear_gradient("L").resize((12, 9))
    for suffix, mode in (
        *(("png", "L"), ("png", "RGBA"), ("png", "P"), ("png", "I;16"), ("png", "1")),
        *(("jpeg", "RGB"), ("jpeg", "CMYK"), ("webp", "RGB"), ("gif", "P"), ("bmp", "RGB")),
        *(("tiff", "RGB"), ("ppm", "RGB")),
    ):
        file = io.BytesIO()
        image.convert(mode).save(file, suffix)
        originals.append(file.getvalue())
    return originals


def test_the_decoder_of_pictures(tmp_path: Path) -> None:
    preprocessing = Preprocessing(3, (6, 6), "crop")

    def read(path: Path) -> None:
        decode = Decoder(lambda item: (open_picture(str(item)), 0), str, preprocessing)
        (outcome,) = decode([path])
        if not isinstance(outcome, Decoded):
            raise ValueError(f"{outcome.name}: cannot be read: {outcome.reason}")
        assert len(outcome.pixels) == 3 * 6 * 6

    fuzz("pictures", mutated(pictures()), in_a_file(tmp_path / "picture", read))
