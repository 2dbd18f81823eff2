import pytest
import yaml
from PIL import Image

from scripts.screenshots import REPORT, TOP, TRY
from tests.conftest import ROOT


@pytest.mark.usefixtures("about_mnist")
def test_the_readmes_pictures_show_the_committed_page() -> None:
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text(encoding="utf-8"))
    outs = {out["path"]: out["md5"] for out in lock["stages"]["evaluate"]["outs"]}
    for path in (TOP, TRY):
        with Image.open(path) as image:
            shown = image.info[REPORT.name]
        assert shown == outs["data/report.html"], f"{path.name}: run `make screenshots`"
        assert path.stat().st_size < 150_000
