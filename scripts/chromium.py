"""Chromium without a window, cut off from the network."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

EXECUTABLE = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
MISSING = (
    "no Chromium to open the page in: apt install chromium, pip install playwright"
    if find_spec("playwright") is None or EXECUTABLE is None
    else None
)


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser, as playwright's Browser. Raises FileNotFoundError if there is none."""
    if MISSING:
        raise FileNotFoundError(MISSING)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=EXECUTABLE, args=OPTIONS)
        yield browser
        browser.close()


def draw(page: Any, path: Any, scale: float = 0.8) -> None:
    """Draw a stroke, (x, y) in [0, 1], into the middle of the page's field with the mouse."""
    field = page.locator("#draw")
    field.scroll_into_view_if_needed()
    box = field.bounding_box()
    points = [
        (box["x"] + (0.1 + scale * x) * box["width"], box["y"] + (0.1 + scale * y) * box["height"])
        for x, y in path
    ]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=2)
    page.mouse.up()
