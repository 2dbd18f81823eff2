import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, Never

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


def test_a_killed_resource_tracker_is_started_again_without_a_warning() -> None:
    tracker: Any = resource_tracker._resource_tracker
    tracker.ensure_running()
    os.kill(tracker._pid, signal.SIGKILL)
    os.waitid(os.P_PID, tracker._pid, os.WEXITED | os.WNOWAIT)
    assert outcomes(Pictures(range(70), of_number, "picture {}".format, 2)) == expected(range(70))


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


def test_processes_says_how_many_processes_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def share(processes: int, *_: object) -> list[object]:
        asked.append(processes)
        return []

    monkeypatch.setattr(decoding, "_shared", share)
    monkeypatch.setattr(decoding, "ALONE_SECONDS", 0)
    monkeypatch.setenv("PROCESSES", "3")
    outcomes(Pictures(range(10), of_number, str))
    assert asked == [3]
    monkeypatch.setenv("PROCESSES", "1")
    assert len(outcomes(Pictures(range(9), of_number, str))) == 9
    assert asked == [3]


def test_no_more_chunks_are_in_memory_than_the_processes_need() -> None:
    class Items(Sequence[int]):
        taken = 0

        def __len__(self) -> int:
            return 10_000

        def __getitem__(self, index: Any) -> Any:
            self.taken = index.stop
            return range(len(self))[index]

    items = Items()
    chunks = decode(Pictures(items, of_number, str, processes=2), GREY)
    for consumed in range(1, 20):
        next(chunks)
        assert items.taken <= (consumed + 2 * 2) * decoding.CHUNK


class Program:
    """A program that decodes in two processes, in a process group of its own."""

    def __init__(self, folder: Path, source: str) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "program.py").write_text(textwrap.dedent(source))
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, folder / "program.py", folder],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_until(self, what: str, processes: int) -> None:
        """Wait until as many processes have told that they are at `what`."""
        end = time.monotonic() + 20
        while len(list(self.folder.glob(f"*{what}"))) < processes:
            assert time.monotonic() < end
            time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        """Send what a terminal sends for Ctrl-C, to the whole group; others to the parent alone."""
        send = os.killpg if number == signal.SIGINT else os.kill
        send(self.process.pid, number)

    def ends(self) -> tuple[int, str, str]:
        """Exit code, output and errors, once the last process that could write to them is gone."""
        try:
            output, errors = self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            pytest.fail("it hangs")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.returncode, output, errors


SLOW = """
    import os, signal, sys, time
    from pathlib import Path
    from PIL import Image
    from stages.images.decoding import Pictures, decode
    from stages.images.preprocessing import Preprocessing

    def tell(what):
        Path(sys.argv[1], f"{os.getpid()} {what}").touch()

    def slow(item):
        tell("while they decode")
        time.sleep(2)
        return Image.new("L", (1, 1)), 0

    if __name__ != "__main__":
        tell("while they start")
        time.sleep(0.3)
    else:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        tell("ready")
        pictures = Pictures(range(1000), slow, str, 2)
        try:
            list(decode(pictures, Preprocessing(1, None, "crop")))
        except KeyboardInterrupt:
            sys.exit(130)
"""  # a chunk takes a minute


@pytest.mark.parametrize("when", ["while they start", "while they decode"])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_no_process_outlives_its_parent(
    tmp_path: Path, number: signal.Signals, code: int, when: str
) -> None:
    program = Program(tmp_path, SLOW)
    program.wait_until(when, processes=2)
    program.signal(number)
    assert program.ends() == (code, "", "")


def test_a_signal_at_any_moment_of_the_start_ends_it(tmp_path: Path) -> None:
    numbers = {signal.SIGINT: 130, signal.SIGTERM: 143}
    programs = []
    for i, number in enumerate([*numbers] * 6):
        program = Program(tmp_path / f"{i}", SLOW)
        program.wait_until("ready", processes=1)
        time.sleep(i * 0.03)
        program.signal(number)
        programs.append(program)
    assert [program.ends() for program in programs] == [
        (code, "", "") for code in numbers.values()
    ] * 6


ENOUGH = """
    from PIL import Image
    from stages.images.decoding import Pictures, decode
    from stages.images.preprocessing import Preprocessing

    def large(item):
        return Image.new("L", (1000, 1000)), item

    def use_some():
        pictures = Pictures(range(1000), large, str, 2)
        for number, chunk in enumerate(decode(pictures, Preprocessing(1, (1000, 1000), "crop"))):
            if number == 5:
                raise ValueError("enough")

    if __name__ == "__main__":
        for attempt in range(4):
            try:
                use_some()
            except ValueError as error:
                print(error)
"""


def test_an_error_where_pictures_are_used_ends_it(tmp_path: Path) -> None:
    assert Program(tmp_path, ENOUGH).ends() == (0, "enough\n" * 4, "")


HALF_SENT = """
    import os, signal
    from multiprocessing.connection import Connection
    from PIL import Image
    from stages.images.decoding import Pictures, decode
    from stages.images.preprocessing import Preprocessing

    def send_half(self, data):
        os.write(self.fileno(), data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    def half_sent(item):
        if item == 300:
            Connection._send = send_half
        return Image.new("L", (1, 1)), item

    if __name__ == "__main__":
        try:
            list(decode(Pictures(range(1000), half_sent, str, 2), Preprocessing(1, None, "crop")))
        except OSError as error:
            print(error)
"""


def test_a_process_killed_while_it_sends_a_result_ends_it(tmp_path: Path) -> None:
    code, output, errors = Program(tmp_path, HALF_SENT).ends()
    assert (code, errors) == (0, "")
    assert output.startswith("a process that decodes pictures was killed: ")
