import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Never

import numpy as np
import pytest
from PIL import Image

from stages.images import decoding
from stages.images.decoding import Decoded, Outcome, Pictures, Unreadable, decode
from stages.images.preprocessing import Preprocessing
from tests.conftest import ROOT
from tests.openers import OpenFile, defect, killed, of_number, png_of_size, short_of_memory

GREY = Preprocessing(1, (2, 3), "crop")


def outcomes(pictures: Pictures, preprocessing: Preprocessing = GREY) -> list[Outcome]:
    return [outcome for chunk in decode(pictures, preprocessing) for outcome in chunk]


def expected(items: Sequence[int]) -> list[Outcome]:
    return [
        Unreadable(f"picture {i}", f"{i} is no picture")
        if i % 10 == 9
        else Decoded(bytes([i] * 6), (2, 3), i + 1000)
        for i in items
    ]


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_what_comes_out_is_in_order_for_any_number_of_processes(processes: int) -> None:
    items = range(250)
    found = outcomes(Pictures(items, of_number, "picture {}".format, processes))
    assert found == expected(items)


@pytest.mark.parametrize("processes", [1, 2])
def test_no_picture_is_nothing_to_do(processes: int) -> None:
    assert outcomes(Pictures([], of_number, str, processes)) == []


def test_pixels_are_channel_by_channel() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 3, 3), np.uint8)
    pictures = Pictures([0], lambda _: (Image.fromarray(noise), 0), str)
    (found,) = outcomes(pictures, Preprocessing(3, None, "crop"))
    assert isinstance(found, Decoded)
    assert found.size == (2, 3)
    pixels = np.frombuffer(found.pixels, np.uint8).reshape(3, 2, 3)
    np.testing.assert_array_equal(pixels, noise.transpose(2, 0, 1))


@pytest.mark.parametrize("processes", [1, 2])
def test_broken_files_are_told_the_same_by_any_process(tmp_path: Path, processes: int) -> None:
    Image.new("L", (3, 2), 90).save(tmp_path / "good.png")
    (tmp_path / "bomb.png").write_bytes(png_of_size(10_000, 9_000))
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    Image.fromarray(np.ones((2, 3), np.float32)).save(tmp_path / "floats.tif")
    names = ["bomb.png", "good.png", "empty.png", "folder.png", "missing.png", "floats.tif"]
    assert outcomes(Pictures(names, OpenFile(tmp_path), str.upper, processes)) == [
        Unreadable(
            "BOMB.PNG",
            "Image size (90000000 pixels) exceeds limit of 89478485 pixels, could be decompression"
            " bomb DOS attack.",
        ),
        Decoded(bytes([90] * 6), (2, 3), 0),
        Unreadable("EMPTY.PNG", "an empty file"),
        Unreadable("FOLDER.PNG", "Is a directory"),
        Unreadable("MISSING.PNG", "No such file or directory"),
        Unreadable("FLOATS.TIF", "floating-point pixels, whose white is unknown"),
    ]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_picture_larger_than_the_memory_is_none(processes: int) -> None:
    found = outcomes(Pictures(range(70), short_of_memory, "picture {}".format, processes))
    assert found[3] == Unreadable("picture 3", "more pixels than there is memory for")
    del found[3]
    assert found == expected([*range(3), *range(4, 70)])


def test_a_killed_process_is_told_in_a_line() -> None:
    with pytest.raises(OSError, match="a process that decodes pictures was killed") as error:
        outcomes(Pictures(range(1000), killed, str, 2))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_defect_is_none_of_the_pictures(processes: int) -> None:
    with pytest.raises(RuntimeError, match="a defect at 0"):
        outcomes(Pictures(range(10), defect, str, processes))


def test_chunks_of_large_pictures_are_small() -> None:
    assert [len(chunk) for chunk in decode(Pictures(range(70), of_number, str), GREY)] == [
        32,
        32,
        6,
    ]
    large = Preprocessing(1, (2000, 2000), "crop")
    assert len(next(decode(Pictures(range(70), of_number, str), large))) == 2
    largest = Preprocessing(3, (10_000, 10_000), "crop")
    assert decoding._pictures_a_chunk(largest) == 1


def test_the_first_seconds_work_is_done_without_another_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def share(*_: object) -> Never:
        raise InterruptedError

    monkeypatch.setattr(decoding, "_shared", share)
    monkeypatch.setattr(decoding, "cpus", lambda: 8)
    assert len(outcomes(Pictures(range(200), lambda i: of_number(i % 9), str))) == 200
    monkeypatch.setattr(decoding, "ALONE_SECONDS", 0)
    with pytest.raises(InterruptedError):
        outcomes(Pictures(range(200), of_number, str))


SLOW = """
    import os, sys, time
    from pathlib import Path
    from PIL import Image
    from stages.images.decoding import Pictures, decode
    from stages.images.preprocessing import Preprocessing

    def tell(what):
        Path(sys.argv[1], f"{os.getpid()} {what}").touch()

    def slow(item):
        tell("while they decode")
        time.sleep(0.2)
        return Image.new("L", (1, 1)), 0

    if __name__ != "__main__":
        tell("while they start")
        time.sleep(0.3)
    else:
        pictures = Pictures(range(10_000), slow, str, 2)
        try:
            for chunk in decode(pictures, Preprocessing(1, None, "crop")):
                pass
        except KeyboardInterrupt:
            print("interrupted")
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="the children are looked up in /proc")
@pytest.mark.parametrize(
    ("number", "when"),
    [
        (signal.SIGINT, "while they start"),
        (signal.SIGINT, "while they decode"),
        (signal.SIGKILL, "while they decode"),
    ],
)
def test_no_process_outlives_its_parent(tmp_path: Path, number: signal.Signals, when: str) -> None:
    (tmp_path / "program.py").write_text(textwrap.dedent(SLOW))
    (tmp_path / "pids").mkdir()
    program = subprocess.Popen(
        [sys.executable, tmp_path / "program.py", tmp_path / "pids"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: len(list((tmp_path / "pids").glob(f"*{when}"))) == 2)
    workers = children(program.pid)
    if number == signal.SIGINT:  # as a terminal does: to all of them
        for pid in workers:
            os.kill(pid, number)
        time.sleep(0.1)
    program.send_signal(number)
    out, err = program.communicate(timeout=9)  # less than a chunk takes
    assert out == ("interrupted\n" if number == signal.SIGINT else "")
    assert "Traceback" not in err
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task/{pid}/children")
    return list(map(int, tasks.read_text().split())) if tasks.exists() else []


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
