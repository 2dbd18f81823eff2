"""The page that shows the run: its size, its speed, and how exactly it computes.

Needs what `dvc repro` makes in data/, of pictures that can be drawn, and a browser. The page is
rendered as `evaluate` renders it, and opened in Chromium without the network. Beside what a clock
measures stands the CPU time of the page's main thread, which a busy machine hardly changes.
"""

import base64
import csv
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.tables import markdown
from scripts.chromium import chromium
from stages.evaluate import EvaluateParams, evaluate
from stages.formats.model_file import Model
from stages.formats.split_file import Split
from stages.report.page import render
from stages.report.page_data import PageData

DATA = Path("data")
RENDERED, LOADED, DRAWN, COMPARED = 3, 5, 500, 200

LOAD = "performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
STROKE = """async () => {
  const canvas = find("draw"), { left, top, width, height } = canvas.getBoundingClientRect();
  const send = (type, turn) => canvas.dispatchEvent(new PointerEvent(type, {
    clientX: left + width * (0.5 + 0.3 * Math.cos(turn)),
    clientY: top + height * (0.5 + 0.3 * Math.sin(turn)),
  }));
  const frame = () => new Promise((done) => requestAnimationFrame(() => done(performance.now())));
  const answers = [];
  send("pointerdown", 0);
  for (let step = 1; step <= 100; step++) {
    const before = frame(), start = performance.now();
    send("pointermove", 0.06 * step);
    const answered = performance.now() - start, after = frame();
    answers.push(answered - await before + await after); // the reasons are drawn in between
  }
  return answers;
}"""
PAINT = """(texts) => texts.map((text) => {
  const { shape: [channels, height, width] } = JSON.parse(find("run").textContent).model;
  const canvas = find("draw"), small = new OffscreenCanvas(width, height);
  paint(small, { channels, height, width, data: bytesOf(text) });
  canvas.getContext("2d").imageSmoothingEnabled = false;
  canvas.getContext("2d").drawImage(small, 0, 0, canvas.width, canvas.height);
  canvas.dispatchEvent(new Event("input"));
  return find("prediction").textContent;
})"""
COMPUTE = """(texts) => {
  const model = readModel(JSON.parse(find("run").textContent));
  const [channels, height, width] = model.shape;
  return texts.map((text) => {
    const { features } = seenBy(model, { channels, height, width, data: bytesOf(text) });
    return [Array.from(features), Array.from(probabilities(model, features))];
  });
}"""


@dataclass(frozen=True)
class Milliseconds:
    """The median of what a clock measured, and the mean CPU time of the page's main thread."""

    clock: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.clock:.0f} ms, {self.cpu:.0f} ms of CPU"


@dataclass(frozen=True)
class Measured:
    """Bytes of the page, how long it takes, and how far it agrees with Python."""

    size: int
    render_seconds: float
    load: Milliseconds
    stroke: Milliseconds
    same_answers: float
    different_features: int
    probability_error: float


def rendering_time(folder: Path) -> float:
    """Run `evaluate` into `folder`; the seconds of it that rendering the page takes."""
    seconds = []

    def timed(data: PageData) -> str:
        start = perf_counter()
        html = render(data)
        seconds.append(perf_counter() - start)
        return html

    with patch("stages.evaluate.render", timed), redirect_stdout(sys.stderr):
        evaluate(
            EvaluateParams.load(Path("params.yaml"), "evaluate"),
            DATA / "model.safetensors",
            DATA / "tensors/test.safetensors",
            DATA / "history.csv",
            folder / "metrics.json",
            folder / "predictions.csv",
            folder / "plots",
            folder / "report.html",
            folder / "model_card.md",
        )
    return seconds[0]


def cpu_time(devtools: Any) -> float:
    """The CPU time of the page's main thread since its load began, in milliseconds."""
    metrics = devtools.send("Performance.getMetrics")["metrics"]
    return 1000 * float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))


def texts_of(images: Any) -> list[str]:
    """Images as the page's bytesOf reads them."""
    return [base64.b64encode(image.tobytes()).decode() for image in images]


def measure() -> Measured:
    """Measure the page of the run in data/."""
    model = Model.load(DATA / "model.safetensors")
    test = Split.load(DATA / "tensors/test.safetensors")
    features = test.features[:COMPARED]
    p = np.exp(model.log_probabilities(features.astype(np.float64)))
    with (DATA / "predictions.csv").open(encoding="utf-8") as file:
        predicted = [row["predicted"] for row in csv.DictReader(file)][:DRAWN]
    with TemporaryDirectory() as name, chromium() as browser:
        folder = Path(name)
        seconds = median(rendering_time(folder) for _ in range(RENDERED))
        html = folder / "report.html"
        loads, of_loads = [], []
        for _ in range(LOADED):
            page = browser.new_context(offline=True).new_page()
            devtools = page.context.new_cdp_session(page)
            devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
            page.goto(html.as_uri())
            of_loads.append(cpu_time(devtools))
            loads.append(page.evaluate(LOAD))
        page.wait_for_timeout(1000)  # until what the model looks for is drawn
        before = cpu_time(devtools)
        strokes = page.evaluate(STROKE)
        of_strokes = cpu_time(devtools) - before
        answers = page.evaluate(PAINT, texts_of(test.images[:DRAWN]))
        computed = page.evaluate(COMPUTE, texts_of(test.images[:COMPARED]))
        return Measured(
            html.stat().st_size,
            seconds,
            Milliseconds(median(loads), mean(of_loads)),
            Milliseconds(median(strokes), of_strokes / len(strokes)),
            float(np.mean(np.array(answers) == np.array(predicted))),
            int((np.array([one[0] for one in computed]) != features).sum()),
            float(np.abs(np.array([one[1] for one in computed]) - p).max()),
        )


def table() -> str:
    """The measurements beside their bars."""
    found = measure()
    return markdown(
        ("data/report.html", "measured", "to reach"),
        [
            ("size", f"{found.size / 1e6:.2f} MB", "< 2.5 MB"),
            ("rendering, within `evaluate`", f"{found.render_seconds:.2f} s", "< 0.5 s"),
            ("usable after loading", str(found.load), "< 500 ms"),
            (
                "a movement of the pen, answered and explained",
                str(found.stroke),
                "< 16 ms",
            ),
            (
                f"{DRAWN} test pictures painted into the field, answered as in predictions.csv",
                f"{found.same_answers:.1%}",
                "> 99 %",
            ),
            (
                f"features of {COMPARED} test pictures that differ from Python's",
                f"{found.different_features}",
                "0",
            ),
            (
                "their probabilities, largest difference from Python's",
                f"{found.probability_error:.0e}",
                "< 1e-9",
            ),
        ],
    )


if __name__ == "__main__":
    try:
        print(table())
    except FileNotFoundError as error:
        sys.exit(f"error: {error}")
