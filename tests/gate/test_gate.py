import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.base.command import run
from stages.gate import __main__ as gate
from stages.gate.report import error_markdown
from stages.gate.rules import Rule
from tests.repositories import (
    METRICS,
    PREDICTIONS,
    RULES,
    VALIDATION,
    Repository,
    metrics,
    predictions,
)

TEN = range(10)  # images that the base gets wrong
Gate = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def hub_and_clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone, on a branch of its own, beside its remote, whose main branch has metrics."""
    folder = tmp_path_factory.mktemp("gate")
    hub = Repository.create(folder / "hub")
    hub.measure(TEN)
    hub.commit()
    hub.git("clone", "--quiet", "--template=", str(hub.folder), str(folder / "clone"))
    clone = Repository(folder / "clone")
    clone.git("remote", "set-url", "origin", "../hub")
    clone.git("switch", "--quiet", "--create", "change")
    for repository in (hub, clone):
        repository.git("gc", "--quiet")  # fewer files to copy
    return folder


@pytest.fixture
def repository(hub_and_clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    shutil.copytree(hub_and_clone, tmp_path, dirs_exist_ok=True)
    clone = Repository(tmp_path / "clone")
    monkeypatch.chdir(clone.folder)
    monkeypatch.delenv("GITHUB_BASE_REF", raising=False)
    return clone


@pytest.fixture
def run_gate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Gate:
    """The exit code, standard output and standard error of the gate with such arguments."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def gated(*arguments: str, ask_dvc: bool = False) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gate", *arguments])
        with monkeypatch.context() as patch:
            if not ask_dvc:  # which takes a second
                patch.setattr(gate, "modified_data", list)
            with pytest.raises(SystemExit) as ended:
                run(gate.main, Rule)
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return gated


def refused(run_gate: Gate, *arguments: str, ask_dvc: bool = False) -> str:
    """The one line that the gate prints as it exits with 2."""
    code, out, err = run_gate(*arguments, ask_dvc=ask_dvc)
    assert (code, out) == (2, ""), err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err.removeprefix("error: ").strip()


@pytest.mark.usefixtures("repository")
def test_the_gate_passes_if_nothing_changed(run_gate: Gate) -> None:
    code, out, err = run_gate()
    assert (code, err) == (0, "")
    assert out.startswith("PASSED against the merge base with origin/main (")
    assert "every metric is the same" in out


def test_the_gate_fails_a_regression_and_names_what_changed(
    repository: Repository, run_gate: Gate
) -> None:
    repository.params(RULES, iterations=300)
    repository.measure(range(40), model="2")
    code, out, _ = run_gate()
    assert code == 1
    assert out.startswith("FAILED against the merge base with origin/main (")
    assert "accuracy is worse, 0.950000 -> 0.800000, p = 1.9e-09" in out
    assert "30 lost and 0 gained of 200 test images" in out
    assert "param train.iterations: 3000 -> 300" in out
    assert "data data/model: 1111111 -> 2222222" in out
    assert "code" not in out


def test_a_lock_that_dvc_cannot_read_is_an_error(repository: Repository, run_gate: Gate) -> None:
    repository.write("dvc.lock", repository.read("dvc.lock").replace("size: 1", "size: one"))
    code, out, err = run_gate(ask_dvc=True)
    assert (code, out) == (2, "")
    assert err.startswith("error: dvc data status: ")
    assert err.count("\n") == 1


def test_changed_code_and_rules_are_reported(repository: Repository, run_gate: Gate) -> None:
    repository.params(RULES | {"accuracy": RULES["accuracy"] | {"tolerance": 0.9}})
    repository.write("train.py", "print('training better')\n")
    repository.lock()
    code, out, _ = run_gate()
    assert code == 0
    assert "the rules have changed: gate.accuracy.tolerance: 0.01 -> 0.9" in out
    assert "code train.py" in out
    assert "param" not in out


def test_a_changed_input_folder_is_reported_as_data(repository: Repository, run_gate: Gate) -> None:
    folder = "    - {path: pictures, md5: @.dir}\n"
    repository.write("pictures/README.md", "pictures\n")
    first = "    - hash: md5\n      md5:"
    lock = repository.read("dvc.lock")
    assert first in lock
    for digit in "12":
        text = lock.replace(first, folder.replace("@", digit * 32) + first, 1)
        repository.write("dvc.lock", text)
        if digit == "1":
            repository.commit()
    code, out, err = run_gate("--base", "HEAD")
    assert (code, err) == (0, "")
    assert "data pictures: 1111111 -> 2222222" in out
    assert "code" not in out


@pytest.mark.parametrize("value", [0.8, "8e-1"])  # the second is text to YAML 1.1
def test_an_accepted_regression_passes_until_the_base_has_recovered(
    repository: Repository, run_gate: Gate, value: object
) -> None:
    accepted = {"accepted": value, "accepted_because": "fits the phone"}
    loss = RULES["cross_entropy"] | {"tolerance": 1}
    repository.params({"accuracy": RULES["accuracy"] | accepted, "cross_entropy": loss})
    repository.measure(range(40))
    code, out, _ = run_gate()
    assert code == 0
    assert "except where that was accepted (accuracy)" in out
    assert "accuracy: a regression to 0.8 is accepted: fits the phone" in out
    repository.commit()
    repository.measure(TEN)
    repository.commit()
    repository.measure(range(40))
    assert run_gate("--base", "HEAD")[0] == 1  # the base has recovered: the entry has expired


@pytest.mark.parametrize("side", ["", " of HEAD"])
@pytest.mark.parametrize(
    ("path", "old", "new", "message"),
    [
        (METRICS, "0.95", "NaN", "metrics.json{}: accuracy: found NaN; expected a finite number"),
        (PREDICTIONS, "2,2,0.101000", "2,1,0.101000", "which follows from data/predictions.csv{}"),
        ("params.yaml", "3000", "30", "dvc.lock{} is out of date: train in params.yaml has"),
    ],
)
def test_results_that_cannot_be_trusted_exit_with_2_on_either_side(
    repository: Repository,
    run_gate: Gate,
    side: str,
    path: str,
    old: str,
    new: str,
    message: str,
) -> None:
    text = repository.read(path)
    assert old in text
    repository.write(path, text.replace(old, new, 1))
    if not side:
        assert message.format("") in refused(run_gate)
        return
    repository.commit()
    repository.measure(TEN)  # the working tree is correct again, the base is not
    repository.git("checkout", "HEAD~", "--", path)
    repository.lock()
    commit = repository.git("rev-parse", "HEAD")[:7]
    assert message.format(f"{side} ({commit})") in refused(run_gate, "--base", "HEAD")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",2,2,0.101000,0.903933", ",2,2,1.500000,0.223130", "a loss of at most ln 4 where the"),
        (",0,1,2.000000,0.500000", ",0,1,0.600000,0.500000", "a loss of at least ln 2 where the"),
        (",2,2,0.101000,0.903933", ",2,2,0.101000,0.903900", "exp(-loss) as the confidence where"),
    ],
)
def test_impossible_predictions_are_refused_even_if_metrics_and_lock_match(
    repository: Repository, run_gate: Gate, old: str, new: str, message: str
) -> None:
    table = repository.read(PREDICTIONS)
    assert old in table
    repository.write(PREDICTIONS, table.replace(old, new))
    repository.write(METRICS, json.dumps(metrics(repository.read(PREDICTIONS))))
    repository.lock()
    error = refused(run_gate)
    assert f"{new}'; expected {message}" in error
    assert error.endswith("; `dvc repro --force` regenerates it")


def test_a_param_may_be_written_in_two_ways(repository: Repository, run_gate: Gate) -> None:
    # `dvc exp run -S train.rate=1e-5` writes 1e-05; both are text to PyYAML.
    for path, number in (("params.yaml", "1e-5"), ("dvc.lock", "1e-05")):
        text = repository.read(path)
        assert "1.0e-05" in text
        repository.write(path, text.replace("1.0e-05", number))
    assert run_gate()[0] == 0


def test_true_is_a_change_of_a_param_that_was_1(repository: Repository, run_gate: Gate) -> None:
    repository.params(RULES, iterations=1)
    repository.lock()
    assert run_gate()[0] == 0
    repository.params(RULES, iterations=True)
    assert "train in params.yaml has changed" in refused(run_gate)


def test_calibration_is_recomputed_with_the_bins_of_the_params(
    repository: Repository, run_gate: Gate
) -> None:
    text = repository.read("params.yaml")
    assert "calibration_bins: 7" in text
    repository.write("params.yaml", text.replace("calibration_bins: 7", "calibration_bins: 1"))
    repository.lock()
    assert "expected_calibration_error: found" in refused(run_gate)


@pytest.mark.parametrize("path", [METRICS, PREDICTIONS, VALIDATION])
def test_a_missing_result_file_is_an_error(
    repository: Repository, run_gate: Gate, path: str
) -> None:
    (repository.folder / path).unlink()
    assert refused(run_gate) == (
        f"{path}: no such file, though dvc.lock records it; `dvc repro --force` regenerates it"
    )
    repository.commit()
    repository.measure(TEN)
    assert f"{path} of HEAD (" in refused(run_gate, "--base", "HEAD")


def test_missing_params_are_an_error(repository: Repository, run_gate: Gate) -> None:
    (repository.folder / "params.yaml").unlink()
    assert "params.yaml: no such file" in refused(run_gate)


@pytest.mark.usefixtures("repository")
def test_an_unknown_base_is_an_error(run_gate: Gate) -> None:
    error = refused(run_gate, "--base", "nowhere")
    assert "no revision '^HEAD' in" in refused(run_gate, "--base=^HEAD")
    assert error == "no revision 'nowhere' in this clone; `git fetch` gets those of the remote"
    assert "no revision '--since=1' in" in refused(run_gate, "--base=--since=1")


def test_a_shallow_clone_without_the_base_is_an_error(
    repository: Repository, run_gate: Gate, tmp_path: Path
) -> None:
    repository.commit()
    origin = f"file://{repository.folder}"
    repository.git("clone", "--quiet", "--depth=1", origin, str(tmp_path / "shallow"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "shallow")
        remedy = "run `git fetch --unshallow`, or set `fetch-depth: 0` in GitHub Actions"
        assert refused(run_gate) == f"this clone is shallow and may lack the base; {remedy}"
        assert remedy in refused(run_gate, "--base", "HEAD~1")
        assert (
            run_gate("--base", "HEAD")[0] == 0
        )  # a commit that the clone has can be compared with


def test_a_base_must_be_passed_if_there_is_no_remote(
    repository: Repository, run_gate: Gate
) -> None:
    repository.git("remote", "remove", "origin")
    assert refused(run_gate).startswith("no remote, so no main branch; pass the base as --base")
    assert run_gate("--base", "main")[0] == 0


def test_an_unknown_main_branch_of_the_remote_is_an_error(
    repository: Repository, run_gate: Gate
) -> None:
    repository.git("remote", "set-head", "origin", "--delete")
    assert "`git remote set-head origin --auto`" in refused(run_gate)


def test_origin_is_preferred_among_several_remotes(repository: Repository, run_gate: Gate) -> None:
    repository.git("remote", "add", "fork", "elsewhere")
    assert run_gate()[0] == 0  # `git clone` calls the remote origin
    repository.git("remote", "rename", "origin", "upstream")
    assert refused(run_gate).startswith(
        "found the remotes fork, upstream; expected one, or one called origin"
    )


def test_unrelated_histories_are_an_error(repository: Repository, run_gate: Gate) -> None:
    repository.git("switch", "--quiet", "--orphan", "other")
    repository.git("checkout", "main", "--", ".")
    repository.write("README.md", "another project")
    repository.commit()
    assert refused(run_gate).startswith("HEAD has no commit in common with origin/main")


def test_the_gate_needs_a_git_repository(
    run_gate: Gate, tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_text(repository.read("params.yaml"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert refused(run_gate).startswith("no git repository here")


def test_the_base_is_the_commit_where_the_branch_left_main(
    repository: Repository, run_gate: Gate, tmp_path: Path
) -> None:
    repository.measure(range(8))
    repository.commit()
    hub = Repository(tmp_path / "hub")
    hub.measure(range(2))  # main has improved since, without this branch
    hub.commit()
    repository.git("fetch", "--quiet")
    assert run_gate()[0] == 0
    assert run_gate("--base", "origin/main")[0] == 1


def test_the_base_of_a_pull_request_is_on_its_target_branch(
    repository: Repository, run_gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_BASE_REF", "release")
    assert refused(run_gate).startswith("no branch origin/release in this clone; `git fetch`")
    Repository(tmp_path / "hub").git("branch", "release")
    repository.git("fetch", "--quiet")
    assert "merge base with origin/release" in run_gate()[1]


def test_a_base_without_metrics_passes_and_says_so(
    tmp_path: Path, run_gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Repository.create(tmp_path / "first")
    first.commit()
    first.measure(TEN)
    monkeypatch.chdir(first.folder)
    code, out, _ = run_gate("--base", "HEAD")
    assert code == 0
    assert "the base has no metrics yet, so only the limits apply" in out
    first.measure(range(150))
    assert run_gate("--base", "HEAD")[0] == 1
    first.write("dvc.lock", "stages: {}")
    assert refused(run_gate, "--base", "HEAD") == (
        "dvc.lock: found no metrics; run `dvc repro`, which measures them"
    )


def test_a_changed_test_set_must_be_accepted(repository: Repository, run_gate: Gate) -> None:
    repository.measure(TEN, images=240)
    assert refused(run_gate).startswith("the test set has changed (200 images at the base, 240 now")
    code, out, _ = run_gate("--accept-new-test-set")
    assert code == 0
    assert "the test set has changed (200 images at the base, 240 now), as accepted" in out


def test_the_markdown_and_json_reports_hold_the_comparison(
    repository: Repository, run_gate: Gate, tmp_path: Path
) -> None:
    repository.measure(range(40), model="2")
    page, data = tmp_path / "report.md", tmp_path / "report.json"
    assert run_gate("--markdown", str(page), "--json", str(data))[0] == 1
    report: dict[str, Any] = json.loads(data.read_text())
    assert report["verdict"] == "fail"
    assert report["base"] == repository.git("rev-parse", "main")
    accuracy = report["metrics"]["accuracy"]
    assert (accuracy["base"], accuracy["now"], accuracy["change"]) == (0.95, 0.8, -0.15)
    assert accuracy["interval"][0] < -0.15 < accuracy["interval"][1]
    assert (accuracy["verdict"], accuracy["failed"]) == ("worse", True)
    assert report["images"]["total"] == 200
    assert {"actual": "2", "now": "3", "images": 8} in report["images"]["lost"]
    assert report["changed"]["data"]["data/model"] == {"base": "1" * 32, "now": "2" * 32}
    text = page.read_text()
    assert "| accuracy | 0.950000 | 0.800000 | -0.150000 |" in text
    assert "- 30 lost and 0 gained of 200 test images" in text
    assert report["sentence"].split(":")[0] in text


def test_an_error_replaces_an_old_report(
    repository: Repository, run_gate: Gate, tmp_path: Path
) -> None:
    page, data = tmp_path / "report.md", tmp_path / "report.json"
    assert run_gate("--markdown", str(page), "--json", str(data))[0] == 0
    (repository.folder / METRICS).unlink()
    error = refused(run_gate, "--markdown", str(page), "--json", str(data))
    assert json.loads(data.read_text()) == {"verdict": "error", "sentence": error}
    assert "NOT COMPARED: data/metrics.json: no such file" in page.read_text()


def test_class_names_are_escaped_on_pages_and_terminals(
    repository: Repository, run_gate: Gate, tmp_path: Path
) -> None:
    table = predictions(range(40)).replace("2,3,", "2,<img>|\x1b[2J,")
    repository.write(PREDICTIONS, table)
    repository.write(METRICS, json.dumps(metrics(table)))
    repository.lock()
    page = tmp_path / "report.md"
    code, out, _ = run_gate("--markdown", str(page))
    assert code == 1
    assert "\x1b" not in out + page.read_text()
    assert "&lt;img&gt;\\|\\\\x1b\\[2J" in page.read_text()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("@octocat", "@\N{WORD JOINER}octocat"),
        ("#1", "#\N{WORD JOINER}1"),
        ("http://a.example", "http:\N{WORD JOINER}//a.example"),
        ("www.a.example", "www\N{WORD JOINER}.a.example"),
        ("a|b", "a\\|b"),
        ("`$x$`", "\\`\\$x\\$\\`"),
        ("<b>&amp;", "&lt;b&gt;&amp;amp;"),
        ("[x](y)", "\\[x\\](y)"),
        ("\x1b[2J\u202e", r"\\x1b\[2J\\u202e"),
    ],
)
def test_a_hostile_name_is_text_in_markdown(name: str, shown: str) -> None:
    assert error_markdown(name).endswith(f"NOT COMPARED: {shown}\n")


def test_an_error_has_no_control_characters(repository: Repository, run_gate: Gate) -> None:
    repository.params({"\x1b[2J": RULES["accuracy"] | {"alpha": None}})
    assert refused(run_gate) == (
        r"data/metrics.json: found no metric \x1b[2J, which has a rule in params"
    )


@pytest.mark.parametrize("path", [METRICS, PREDICTIONS, "params.yaml", "dvc.lock"])
def test_links_are_followed_on_both_sides(
    repository: Repository, run_gate: Gate, path: str
) -> None:
    content = repository.read(path)
    (repository.folder / path).unlink()
    repository.write("elsewhere/file", content)
    (repository.folder / path).symlink_to("../elsewhere/file" if "/" in path else "elsewhere/file")
    repository.commit()
    assert run_gate("--base", "HEAD")[0] == 0


def test_a_link_that_leads_nowhere_in_the_base_is_an_error(
    repository: Repository, run_gate: Gate
) -> None:
    (repository.folder / METRICS).unlink()
    (repository.folder / METRICS).symlink_to("nowhere")
    repository.commit()
    (repository.folder / METRICS).unlink()
    repository.measure(TEN)
    error = refused(run_gate, "--base", "HEAD")
    assert f"{METRICS} of HEAD (" in error
    assert ": git cannot read its content: dangling" in error


def test_a_base_whose_tree_git_does_not_have_is_an_error(
    repository: Repository, run_gate: Gate
) -> None:
    repository.write("new", "")
    repository.commit()
    tree = repository.git("rev-parse", "HEAD^{tree}")
    (repository.folder / ".git/objects" / tree[:2] / tree[2:]).unlink()
    assert ": git cannot read its content: " in refused(run_gate, "--base", "HEAD")


@pytest.mark.parametrize("path", [METRICS, "dvc.lock"])
def test_what_is_not_a_regular_file_is_not_read(
    repository: Repository, run_gate: Gate, path: str
) -> None:
    (repository.folder / path).unlink()
    os.mkfifo(repository.folder / path)  # to read it would wait for ever
    assert refused(run_gate).startswith(f"{path}: not a regular file")


def test_a_git_lfs_pointer_is_named_as_such(repository: Repository, run_gate: Gate) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 9\n"
    repository.write(METRICS, pointer)
    assert refused(run_gate).startswith("data/metrics.json: found a Git LFS pointer; expected the")


@pytest.mark.parametrize("old", ["{", '"recall": {'])
def test_a_metric_that_stands_twice_is_refused(
    repository: Repository, run_gate: Gate, old: str
) -> None:
    new = '{"accuracy": 0.99, ' if old == "{" else f'"recall.2": 0.9, {old}'
    repository.write(METRICS, repository.read(METRICS).replace(old, new, 1))
    repository.lock()
    assert " twice" in refused(run_gate)


def test_a_picture_that_stands_twice_is_refused(repository: Repository, run_gate: Gate) -> None:
    table = predictions(TEN).replace("test/0,", "test/4,")
    repository.write(PREDICTIONS, table)
    repository.lock()
    assert "predictions.csv: found 'test/4' twice; expected each once" in refused(run_gate)


def test_data_that_dvc_lock_does_not_record_is_refused(
    repository: Repository, run_gate: Gate
) -> None:
    # The stage that makes it and the one that reads it agree on a hash, which is not its own.
    pipeline = yaml.safe_load(repository.read("dvc.yaml"))
    pipeline["stages"]["train"]["outs"] = ["data/model"]
    repository.write("dvc.yaml", yaml.safe_dump(pipeline))
    assert run_gate(ask_dvc=True)[0] == 0  # a clone need not have it
    repository.write("data/model", "a model")
    assert refused(run_gate, ask_dvc=True).startswith(
        "dvc.lock does not record the data/model that is here; `dvc checkout` restores"
    )


@pytest.mark.parametrize("value", ["1:2:3", "010", "0x10", "1_000"])
def test_numbers_in_yaml_are_read_as_dvc_reads_them(
    repository: Repository, run_gate: Gate, value: str
) -> None:
    # YAML 1.1 reads 3723, 8, 16 and 1000; to DVC these are text, 10, text and text.
    text = repository.read("params.yaml").replace("iterations: 3000", f"iterations: {value}")
    repository.write("params.yaml", text)
    lock = repository.read("dvc.lock").replace("iterations: 3000", f"iterations: '{value}'")
    repository.write("dvc.lock", lock.replace("'010'", "10"))
    assert run_gate()[0] == 0


@pytest.mark.parametrize("path", ["params.yaml", "dvc.lock"])
@pytest.mark.parametrize("items", ["*l{0}, *l{0}", "*l{0}"])  # they multiply, or nest
def test_aliases_that_grow_without_bound_are_refused(
    repository: Repository, run_gate: Gate, path: str, items: str
) -> None:
    levels = "".join(f"- &l{i} [{items.format(i - 1)}]\n" for i in range(1, 200))
    repository.write(path, repository.read(path) + f"deep:\n- &l0 [1]\n{levels}")
    assert f"{path}: found more than 1,048,576 values, or more than 100 levels" in refused(run_gate)


def test_a_main_branch_that_was_renamed_is_an_error_with_the_remedy(
    repository: Repository, run_gate: Gate, tmp_path: Path
) -> None:
    Repository(tmp_path / "hub").git("branch", "--move", "main", "trunk")
    repository.git("fetch", "--quiet", "--prune")
    assert "`git remote set-head origin --auto` finds its new name" in refused(run_gate)


def test_a_repository_without_a_commit_has_nothing_to_compare(
    repository: Repository, run_gate: Gate
) -> None:
    repository.git("switch", "--quiet", "--orphan", "new")
    repository.git("checkout", "main", "--", ".")
    assert refused(run_gate).startswith("no commit here yet")


@pytest.mark.usefixtures("repository")
def test_a_test_set_too_small_for_its_rule_is_noted_in_every_report(
    run_gate: Gate, tmp_path: Path
) -> None:
    page, data = tmp_path / "report.md", tmp_path / "report.json"
    _, out, _ = run_gate("--markdown", str(page), "--json", str(data))
    warning = "accuracy: 200 test images cannot tell a loss of less than 0.03 (6 images) from noise"
    assert f"  {warning}\n" in out
    assert f"- {warning.replace('_', chr(92) + '_')}\n" in page.read_text()
    assert json.loads(data.read_text())["notes"] == [warning]


def test_an_automatic_tolerance_is_reported_with_its_value(
    repository: Repository, run_gate: Gate, tmp_path: Path
) -> None:
    repository.params({"accuracy": {"better": "higher", "tolerance": "auto", "alpha": 0.05}})
    repository.measure(range(12))
    code, out, _ = run_gate("--json", str(tmp_path / "report.json"))
    assert code == 0
    assert "worse, within tolerance 0.0154" in out
    accuracy = json.loads((tmp_path / "report.json").read_text())["metrics"]["accuracy"]
    assert accuracy["tolerance"] == pytest.approx(0.01545, abs=1e-5)
    assert accuracy["rule"] == {"better": "higher", "tolerance": "auto", "alpha": 0.05}


def test_importing_the_gate_imports_no_torch_scipy_or_dvc() -> None:
    # `--help` and errors should not wait for SciPy, and nothing here needs torch or DVC.
    code = "import sys, stages.gate.__main__; print({'torch', 'scipy', 'dvc'} & sys.modules.keys())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert result.stdout.strip() == b"set()"
