"""A picture of any size and mode -> the pixels that the model sees.

Everything here is integer arithmetic on bytes: Pillow's conversions, and its resampling with a
bicubic kernel, which needs no transcendental function. A picture in a lossless format gives the
same bytes on every machine; how a lossy one is decoded is up to Pillow's JPEG or WebP library.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import SEEK_END
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # others may start programs (EPS)
UPRIGHT = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
EDGE = 10_000  # pixels, the largest height or width


@dataclass(frozen=True)
class Preprocessing:
    """How every picture gets 1 channel (grey) or 3 (RGB), and `size`, (H, W) pixels.

    A picture of another shape is scaled to cover `size` and cropped to its centre, or scaled to fit
    inside it and padded with black, whose zeros add nothing to a logit. Without a `size`, pictures
    keep theirs.
    """

    channels: int
    size: tuple[int, int] | None
    fit: str

    def __call__(self, image: Image.Image) -> Image.Image:
        """Convert, then resize.

        Transparent pixels are laid on white; 16 bits per pixel become 8. Raises ValueError with the
        reason if that fails, as for pixels whose white is unknown.
        """
        try:
            return self._resized(self._converted(image))
        except Exception as error:  # broken pictures can make Pillow raise anything
            raise ValueError(reason(error)) from None

    def _converted(self, image: Image.Image) -> Image.Image:
        mode = "L" if self.channels == 1 else "RGB"
        if image.mode != mode or image.has_transparency_data:
            image = _opaque(image).convert(mode)
        return image

    def _resized(self, image: Image.Image) -> Image.Image:
        if self.size is None or image.size == self.size[::-1]:
            return image
        resized = ImageOps.fit if self.fit == "crop" else _padded
        return resized(image, self.size[::-1], Image.Resampling.BICUBIC)


def open_picture(path: Path | str) -> Image.Image:
    """Read a picture from a file, as `read_picture` does; raises ValueError with the reason."""
    try:
        mode = Path(path).stat().st_mode
        if not (S_ISREG(mode) or S_ISDIR(mode)):  # a pipe would keep its reader waiting
            raise ValueError("not a regular file")
        file = Path(path).open("rb")  # noqa: SIM115  # closed below
    except OSError as error:
        raise ValueError(reason(error)) from None
    with file:
        return read_picture(file)


def read_picture(file: IO[bytes]) -> Image.Image:
    """Read a picture and turn it upright as its EXIF says; of an animation, the first frame.

    Raises ValueError with the reason if the file is not a complete picture, or exceeds Pillow's
    limit for decompression bombs, about 89 million pixels.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            image.load()
    except UnidentifiedImageError:
        empty = file.seek(0, SEEK_END) == 0
        found = "an empty file" if empty else f"none of the formats {', '.join(FORMATS)}"
        raise ValueError(found) from None
    except Exception as error:  # broken pictures can make Pillow raise anything
        raise ValueError(reason(error)) from None
    return _upright(image)


def reason(error: Exception) -> str:
    """Why a picture cannot be read, in one line, the same on every machine."""
    if isinstance(error, UnidentifiedImageError):
        return "not in a format that Pillow knows"
    if isinstance(error, MemoryError):
        return "more pixels than there is memory for"
    text = (isinstance(error, OSError) and error.strerror) or str(error)
    return " ".join(text.split()) or f"cannot be decoded ({type(error).__name__})"


@contextmanager
def bombs_refused() -> Iterator[None]:
    """Turn Pillow's warning about decompression bombs into an error, and silence its others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken EXIF does not mean broken pixels
        return image
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _opaque(image: Image.Image) -> Image.Image:
    """Any mode -> 1, L or RGB."""
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
    """Scale to fit inside (W, H), at least one pixel wide and high, and centre on black."""
    width, height = image.size
    scale = min(size[0] / width, size[1] / height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    padded = Image.new(image.mode, size)
    padded.paste(
        image.resize(inner, method), ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2)
    )
    return padded
