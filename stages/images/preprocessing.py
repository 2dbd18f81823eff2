"""A picture of any size and mode -> the pixels that the model sees.

Everything here is integer arithmetic on bytes (Pillow's conversions, and its resampling with a
bicubic kernel, which has no transcendental function): a picture in a lossless format gives the same
bytes on every machine. How a lossy one is decoded is up to the JPEG or WebP library in Pillow.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

Fit = Literal["crop", "pad"]
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # others can start programs (EPS)
UPRIGHT = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
EDGE = 10_000  # pixels; the longest edge that `size` may ask for


@dataclass(frozen=True)
class Preprocessing:
    """What every picture becomes: `channels`, 1 (grey) or 3 (RGB), of `size`, (H, W) pixels.

    A picture of another shape is scaled to cover `size` and cropped at the centre, or scaled to lie
    within and padded with black, whose pixels are 0 and add nothing to a logit. Without a `size`,
    pictures keep their own.
    """

    channels: int
    size: tuple[int, int] | None
    fit: str

    def __call__(self, image: Image.Image) -> Image.Image:
        """Convert, then resize.

        Transparent pixels lie on white; 16 bits a pixel become 8. Raises ValueError for pixels
        whose white is unknown.
        """
        mode = "L" if self.channels == 1 else "RGB"
        if image.mode != mode or image.has_transparency_data:
            image = _opaque(image).convert(mode)
        if self.size is None or image.size == self.size[::-1]:
            return image
        resized = ImageOps.fit if self.fit == "crop" else _padded
        return resized(image, self.size[::-1], Image.Resampling.BICUBIC)


def open_picture(path: Path | str) -> Image.Image:
    """The picture in a file, upright as its EXIF says; of an animation, the first frame.

    Raises ValueError with the reason if the file holds none that can be read whole, or one beyond
    Pillow's bound for decompression bombs, about 89 million pixels.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.load()
    except UnidentifiedImageError:
        empty = Path(path).stat().st_size == 0
        found = "an empty file" if empty else f"none of the formats {', '.join(FORMATS)}"
        raise ValueError(found) from None
    except Exception as error:  # broken bytes lead Pillow's parsers to any
        raise ValueError(reason(error)) from None
    return _upright(image)


def reason(error: Exception) -> str:
    """Why a picture cannot be read, in one line, the same on every machine."""
    if isinstance(error, UnidentifiedImageError):
        return "no picture in a format that Pillow knows"
    text = (isinstance(error, OSError) and error.strerror) or str(error)
    return " ".join(text.split()) or type(error).__name__


@contextmanager
def bombs_refused() -> Iterator[None]:
    """Within it, Pillow's warning of a decompression bomb is an error, and its others are quiet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken EXIF says nothing of the pixels, which are whole
        return image
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _opaque(image: Image.Image) -> Image.Image:
    """L or RGB, from any mode."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise ValueError("pixels beyond 16 bits, whose white is unknown")
        values = np.where(values == image.info.get("transparency"), 0xFFFF, values)
        return Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose white is unknown")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode in {"1", "L"} else image.convert("RGB")


def _padded(image: Image.Image, size: tuple[int, int], method: Image.Resampling) -> Image.Image:
    """Scale to lie within (W, H), at least one pixel wide and high; the rest is black."""
    width, height = image.size
    scale = min(size[0] / width, size[1] / height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    padded = Image.new(image.mode, size)
    padded.paste(
        image.resize(inner, method), ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2)
    )
    return padded
