from pathlib import Path

import pytest

from tests.pipelines import copy_of_the_tiny_pipeline


@pytest.fixture
def pipeline(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline, committed and up to date, for one test to change."""
    return copy_of_the_tiny_pipeline(tmp_path_factory, tmp_path / "with a space")
