"""`explain` and `verify` guard the promise of equal bytes; these tests guard them."""

import hashlib
import re
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from stages import explain, verify
from stages.base.command import run as run_command
from stages.gate.revisions import named
from stages.training.exact_weights import ExactModel, exact_model
from tests.conftest import ROOT
from tests.pipelines import commit, copy_of_the_tiny_pipeline, run, set_params

Guard = Callable[..., tuple[int, str]]
MODEL, HISTORY, SKIPPED = "data/model.safetensors", "data/history.csv", "data/skipped.csv"


@pytest.fixture
def tiny(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The tiny pipeline, with the packages' lock file, as the working folder."""
    folder = copy_of_the_tiny_pipeline(tmp_path_factory, tmp_path / "a clone")
    shutil.copy(ROOT / "requirements.lock", folder)
    commit(folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Guard:
    """guard(main, arguments) runs a command here; its exit code and its output."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def guarded(main: Callable[..., None], *arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        with pytest.raises(SystemExit) as ended:
            run_command(main)
        captured = capfd.readouterr()
        return int(ended.value.code or 0), captured.out + captured.err

    return guarded


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def commit_others(folder: Path, files: Mapping[str, bytes]) -> None:
    """Commit these files as what the pipeline made; the working tree keeps its own."""
    names = ["dvc.lock", *files]
    own = {name: (folder / name).read_bytes() for name in names}
    lock = own["dvc.lock"].decode()
    for name, content in files.items():
        assert md5(own[name]) in lock
        lock = lock.replace(md5(own[name]), md5(content))
        (folder / name).write_bytes(content)
    (folder / "dvc.lock").write_text(lock)
    commit(folder)
    for name, content in own.items():
        (folder / name).write_bytes(content)


def tampered_history(folder: Path) -> bytes:
    """The history with another last digit."""
    content = (folder / HISTORY).read_bytes().rstrip(b"\n")
    return content[:-1] + (b"1\n" if content[-1:] != b"1" else b"2\n")


def fitted() -> ExactModel:
    """The model of the pipeline in the working folder, before rounding."""
    train, validation = (Path(f"data/tensors/{s}.safetensors") for s in ("train", "validation"))
    return exact_model(Path("params.yaml"), train, validation)


def model_rounded_otherwise() -> tuple[int, bytes]:
    """The weight that is closest to a rounding boundary, and the model with it rounded wrongly."""
    exact = fitted()
    distance, other = explain.roundings(exact.weights)
    weights, closest = exact.weights.copy(), int(distance.argmin())
    weights[closest] = other[closest]
    return closest, exact.content(weights)


@pytest.mark.usefixtures("tiny")
def test_explain_exits_0_if_every_output_is_the_committed_one(guard: Guard) -> None:
    assert guard(explain.main) == (0, "every output is the committed one\n")


def test_explain_exits_0_if_a_weight_was_rounded_the_other_way(tiny: Path, guard: Guard) -> None:
    closest, model = model_rounded_otherwise()
    commit_others(tiny, {MODEL: model})
    code, output = guard(explain.main)
    assert code == 0, output
    assert f"weight {closest} is one rounding step off" in output
    assert "harmless: the model differs by rounding alone" in output


def test_explain_exits_1_for_tampered_files_in_git_or_not_that_rounding_does_not_explain(
    tiny: Path, guard: Guard
) -> None:
    _, model = model_rounded_otherwise()
    skipped = b"path,reason\nbroken.png,broken\n"
    commit_others(tiny, {MODEL: model, HISTORY: tampered_history(tiny), SKIPPED: skipped})
    code, output = guard(explain.main)
    assert code == 1
    assert re.search(r"^data/history.csv: 1 of 4 lines, by at most \d", output, re.M)
    assert f"{SKIPPED}: differs; git does not hold the committed file to compare with" in output
    assert "a real difference, although params, code, data and versions are the same" in output
    assert "cause" not in output


def test_explain_does_not_take_a_changed_weight_for_rounding(tiny: Path, guard: Guard) -> None:
    exact = fitted()
    weights = exact.weights.copy()
    weights[0] += 1e-3
    commit_others(tiny, {MODEL: exact.content(weights)})
    code, output = guard(explain.main)
    assert code == 1
    assert f"{MODEL}: differs by more than the rounding of a few weights" in output


def test_explain_names_the_param_and_the_code_that_changed(tiny: Path, guard: Guard) -> None:
    set_params(tiny, {"train.learning_rate": 0.07})
    code = tiny / "stages/evaluate.py"
    code.write_text(code.read_text() + "\n# A change that changes no result.\n")
    assert guard(explain.main) == (
        2,
        "error: dvc.lock does not match the files here; run `dvc repro` first\n",
    )
    run(tiny, "dvc", "repro", "train")
    run(tiny, "dvc", "commit", "--force", "evaluate")
    exit_code, output = guard(explain.main)
    assert exit_code == 1
    assert "cause: param train.learning_rate: 0.004 -> 0.07\n" in output
    assert "cause: code stages/evaluate.py\n" in output
    assert "cause: data" not in output


def test_verify_finds_the_committed_bytes(tiny: Path, guard: Guard) -> None:
    environments = ("sse4.2-1-thread-killed", "native-1-thread")
    code, output = guard(verify.main, *environments)
    assert code == 0, output
    assert "2 of 2 environments gave the committed files, dvc.lock included" in output
    sha256 = hashlib.sha256((tiny / MODEL).read_bytes()).hexdigest()
    for name in environments:
        (row,) = re.findall(f"^{re.escape(name)} .*", output, re.M)
        assert sha256[:12] in row
    assert "DIFFERS" not in output
    assert re.search(r"of \d+ weights, two environments are expected to round \S+ diff", output)


def test_verify_exits_1_if_a_committed_file_was_tampered_with(tiny: Path, guard: Guard) -> None:
    commit_others(tiny, {HISTORY: tampered_history(tiny)})
    environment = "native-1-thread"
    code, output = guard(verify.main, environment)
    assert code == 1, output
    assert "note: 2 uncommitted changes are left out" in output
    (row,) = re.findall(f"^{environment} .*", output, re.M)
    assert row.endswith("DIFFERS: data/history.csv, dvc.lock"), output
    assert "0 of 1 environments gave the committed files" in output


@pytest.mark.usefixtures("tiny")
def test_verify_runs_each_command_in_its_environment(tmp_path: Path) -> None:
    clone = verify.Clone(named("HEAD"), tmp_path / "another clone")
    printed = clone.run(verify.Environment("sse4.2", 2, processes=3), "env").splitlines()
    for variable in (
        *("OMP_NUM_THREADS=2", "MKL_NUM_THREADS=2", "PROCESSES=3"),
        *("ATEN_CPU_CAPABILITY=default", "MKL_ENABLE_INSTRUCTIONS=SSE4_2"),
    ):
        assert variable in printed
    with pytest.raises(ValueError, match="native-1-thread: false: found exit code 1; expected 0"):
        clone.run(verify.Environment("native", 1), "false")


@pytest.mark.usefixtures("tiny")
def test_verify_refuses_an_unknown_environment(guard: Guard) -> None:
    code, output = guard(verify.main, "avx512")
    assert (code, output[:62]) == (
        2,
        "error: found the environment avx512; expected one of native-1-",
    )
