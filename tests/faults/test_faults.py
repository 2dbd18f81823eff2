"""Every file operation of every command fails, or is the last thing before the process is killed.

`make test` tries a sample; `make faults` tries all.
"""

import errno
import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import STAGES, Command, Forked, Outcome, contents, stage

FAULTS = {
    "EIO": errno.EIO,
    "ENOSPC": errno.ENOSPC,
    "EROFS": errno.EROFS,
    "SIGKILL": -signal.SIGKILL,
    "SIGTERM": -signal.SIGTERM,
    "SIGINT": -signal.SIGINT,
}
ALL = os.environ.get("FAULTS") == "all"
SAMPLE = 3  # operations of each command
pytestmark = [pytest.mark.timeout(0)] if ALL else []


def sampled(count: int) -> list[int]:
    """The operations to try, of 1 to count: all, or some with the first and the last."""
    if ALL or count <= SAMPLE:
        return list(range(1, count + 1))
    return [1 + round(i * (count - 1) / (SAMPLE - 1)) for i in range(SAMPLE)]


def problems_with_the_end(outcome: Outcome, fault: int) -> Iterator[str]:
    """What is wrong with a command's exit code and messages after a fault."""
    codes = {0, 2} if fault > 0 else {fault} if fault == -signal.SIGKILL else {0, 128 - fault}
    if outcome.code not in codes:
        yield f"exit code {outcome.code}"
    if "Traceback" in outcome.errors:
        yield "a traceback"
    lines = outcome.errors.splitlines()
    if outcome.code == 2 and not (lines and lines[-1].startswith("error: ")):
        yield "no line that says what is wrong"


def prepare(command: Command, two_runs: tuple[Path, Path], folder: Path) -> None:
    """Make a folder with the inputs of the new run and the outputs of the old run."""
    shutil.rmtree(folder, ignore_errors=True)
    old, new = two_runs
    (folder / "data").mkdir(parents=True)
    (folder / "pictures").symlink_to(new / "pictures")
    shutil.copy(new / "params.yaml", folder)
    for source, paths in ((new, command.inputs), (old, command.outputs)):
        for path in paths:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (source / path).is_dir() else shutil.copyfile
            copy(source / path, folder / path)


COMMANDS = {name: stage(name) for name in STAGES}
COMMANDS["train with checkpoints"] = stage("train", checkpoints=True)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_fails_outputs_are_all_old_or_all_new_and_the_next_run_succeeds(
    two_runs: tuple[Path, Path], forked: Forked, tmp_path: Path, name: str, fault: str
) -> None:
    command, work = COMMANDS[name], tmp_path / "with a space"
    old, new = (contents(run, command.outputs) for run in two_runs)
    assert old.keys() == new.keys() or name == "download"
    assert all(old[path] != new[path] for path in old.keys() & new.keys() if "raw" not in path)

    prepare(command, two_runs, work)
    whole = forked.run(command, work)
    assert (whole.code, contents(work, command.outputs)) == (0, new), whole
    everything = contents(work, ["."]).keys()
    operations = whole.operations.splitlines()
    moves = [i for i, operation in enumerate(operations, 1) if operation.startswith("rename")]

    problems: list[str] = []
    counts: Counter[str] = Counter()
    for at in sampled(len(operations)):
        prepare(command, two_runs, work)
        outcome = forked.run(command, work, at, FAULTS[fault])
        found = list(problems_with_the_end(outcome, FAULTS[fault]))
        after = contents(work, command.outputs)
        after = {path: content for path, content in after.items() if ".part/" not in path}
        between_moves = fault == "SIGKILL" and at in moves and name != "download"
        if between_moves and after not in (old, new):
            counts["killed between two renames"] += 1
            if any(content not in (old[path], new[path]) for path, content in after.items()):
                found.append("an output that is neither the old nor the new one")
        elif after not in (old, new):
            found.append("outputs that are neither all old nor all new")
        if outcome.code == 0 and after != new:
            found.append("exit code 0 without the new outputs")
        again = forked.run(command, work)
        if again.code != 0 or contents(work, command.outputs) != new:
            found.append(f"a next run that fails or gives other bytes: {again}")
        if left := contents(work, ["."]).keys() - everything:
            found.append(f"leftovers after the next run: {sorted(left)}")
        counts["tried"] += 1
        problems += [f"{operations[at - 1]} ({at}): {problem}; {outcome}" for problem in found]
    print(f"{name}, {fault}: {len(operations)} operations, {dict(counts)}")
    assert not problems, "\n".join([f"{len(problems)} problems:", *problems[:5]])


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("option", ["", "--json", "--csv"])
def test_predict_whose_answers_cannot_be_written_says_so_or_exits_as_it_was_told(
    two_runs: tuple[Path, Path], forked: Forked, fault: str, option: str
) -> None:
    arguments = ["pictures/drawn", "--model", "data/model.safetensors", *filter(None, [option])]
    command = Command("stages.predict", arguments)
    whole = forked.run(command, two_runs[0])
    assert whole.code == 1  # one of the pictures is broken
    count = len(whole.operations.splitlines())
    assert count > 24  # a line for each picture
    for at in sampled(count):
        outcome = forked.run(command, two_runs[0], at, FAULTS[fault])
        assert "Traceback" not in outcome.errors
        number = FAULTS[fault]
        allowed = {1, 2} if number > 0 else {number} if fault == "SIGKILL" else {128 - number}
        assert outcome.code in allowed, (whole.operations.splitlines()[at - 1], outcome)
