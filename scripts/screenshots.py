"""data/report.html -> the README's pictures of it: its top, and why a drawn 3 is no 8.

Each PNG holds the MD5 of the page it shows, as dvc.lock does, so that a test can tell whether it
shows the committed one. Its pixels depend on the browser and the fonts.
"""

import hashlib
import io
import sys
from math import cos, radians, sin
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from scripts.chromium import chromium, draw

ROOT = Path(__file__).parent.parent
REPORT = ROOT / "data/report.html"
TOP, TRY = ROOT / "docs/images/report.png", ROOT / "docs/images/try.png"
WIDTH, SCALE = 1200, 1.5


def arc(x: float, y: float, radius: float, start: int, end: int) -> list[tuple[float, float]]:
    """Points on a circle, angles in degrees."""
    return [
        (x + radius * cos(radians(angle)), y + radius * sin(radians(angle)))
        for angle in range(start, end + 1, 10)
    ]


THREE = [*arc(0.45, 0.28, 0.22, -150, 80), *arc(0.45, 0.73, 0.25, -80, 150)]


def screenshots(page: Any) -> dict[Path, bytes]:
    """PNG files of the page, opened in a browser."""
    top = page.locator("#try").bounding_box()["y"]
    images = {TOP: page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": top - 40})}
    draw(page, THREE)
    page.mouse.move(0, 0)
    page.select_option("#other", "8")
    page.evaluate("document.activeElement.blur()")
    box = page.locator("#try").bounding_box()
    box |= {"x": 0, "y": box["y"] - 24, "width": WIDTH, "height": box["height"] + 48}
    return images | {TRY: page.screenshot(clip=box)}


def compressed(png: bytes, md5: str) -> bytes:
    """The picture with a palette, and the hash of what it shows."""
    text = PngInfo()
    text.add_text(REPORT.name, md5)
    file = io.BytesIO()
    image = Image.open(io.BytesIO(png)).convert("RGB").quantize(method=Image.Quantize.FASTOCTREE)
    image.save(file, "PNG", optimize=True, pnginfo=text)
    return file.getvalue()


def main() -> None:
    """Open the page, draw, and write the pictures."""
    md5 = hashlib.md5(REPORT.read_bytes(), usedforsecurity=False).hexdigest()
    with chromium() as browser:
        size = {"width": WIDTH, "height": 1600}
        page = browser.new_page(viewport=size, device_scale_factor=SCALE, reduced_motion="reduce")
        page.goto(REPORT.as_uri())
        for path, png in screenshots(page).items():
            path.write_bytes(compressed(png, md5))


if __name__ == "__main__":
    try:
        main()
    except FileNotFoundError as error:
        sys.exit(f"error: {error}; `dvc repro` makes data/report.html")
