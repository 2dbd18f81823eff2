"""Git repositories with a made-up pipeline and its params and results."""

import hashlib
import json
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import ceil, exp
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

IMAGES, VALIDATION_IMAGES, BINS = 200, 900, 7
METRICS, PREDICTIONS = "data/metrics.json", "data/predictions.csv"
VALIDATION = "data/validation.json"
TRAIN = f"python -m train --metrics {VALIDATION}"
EVALUATE = f"python -m evaluate --metrics {METRICS} --predictions {PREDICTIONS}"
PIPELINE: dict[str, Any] = {
    "stages": {
        "train": {
            "cmd": TRAIN,
            "params": ["train"],
            "deps": ["train.py"],
            "metrics": [{VALIDATION: {"cache": False}}],
        },
        "evaluate": {
            "cmd": EVALUATE,
            "params": ["evaluate"],
            "deps": ["data/model"],
            "metrics": [{METRICS: {"cache": False}}],
        },
    },
}
RULES: dict[str, dict[str, Any]] = {
    "accuracy": {"better": "higher", "tolerance": 0.01, "floor": 0.5, "alpha": 0.05},
    "cross_entropy": {"better": "lower", "tolerance": 0.02, "ceiling": 2, "alpha": 0.05},
}


def predictions(wrong: Collection[int], labels: str = "0123", images: int = IMAGES) -> str:
    """predictions.csv of a model that misclassifies the images `wrong`."""
    rows = ["picture,actual,predicted,loss,confidence"]
    for image in range(images):
        actual, other = labels[image % len(labels)], labels[(image + 1) % len(labels)]
        predicted, loss = (other, 2.0) if image in wrong else (actual, 0.1)
        loss += image / 10_000
        sure = 0.5 if image in wrong else exp(-loss)
        rows.append(f"test/{image},{actual},{predicted},{loss:.6f},{sure:.6f}")
    return "".join(f"{row}\n" for row in rows)


def metrics(table: str) -> dict[str, Any]:
    """The metrics of such predictions, with calibration in BINS bins."""
    _, *rows = [line.split(",")[1:] for line in table.splitlines()]
    pairs = [(actual, predicted) for actual, predicted, *_ in rows]
    hits = [actual == predicted for actual, predicted in pairs]
    names = sorted({actual for actual, _ in pairs})
    of = {
        name: [hit for hit, (a, _) in zip(hits, pairs, strict=True) if a == name] for name in names
    }
    f1 = [
        2 * pairs.count((name, name)) / sum((a == name) + (p == name) for a, p in pairs)
        for name in {name for pair in pairs for name in pair}
    ]
    gaps: dict[float, float] = defaultdict(float)
    for hit, row in zip(hits, rows, strict=True):
        gaps[ceil(float(row[3]) * BINS)] += float(row[3]) - hit
    return {
        "accuracy": round(fmean(hits), 6),
        "balanced_accuracy": round(fmean(map(fmean, of.values())), 6),
        "baseline_accuracy": round(max(map(len, of.values())) / len(rows), 6),
        "classes": len({name for pair in pairs for name in pair}),
        "cross_entropy": round(fmean(float(row[2]) for row in rows), 6),
        "errors": hits.count(False),
        "expected_calibration_error": round(sum(map(abs, gaps.values())) / len(rows), 6),
        "images": len(rows),
        "macro_f1": round(fmean(f1), 6),
        "recall": {name: round(fmean(of[name]), 6) for name in names},
    }


@dataclass(frozen=True)
class Repository:
    """A git repository in `folder`."""

    folder: Path

    @classmethod
    def create(cls, folder: Path) -> "Repository":
        """On branch main, with a pipeline that has never run; nothing is committed."""
        repository = cls(folder)
        folder.mkdir()
        repository.git("init", "--quiet", "--initial-branch=main", "--template=")
        repository.write(".dvc/config", "[core]\n    analytics = false\n")
        repository.write("dvc.yaml", yaml.safe_dump(PIPELINE))
        repository.write("train.py", "print('training')\n")
        repository.params(RULES)
        return repository

    def git(self, *arguments: str) -> str:
        """Run git here; return what it prints."""
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
        train = {"iterations": iterations, "rate": 1e-5}
        document = {"train": train, "evaluate": {"calibration_bins": BINS}, "gate": rules}
        self.write("params.yaml", yaml.safe_dump(document, sort_keys=False))

    def measure(
        self,
        wrong: Collection[int],
        model: str = "1",
        validation: tuple[float, float] | None = (0.9, 0.3),
        **arguments: Any,
    ) -> None:
        """Write the results of a pipeline whose model misclassifies the images `wrong`.

        validation: accuracy and cross entropy on the validation images, None if there are none.
        """
        table = predictions(wrong, **arguments)
        chosen_by = {"training_loss": 0.2}
        if validation:
            accuracy, loss = validation
            chosen_by |= {"validation_accuracy": accuracy, "validation_cross_entropy": loss}
            chosen_by["validation_images"] = VALIDATION_IMAGES
        self.write(VALIDATION, json.dumps(chosen_by, indent=2) + "\n")
        self.write(PREDICTIONS, table)
        self.write(METRICS, json.dumps(metrics(table), indent=2) + "\n")
        self.lock(model)

    def lock(self, model: str = "1") -> None:
        """Write the dvc.lock for the files here; the model's MD5 is one digit, 32 times."""
        entry = {"path": "data/model", "hash": "md5", "md5": model * 32, "size": 1}
        params = yaml.safe_load(self.read("params.yaml"))
        stages = {
            "train": {
                "cmd": TRAIN,
                "deps": [self._entry("train.py")],
                "params": {"params.yaml": {"train": params["train"]}},
                "outs": [dict(entry), self._entry(VALIDATION)],
            },
            "evaluate": {
                "cmd": EVALUATE,
                "deps": [entry],
                "params": {"params.yaml": {"evaluate": params["evaluate"]}},
                "outs": [self._entry(METRICS), self._entry(PREDICTIONS)],
            },
        }
        self.write("dvc.lock", yaml.safe_dump({"schema": "2.0", "stages": stages}))

    def commit(self) -> str:
        """Commit everything; return the hash of the commit."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "change")
        return self.git("rev-parse", "HEAD")

    def _entry(self, path: str) -> dict[str, Any]:
        content = (self.folder / path).read_bytes()
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        return {"path": path, "hash": "md5", "md5": md5, "size": len(content)}
