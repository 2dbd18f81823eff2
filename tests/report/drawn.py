"""What a viewer of an SVG sees: texts, pictures, and the caption below each picture."""

import base64
import io
import re
from dataclasses import dataclass
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stages.report.svg import CAPTION, SIDE

SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Picture:
    """A picture, (H, W, 3) int64, and the place of its upper left corner."""

    x: float
    y: float
    pixels: NDArray[np.int64]


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg.encode()).iter(f"{SVG}text")]


def pictures(svg: str) -> list[Picture]:
    found = []
    root = ET.fromstring(svg.encode())
    groups = {image: group for group in root.iter(f"{SVG}g") for image in group}
    for element in root.iter(f"{SVG}image"):
        x, y = float(element.attrib["x"]), float(element.attrib["y"])
        if element in groups:
            moved = re.fullmatch(r"translate\((\d+) (\d+)\)", groups[element].attrib["transform"])
            assert moved
            x, y = x + int(moved[1]), y + int(moved[2])
        data = base64.b64decode(element.attrib["href"].removeprefix("data:image/png;base64,"))
        pixels = np.asarray(Image.open(io.BytesIO(data))).astype(np.int64)
        found.append(Picture(x, y, pixels))
    return found


def captioned(svg: str) -> list[tuple[list[str], NDArray[np.int64]]]:
    """Each picture of a grid with the lines of text below it."""
    lines = list(ET.fromstring(svg.encode()).iter(f"{SVG}text"))
    return [
        (
            [
                line.text or ""
                for line in lines
                if float(line.attrib["x"]) == picture.x + SIDE // 2
                and SIDE < float(line.attrib["y"]) - picture.y <= SIDE + CAPTION
            ],
            picture.pixels,
        )
        for picture in pictures(svg)
    ]
