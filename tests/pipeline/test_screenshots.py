import pytest
import yaml
from PIL import Image

from scripts.screenshots import REPORT, TOP, TRY
from tests.conftest import ROOT
from tests.pipeline.test_mnist import dataset_of_the_repository


def test_the_readmes_pictures_show_the_committed_page() -> None:
    if (datasets := dataset_of_the_repository()) != {"MNIST"}:
        pytest.skip(f"the README is about MNIST, params.yaml and dvc.lock about {datasets}")
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text(encoding="utf-8"))
    outs = {out["path"]: out["md5"] for out in lock["stages"]["evaluate"]["outs"]}
    for path in (TOP, TRY):
        with Image.open(path) as image:
            shown = image.info[REPORT.name]
        assert shown == outs["data/report.html"], f"{path.name}: run `make screenshots`"
        assert path.stat().st_size < 150_000
