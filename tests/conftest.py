"""Made-up images, a web server, a browser, and what the repository's results are about."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import settings

from scripts.chromium import MISSING, chromium
from stages.formats.split_file import Split
from tests.splits import pixel_split

settings.register_profile("busy machine", deadline=None)  # time is for benchmarks/ to measure
settings.load_profile("busy machine")
# What a shell runs in its background ignores SIGINT, and so would the stages that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


def pytest_xdist_auto_num_workers() -> int:
    """Two workers per CPU, since many tests wait for a process, a server or a browser."""
    return min(2 * (os.cpu_count() or 1), 8)


@pytest.fixture(scope="session")
def about_mnist() -> None:
    """Skip the test in a fork: there, params.yaml, dvc.lock and data/ are about something else.

    Whatever reads one of these in ROOT needs this fixture; all other tests have params and results
    of their own.
    """
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    dataset = params["download"]["dataset"]
    if dataset == "MNIST":
        lock = yaml.safe_load((ROOT / "dvc.lock").read_text(encoding="utf-8"))
        dataset = lock["stages"]["download"]["params"]["params.yaml"]["download"]["dataset"]
    if dataset != "MNIST":
        pytest.skip(f"the committed params and results are about {dataset}, not MNIST")


@pytest.fixture
def make_images() -> Callable[..., Split]:
    """Images whose classes differ in brightness and place, with noise: learnable, not separable."""

    def make(
        n: int = 60, k: int = 3, shape: tuple[int, int, int] = (1, 4, 5), seed: int = 0
    ) -> Split:
        generator = np.random.default_rng(seed)
        labels = np.arange(n) % k
        prototypes = generator.integers(0, 256, (k, *shape))
        noise = generator.integers(-120, 121, (n, *shape))
        images = (prototypes[labels] + noise).clip(0, 255).astype(np.uint8)
        return pixel_split(images, labels, tuple(f"class {i}" for i in range(k)))

    return make


Answer = Callable[[BaseHTTPRequestHandler], None]
Serve = Callable[[Answer], "Served"]


@dataclass(frozen=True)
class Served:
    """The address of a running server, and the paths that were asked of it so far."""

    url: str
    paths: list[str]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """serve(answer) starts a server that lets `answer` write the whole response to each GET."""
    servers = []
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def start(answer: Answer) -> Served:
        paths: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                paths.append(self.path)
                answer(self)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return Served(f"http://127.0.0.1:{server.server_port}", paths)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def silent(request: BaseHTTPRequestHandler) -> None:
    """An answer for `serve`: none."""
    request.rfile.read(1)  # until the client hangs up


def dripping(request: BaseHTTPRequestHandler) -> None:
    """An answer for `serve`: a byte now and then."""
    request.send_response(200)
    request.end_headers()
    drip_bytes(request)


def drip_bytes(request: BaseHTTPRequestHandler) -> None:
    """Send a byte now and then, until the client hangs up."""
    try:
        for _ in range(100):
            request.wfile.write(b"x")
            time.sleep(0.02)
    except ConnectionError:
        pass  # the client hung up, as it should


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if MISSING and os.environ.get("CI"):
        pytest.fail(MISSING)
    if MISSING:
        pytest.skip(MISSING)
    with chromium() as running:
        yield running
