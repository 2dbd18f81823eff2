"""Git repositories with a pipeline, params and results that are made up."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

IMAGES = 200
METRICS, PREDICTIONS = "data/metrics.json", "data/predictions.csv"
PIPELINE: dict[str, Any] = {
    "stages": {
        "train": {"cmd": "python train.py", "params": ["train"], "deps": ["train.py"]},
        "evaluate": {"cmd": "python evaluate.py", "deps": ["data/model"]},
    },
    "metrics": [METRICS],
}
RULES: dict[str, dict[str, Any]] = {
    "accuracy": {"better": "higher", "tolerance": 0.01, "floor": 0.5, "alpha": 0.05},
    "cross_entropy": {"better": "lower", "tolerance": 0.02, "ceiling": 2, "alpha": 0.05},
}


def predictions(wrong: Collection[int], labels: str = "0123", images: int = IMAGES) -> str:
    """predictions.csv of a model that takes the images `wrong` for others."""
    rows = ["picture,actual,predicted,loss"]
    for image in range(images):
        actual, other = labels[image % len(labels)], labels[(image + 1) % len(labels)]
        taken_for, loss = (other, 2.0) if image in wrong else (actual, 0.1)
        rows.append(f"test/{image},{actual},{taken_for},{loss + image / 10_000:.6f}")
    return "\n".join(rows) + "\n"


def metrics(table: str) -> dict[str, Any]:
    """The metrics of such predictions."""
    rows = [line.split(",")[1:] for line in table.splitlines()[1:]]
    errors = sum(actual != predicted for actual, predicted, _ in rows)
    names = sorted({actual for actual, _, _ in rows})
    hits = [[predicted == name for of, predicted, _ in rows if of == name] for name in names]
    return {
        "accuracy": round((len(rows) - errors) / len(rows), 6),
        "balanced_accuracy": round(fmean(map(fmean, hits)), 6),
        "baseline_accuracy": round(max(map(len, hits)) / len(rows), 6),
        "cross_entropy": round(sum(float(loss) for _, _, loss in rows) / len(rows), 6),
        "errors": errors,
        "images": len(rows),
        "recall": {"0": 0.5},
    }


@dataclass(frozen=True)
class Repository:
    """A git repository in `folder`."""

    folder: Path

    @classmethod
    def create(cls, folder: Path) -> "Repository":
        """On branch main, with a pipeline that never ran, not committed."""
        repository = cls(folder)
        folder.mkdir()
        repository.git("init", "--quiet", "--initial-branch=main")
        repository.write(".dvc/config", "[core]\n    analytics = false\n")
        repository.write("dvc.yaml", yaml.safe_dump(PIPELINE))
        repository.write("train.py", "print('training')\n")
        repository.params(RULES)
        return repository

    def git(self, *arguments: str) -> str:
        """The output of git here."""
        command = shutil.which("git")
        assert command
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "gc.auto=0"]
        return subprocess.run(
            [command, *identity, *arguments],
            cwd=self.folder,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    def write(self, path: str, text: str) -> None:
        """Write a file of this repository."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8", newline="\n")

    def read(self, path: str) -> str:
        """Read a file of this repository."""
        return (self.folder / path).read_text(encoding="utf-8")

    def params(self, rules: Mapping[str, Any], iterations: int = 3000) -> None:
        """Write params.yaml."""
        document = {"train": {"iterations": iterations, "rate": 1e-5}, "gate": rules}
        self.write("params.yaml", yaml.safe_dump(document, sort_keys=False))

    def measure(self, wrong: Collection[int], model: str = "1", **arguments: Any) -> None:
        """Write results as if the pipeline had run, with a model that errs on `wrong`."""
        table = predictions(wrong, **arguments)
        self.write(PREDICTIONS, table)
        self.write(METRICS, json.dumps(metrics(table), indent=2) + "\n")
        self.lock(model)

    def lock(self, model: str = "1") -> None:
        """Write the dvc.lock of what is there; the model's MD5 is one digit 32 times."""
        entry = {"path": "data/model", "hash": "md5", "md5": model * 32, "size": 1}
        train = yaml.safe_load(self.read("params.yaml"))["train"]
        stages = {
            "train": {
                "cmd": "python train.py",
                "deps": [self._entry("train.py")],
                "params": {"params.yaml": {"train": train}},
                "outs": [dict(entry)],
            },
            "evaluate": {
                "cmd": "python evaluate.py",
                "deps": [entry],
                "outs": [self._entry(METRICS), self._entry(PREDICTIONS)],
            },
        }
        self.write("dvc.lock", yaml.safe_dump({"schema": "2.0", "stages": stages}))

    def commit(self) -> str:
        """Commit everything; the commit's hash."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "change")
        return self.git("rev-parse", "HEAD")

    def _entry(self, path: str) -> dict[str, Any]:
        content = (self.folder / path).read_bytes()
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        return {"path": path, "hash": "md5", "md5": md5, "size": len(content)}
