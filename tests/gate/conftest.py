"""The files of a pipeline that has run, without git."""

from dataclasses import dataclass, field

import pytest

from stages.gate.revisions import Revision
from tests.repositories import Repository


@dataclass(frozen=True)
class InMemory(Revision):
    """A revision with these files."""

    files: dict[str, bytes] = field(default_factory=dict)

    def read(self, path: str) -> bytes | None:
        return self.files.get(path)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What git would hold of a pipeline whose model misclassifies ten images, by path."""
    repository = Repository.create(tmp_path_factory.mktemp("files") / "repository")
    repository.measure(range(10))
    paths = [*repository.folder.glob("*.*"), *repository.folder.glob("data/*")]
    return {
        str(path.relative_to(repository.folder)): path.read_bytes()
        for path in paths
        if path.is_file()
    }
