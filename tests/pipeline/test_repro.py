"""The pipeline as people use it: through `dvc repro`, on a data set made here or the real one."""

import gzip
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from stages.sources.known_datasets import DATASETS, fetch
from stages.sources.wheels import idx_bytes
from tests.conftest import ROOT
from tests.pipelines import commit, copy_of_the_pipeline, edit, run, stages_run

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
TRACKED = ("dvc.lock", "data/history.csv", "data/metrics.json", "data/predictions.csv")
USERS_MIRROR = os.environ.get("DATASET_MIRROR")  # before a fixture puts made-up files in its place


def made_up_files(train: int, test: int) -> dict[str, bytes]:
    """MNIST's four files with few images: each class has its bright rows, and there is noise."""
    generator = torch.Generator().manual_seed(0)
    files = {}
    for split, n in (("train", train), ("t10k", test)):
        labels = torch.arange(n) % 10
        images = torch.randint(0, 128, (n, 28, 28), generator=generator)
        images[torch.arange(n), 2 * labels] += 90
        files[f"{split}-images-idx3-ubyte"] = idx_bytes(images.to(torch.uint8).numpy())
        files[f"{split}-labels-idx1-ubyte"] = idx_bytes(labels.to(torch.uint8).numpy())
    return files


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The pipeline on 200 made-up images, run once, in a path with a space."""
    files = made_up_files(train=200, test=100)
    mirror = tmp_path_factory.mktemp("a mirror")
    folder = copy_of_the_pipeline(tmp_path_factory.mktemp("pipelines") / "with a space")
    sources = (folder / "stages/sources/known_datasets.py").read_text()
    for name, content in files.items():
        (mirror / f"{name}.gz").write_bytes(gzip.compress(content))
        real = DATASETS["MNIST"].files[name]
        for old, new in (
            (f"{real.size:_}", str(len(content))),
            (real.sha256, hashlib.sha256(content).hexdigest()),
        ):
            assert old in sources
            sources = sources.replace(old, new, 1)  # MNIST stands first
    (folder / "stages/sources/known_datasets.py").write_text(sources)
    edit(folder, "validation: 5000", "validation: 50")
    edit(folder, "iterations: 3000", "iterations: 30")
    edit(folder, "eval_every: 500", "eval_every: 10")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATASET_MIRROR", str(mirror))
        commit(folder)
        assert stages_run(run(folder, "dvc", "repro")) == list(STAGES)
        commit(folder)
        yield folder


@pytest.fixture
def pipeline(small: Path) -> Iterator[Path]:
    """The pipeline on few images as it was committed, and put back so afterwards."""
    yield small
    run(small, "git", "checkout", "--quiet", ".")
    run(small, "dvc", "checkout", "--quiet")


def test_nothing_runs_twice_and_git_sees_no_change(pipeline: Path) -> None:
    assert stages_run(run(pipeline, "dvc", "repro")) == []
    assert run(pipeline, "git", "status", "--short") == ""
    assert "up to date" in run(pipeline, "dvc", "status")


def test_a_second_machine_gets_the_same_lock(pipeline: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    run(tmp_path, "git", "clone", "--quiet", str(pipeline), str(clone))
    (clone / "dvc.lock").unlink()
    assert stages_run(run(clone, "dvc", "repro", OMP_NUM_THREADS="1")) == list(STAGES)
    assert run(clone, "git", "status", "--short") == ""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("validation: 50 ", "validation: 40 ", ["tensorize", "train", "evaluate"]),
        ("optimizer: adamw", "optimizer: sgd", ["train", "evaluate"]),
        ("eval_every: 10 ", "eval_every: 15 ", ["train", "evaluate"]),
        ("mistakes: 25", "mistakes: 9", ["evaluate"]),
        ("# images an iteration", "# a comment", []),
    ],
)
def test_a_param_reruns_the_stages_that_it_affects(
    pipeline: Path, old: str, new: str, expected: list[str]
) -> None:
    edit(pipeline, old, new)
    assert stages_run(run(pipeline, "dvc", "repro")) == expected
    edit(pipeline, new, old)
    assert stages_run(run(pipeline, "dvc", "repro")) == []  # back from the run cache
    assert run(pipeline, "git", "status", "--short") == ""


def one_file_for_each_set_of_stages() -> dict[str, list[str]]:
    """Files of code, each with the stages that dvc.yaml names it for, no two with the same."""
    files = sorted(
        p.relative_to(ROOT / "stages").as_posix() for p in (ROOT / "stages").rglob("*.py")
    )
    stages = {
        f: [n for n, stage in STAGES.items() if f"stages/{f}" in stage["deps"]] for f in files
    }
    return {file: list(names) for names, file in {tuple(n): f for f, n in stages.items()}.items()}


@pytest.mark.parametrize(("file", "expected"), one_file_for_each_set_of_stages().items())
def test_a_code_file_reruns_the_stages_that_import_it(
    pipeline: Path, file: str, expected: list[str]
) -> None:
    with (pipeline / "stages" / file).open("a") as code:
        code.write("\n# A change that changes no result.\n")
    assert stages_run(run(pipeline, "dvc", "repro")) == expected
    assert run(pipeline, "git", "diff", "--stat", "data") == ""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "dataset: MNIST",
            "dataset: MNOST",
            "download.dataset: found 'MNOST'; expected a data set",
        ),
        ("batch_size: 100", "batch_size: 0", "train.batch_size: found 0; expected greater than or"),
        ("  momentum:", "  momentun:", "train.momentun: unknown key; did you mean momentum?"),
        ("validation: 50 ", "validation: 200 ", "tensorize.validation: found 200; expected less"),
    ],
)
def test_a_wrong_param_gets_one_line_and_loses_nothing(
    pipeline: Path, old: str, new: str, message: str
) -> None:
    edit(pipeline, old, new)
    with pytest.raises(AssertionError) as caught:
        run(pipeline, "dvc", "repro")
    output = str(caught.value)
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert message in line
    assert "Traceback" not in output
    edit(pipeline, new, old)
    assert stages_run(run(pipeline, "dvc", "repro")) == []
    assert run(pipeline, "git", "status", "--short") == ""


def test_metrics_diff_between_branches(pipeline: Path) -> None:
    run(pipeline, "git", "checkout", "--quiet", "-b", "shorter")
    edit(pipeline, "iterations: 30", "iterations: 2")
    run(pipeline, "dvc", "repro")
    commit(pipeline)
    diff = json.loads(run(pipeline, "dvc", "metrics", "diff", "main", "shorter", "--json"))
    changed = diff["data/metrics.json"]["cross_entropy"]
    assert changed["new"] > changed["old"]
    assert changed["diff"] == pytest.approx(changed["new"] - changed["old"])
    run(pipeline, "git", "checkout", "--quiet", "main")


def test_plots_show_draws_every_plot(pipeline: Path) -> None:
    run(pipeline, "dvc", "plots", "show", "--out", "dvc_plots")
    page = (pipeline / "dvc_plots/index.html").read_text()
    for title in (
        "Cross entropy (nats)",
        "The most frequent confusions",
        "perfect calibration",
        "confusion.svg",
        "mistakes.svg",
        "weights.svg",
    ):
        assert title in page
    assert run(pipeline, "git", "status", "--short") == ""


@pytest.fixture(scope="session")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with MNIST's four files: this working tree's, or fetched as `download` does."""
    if all(content.is_at(ROOT / "data/raw" / f) for f, content in DATASETS["MNIST"].files.items()):
        return ROOT / "data/raw"
    folder = tmp_path_factory.mktemp("mnist")
    try:
        fetch("MNIST", folder, USERS_MIRROR)
    except OSError as error:
        pytest.skip(f"MNIST cannot be had here: {error}")
    return folder


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, mnist: Path) -> Iterator[Path]:
    """The pipeline as it stands, run from nothing on the real MNIST."""
    folder = copy_of_the_pipeline(tmp_path_factory.mktemp("pipelines") / "mnist")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATASET_MIRROR", str(mnist))
        run(folder, "dvc", "repro")
        commit(folder)
        yield folder


@pytest.mark.mnist
@pytest.mark.parametrize("name", TRACKED)
def test_what_is_committed_is_what_anyone_gets(real: Path, name: str) -> None:
    assert (real / name).read_bytes() == (ROOT / name).read_bytes()


@pytest.mark.mnist
def test_the_defaults_reach_92_percent(real: Path) -> None:
    assert json.loads((real / "data/metrics.json").read_text())["accuracy"] >= 0.922


@pytest.mark.mnist
def test_the_tutorial_is_one_line_away(real: Path) -> None:
    settings = {
        "tensorize.validation": "0",
        "train.optimizer": "sgd",
        "train.learning_rate": "0.001",
        "train.momentum": "0",
        "train.schedule": "constant",
        "train.weight_decay": "0",
    }
    changes = [part for key, value in settings.items() for part in ("-S", f"{key}={value}")]
    run(real, "dvc", "exp", "run", *changes)
    assert 0.82 <= json.loads((real / "data/metrics.json").read_text())["accuracy"] <= 0.835
