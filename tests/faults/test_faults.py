"""Every file operation of every command fails, or is the last thing before the process is killed.

`make test` tries a sample; `make faults` tries all.
"""

import errno
import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.faults.conftest import (
    COMMANDS,
    NO_DVC,
    PRINTING,
    Command,
    Forked,
    Outcome,
    contents,
)
from tests.pipelines import run

FAULTS = {
    "EIO": errno.EIO,
    "ENOSPC": errno.ENOSPC,
    "EROFS": errno.EROFS,
    "SIGKILL": -signal.SIGKILL,
    "SIGTERM": -signal.SIGTERM,
    "SIGINT": -signal.SIGINT,
}
NO_LINE = "no line that says what is wrong"
ALL = os.environ.get("FAULTS") == "all"
pytestmark = [pytest.mark.timeout(0)] if ALL else []


def sampled(count: int, fault: str) -> Sequence[int]:
    """The operations to try, of 1 to `count`: all, or one, from the first to the last by fault."""
    if ALL:
        return range(1, count + 1)
    return [1 + list(FAULTS).index(fault) * (count - 1) // (len(FAULTS) - 1)]


def problems_with_the_end(outcome: Outcome, fault: int, usual: int = 0) -> Iterator[str]:
    """What is wrong with a command's exit code, `usual` without a fault, and its messages."""
    codes = {usual, 2} if fault > 0 else {usual, 128 - fault}
    if outcome.code not in ({fault} if fault == -signal.SIGKILL else codes):
        yield f"exit code {outcome.code}"
    if "Traceback" in outcome.errors:
        yield "a traceback"
    lines = outcome.errors.splitlines()
    if outcome.code == 2 and not (lines and lines[-1].startswith("error: ")):
        yield NO_LINE


def prepare(command: Command, two_runs: tuple[Path, Path], folder: Path) -> None:
    """Make a folder with the inputs of the new run and the outputs of the old run."""
    shutil.rmtree(folder, ignore_errors=True)
    old, new = two_runs
    (folder / "data").mkdir(parents=True)
    (folder / ".dvc").mkdir()
    if command.module == "stages.pictures":
        run(folder, "git", "init", "--quiet")
    shutil.copy(ROOT / "dvc.yaml", folder)
    (folder / "dvc.py").write_text(NO_DVC)
    (folder / "elsewhere").symlink_to(new / "pictures")
    shutil.copy(new / "params.yaml", folder)
    for source, paths in ((new, command.inputs), (old, command.outputs)):
        for path in paths:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            if (source / path).is_dir():
                shutil.copytree(source / path, folder / path)
            elif (source / path).exists():
                shutil.copyfile(source / path, folder / path)
    if (folder / "pictures").exists():
        (folder / "pictures/drawn.dvc").touch()
    else:
        (folder / "pictures").symlink_to(new / "pictures")


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_fails_outputs_are_all_old_or_all_new_and_the_next_run_succeeds(
    two_runs: tuple[Path, Path], forked: Forked, tmp_path: Path, name: str, fault: str
) -> None:
    command, work = COMMANDS[name], tmp_path / "with a space"
    prepare(command, two_runs, work)
    old = [contents(work, step) for step in command.steps]
    whole = forked.run(command, work)
    new = [contents(work, step) for step in command.steps]
    assert whole.code == 0, whole
    states = [merged(new[:i] + old[i:]) for i in range(len(new) + 1)]
    before, done = states[0], states[-1]
    assert all(before[path] != done[path] for path in before.keys() & done if "raw" not in path)
    everything = contents(work, ["."]).keys()
    operations = whole.operations.splitlines()
    moves = [i for i, operation in enumerate(operations, 1) if operation.startswith("rename")]

    problems: list[str] = []
    counts: Counter[str] = Counter()
    for at in sampled(len(operations), fault):
        prepare(command, two_runs, work)
        outcome = forked.run(command, work, at, FAULTS[fault])
        found = list(problems_with_the_end(outcome, FAULTS[fault]))
        after = contents(work, command.outputs)
        after = {path: content for path, content in after.items() if ".part/" not in path}
        between_moves = fault == "SIGKILL" and at in moves and before.keys() == done.keys()
        if after not in states and between_moves:
            counts["killed between two renames"] += 1
            if any(content not in (before[path], done[path]) for path, content in after.items()):
                found.append("an output that is neither the old nor the new one")
        elif after not in states:
            found.append("outputs that are neither all old nor all new")
        if outcome.code == 0 and after != done:
            found.append("exit code 0 without the new outputs")
        if after == done and not command.again:
            shutil.rmtree(work / command.outputs[0])
        again = forked.run(command, work)
        if again.code != 0 or contents(work, command.outputs) != done:
            found.append(f"a next run that fails or gives other bytes: {again}")
        if left := contents(work, ["."]).keys() - everything:
            found.append(f"leftovers after the next run: {sorted(left)}")
        counts["tried"] += 1
        problems += [f"{operations[at - 1]} ({at}): {problem}; {outcome}" for problem in found]
    print(f"{name}, {fault}: {len(operations)} operations, {dict(counts)}")
    assert not problems, "\n".join([f"{len(problems)} problems:", *problems[:5]])


@pytest.mark.parametrize("name", PRINTING)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_command_whose_answers_cannot_be_written_says_so_or_exits_as_it_was_told(
    two_runs: tuple[Path, Path], repository: Path, forked: Forked, name: str, fault: str
) -> None:
    command, work = PRINTING[name], two_runs[0] if "predict" in name else repository
    whole = forked.run(command, work)
    assert whole.code == 1, whole  # one of the pictures is broken, and the results are worse
    operations = whole.operations.splitlines()
    problems: list[str] = []
    for at in sampled(len(operations), fault):
        outcome = forked.run(command, work, at, FAULTS[fault])
        for problem in problems_with_the_end(outcome, FAULTS[fault], usual=1):
            if "stream 2" not in operations[at - 1] or problem != NO_LINE:
                problems.append(f"{operations[at - 1]} ({at}): {problem}; {outcome}")
    print(f"{name}, {fault}: {len(operations)} operations")
    assert not problems, "\n".join([f"{len(problems)} problems:", *problems[:5]])


def merged(parts: Sequence[Mapping[str, bytes]]) -> dict[str, bytes]:
    return {path: content for part in parts for path, content in part.items()}
