"""dvc.yaml matches the code, which DVC itself does not check (treeverse/dvc#9195)."""

import ast
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.base.params import Params
from stages.download import DownloadParams
from stages.evaluate import EvaluateParams
from stages.report.page import FILES
from stages.sources.known_datasets import DATASETS
from stages.tensorize import TensorizeParams
from stages.training.settings import TrainParams
from tests.conftest import ROOT

PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES: dict[str, Any] = PIPELINE["stages"]
PACKAGES = [str(path.parent.relative_to(ROOT)) for path in (ROOT / "stages").rglob("__init__.py")]
# DVC leaves these names out of its run cache's keys, at any depth (StageCache, 3.67.1). A param of
# such a name must be listed in full, or another value would restore the results of the first.
OVERLOOKED = {"size", "nfiles"}
PARAMS: dict[str, type[Params]] = {
    "download": DownloadParams,
    "tensorize": TensorizeParams,
    "train": TrainParams,
    "evaluate": EvaluateParams,
}


def imports_of(module: str) -> set[str]:
    """The project's files that `module` imports, directly or not, and its own."""
    path = f"{module.replace('.', '/')}.py"
    found, todo = {path}, [path]
    while todo:
        tree = ast.parse((ROOT / todo.pop()).read_text())
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, "the project's imports are absolute"
                names = [str(node.module)]
            new = {f"{n.replace('.', '/')}.py" for n in names if n.startswith("stages")} - found
            found |= new
            todo += new
    return found


def outs_of(stage: str) -> dict[str, bool]:
    """A stage's outputs, and whether DVC caches them; git has the others."""
    entries = [e for key in ("outs", "metrics", "plots") for e in STAGES[stage].get(key, [])]
    return {
        path: options.get("cache", True)
        for entry in entries
        for path, options in ({entry: {}} if isinstance(entry, str) else entry).items()
    }


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_yaml_lists_the_code_that_a_stage_imports(stage: str) -> None:
    code = [dep for dep in STAGES[stage]["deps"] if dep.endswith(".py")]
    assert sorted(code) == sorted(imports_of(f"stages.{stage}"))


def test_the_deps_of_evaluate_name_every_file_of_the_page() -> None:
    assets = [dep for dep in STAGES["evaluate"]["deps"] if "/page_assets/" in dep]
    folder = ROOT / "stages/report/page_assets"
    assert sorted(assets) == sorted(f"stages/report/page_assets/{name}" for name in FILES)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


# `stages` itself only says how Ctrl-C ends an import, which changes no output.
@pytest.mark.parametrize("package", sorted({*PACKAGES} - {"stages"}))
def test_the_package_itself_holds_no_code(package: str) -> None:
    (only,) = ast.parse((ROOT / package / "__init__.py").read_text()).body  # no dep lists it
    assert isinstance(only, ast.Expr)
    assert isinstance(only.value, ast.Constant)


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_imports_another_stage(stage: str) -> None:
    others = {f"stages/{name}.py" for name in STAGES if name != stage}
    assert not imports_of(f"stages.{stage}") & others


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_yaml_lists_the_params_that_a_stage_reads(stage: str) -> None:
    tree = ast.parse((ROOT / f"stages/{stage}.py").read_text())
    sections = [
        node.args[1].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "load"
        and len(node.args) == 2
        and isinstance(node.args[1], ast.Constant)
    ]
    assert sections == [stage]
    overlooked = [f"{stage}.{key}" for key in PARAMS[stage].model_fields if key in OVERLOOKED]
    assert STAGES[stage]["params"] == [stage, *overlooked]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_command_names_exactly_its_deps_and_outs(stage: str) -> None:
    python, flag, module, *arguments = shlex.split(STAGES[stage]["cmd"])
    assert (python, flag, module) == ("python", "-m", f"stages.{stage}")
    paths = arguments[1::2]
    assert all(option.startswith("--") for option in arguments[::2])
    data = [dep for dep in STAGES[stage]["deps"] if not dep.startswith("stages/")]
    assert sorted(paths) == sorted(["params.yaml", *data, *outs_of(stage)])


def test_no_path_below_data_is_hard_coded() -> None:
    for path in (ROOT / "stages").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not node.value.startswith("data/"), f"{path}:{node.lineno}"


def test_every_plot_and_artifact_is_an_out_of_a_stage() -> None:
    outs = [out for stage in STAGES for out in outs_of(stage)]
    used = [artifact["path"] for artifact in PIPELINE["artifacts"].values()]
    for entry in PIPELINE["plots"]:
        if isinstance(entry, str):
            used.append(entry)
        else:
            (plot,) = entry.values()
            used += plot["y"]
    for path in used:
        assert any(Path(path).is_relative_to(out) for out in outs), path


def test_the_confusions_plot_template_is_in_the_repository() -> None:
    (options,) = STAGES["evaluate"]["plots"][0].values()
    template = ROOT / ".dvc/plots" / f"{options['template']}.json"
    assert json.loads(template.read_text(encoding="utf-8"))["data"]["values"] == "<DVC_METRIC_DATA>"


def test_git_ignores_exactly_what_dvc_caches() -> None:
    ignored = (ROOT / "data/.gitignore").read_text().split()
    cached = {
        f"/{Path(out).relative_to('data').parts[0]}"
        for stage in STAGES
        for out, in_cache in outs_of(stage).items()
        if in_cache
    }
    assert set(ignored) == cached | {"*.part", "*.resume"}


@pytest.mark.usefixtures("about_mnist")
@pytest.mark.parametrize("section", PARAMS)
def test_params_yaml_has_all_keys_of_a_section_each_with_a_comment(section: str) -> None:
    text = (ROOT / "params.yaml").read_text()
    values = yaml.safe_load(text)[section]
    assert list(values) == list(PARAMS[section].model_fields)
    PARAMS[section].load(ROOT / "params.yaml", section)
    lines = text[text.index(f"\n{section}:") :].splitlines()[2:]
    for key, line in zip(
        values, [ln for ln in lines if not ln.strip().startswith("#")], strict=False
    ):
        assert line.startswith(f"  {key}: ")
        assert "  # " in line


def test_download_accepts_every_known_data_set() -> None:
    for name in [*DATASETS, "CIFAR10", "EMNIST-letters"]:
        assert DownloadParams.model_validate({"dataset": name}).dataset == name
