import hashlib
import io
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Never

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ExifTags, Image

from stages.images.preprocessing import Preprocessing, bombs_refused, open_picture
from tests.openers import png_of_size

Pixels = NDArray[np.uint8]

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
COLOURS = np.array([[RED, GREEN, BLUE], [WHITE, BLACK, (200, 100, 50)]], np.uint8)  # (2, 3, RGB)
GREYS = np.array([[0, 1, 127], [128, 254, 255]], np.uint8)
GREYS_16 = np.array([[0, 255, 256], [511, 0x8000, 0xFFFF]], np.uint16)


def encoded(image: Any, file_format: str, **options: Any) -> bytes:
    """An image of Pillow's or an array -> the bytes of a file."""
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, file_format, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return tags


def pixels(
    path: Path,
    channels: int = 3,
    size: tuple[int, int] | None = None,
    fit: Literal["crop", "pad"] = "crop",
) -> Pixels:
    """(H, W) if there is one channel, else (H, W, 3)."""
    with bombs_refused():
        image = Preprocessing(channels, size, fit)(open_picture(path))
    assert image.mode == ("L" if channels == 1 else "RGB")
    return np.asarray(image)


def grey(colours: Pixels) -> Pixels:
    """ITU-R 601-2, in integers: the sum of the weights is 2**16."""
    weighted = colours.astype(int) @ [19595, 38470, 7471]
    return ((weighted + 0x8000) >> 16).astype(np.uint8)


def with_alpha(colours: Pixels, alpha: list[int]) -> Image.Image:
    channel = np.resize(np.array(alpha, np.uint8), (*colours.shape[:2], 1))
    return Image.fromarray(np.concatenate([colours, channel], axis=2))


def palette() -> Image.Image:
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3), "L")
    image.putpalette(COLOURS.tobytes())
    return image


def of_grey(values: Any) -> Pixels:
    return np.repeat(np.asarray(values, np.uint8)[:, :, None], 3, axis=2)


CHECKERS = np.array([[True, False, True], [False, False, True]])
RED_IMAGE, BLUE_IMAGE = (Image.new("RGB", (3, 2), colour) for colour in (RED, BLUE))
BLACK_AS_WHITE = np.where(COLOURS.any(axis=2, keepdims=True), COLOURS, 255).astype(np.uint8)
HALF_CLEAR = with_alpha(COLOURS, [255, 0])
CLEAR = np.where(np.arange(6).reshape(2, 3, 1) % 2 == 0, COLOURS, 255).astype(np.uint8)
YCBCR = Image.fromarray(COLOURS).convert("YCbCr")
LA = Image.merge("LA", [Image.fromarray(GREYS), Image.new("L", (3, 2), 0)])
HIGH_BYTES = GREYS_16 >> 8
ONE_TRANSPARENT = np.where(GREYS_16 == 256, 255, HIGH_BYTES)
PICTURES: dict[str, tuple[bytes, Pixels]] = {
    "PNG, 1 bit": (encoded(CHECKERS, "PNG"), of_grey(CHECKERS * 255)),
    "PNG, grey": (encoded(GREYS, "PNG"), of_grey(GREYS)),
    "PNG, grey, a grey transparent": (
        encoded(GREYS, "PNG", transparency=1),
        of_grey(np.where(GREYS == 1, 255, GREYS)),
    ),
    "PNG, grey with alpha": (encoded(LA, "PNG"), of_grey(np.full((2, 3), 255))),
    "PNG, colour": (encoded(COLOURS, "PNG"), COLOURS),
    "PNG, colour, a colour transparent": (
        encoded(COLOURS, "PNG", transparency=BLACK),
        BLACK_AS_WHITE,
    ),
    "PNG, colour with alpha": (encoded(HALF_CLEAR, "PNG"), CLEAR),
    "PNG, palette": (encoded(palette(), "PNG"), COLOURS),
    "PNG, palette with alpha": (encoded(palette(), "PNG", transparency=bytes([255, 0] * 3)), CLEAR),
    "PNG, 16 bits": (encoded(GREYS_16, "PNG"), of_grey(HIGH_BYTES)),
    "PNG, 16 bits, a grey transparent": (
        encoded(GREYS_16, "PNG", transparency=256),
        of_grey(ONE_TRANSPARENT),
    ),
    "TIFF, 16 bits": (encoded(GREYS_16, "TIFF"), of_grey(HIGH_BYTES)),
    "TIFF, 16 bits, high byte first": (
        encoded(GREYS_16.astype(">u2"), "TIFF"),
        of_grey(HIGH_BYTES),
    ),
    "TIFF, 32 bits": (encoded(GREYS_16.astype(np.int32), "TIFF"), of_grey(HIGH_BYTES)),
    "PGM, 16 bits": (b"P5\n3 2\n65535\n" + GREYS_16.astype(">u2").tobytes(), of_grey(HIGH_BYTES)),
    "TIFF, compressed": (encoded(COLOURS, "TIFF", compression="tiff_lzw"), COLOURS),
    "TIFF, CMYK": (encoded(Image.fromarray(COLOURS[:1]).convert("CMYK"), "TIFF"), COLOURS[:1]),
    "TIFF, YCbCr": (encoded(YCBCR, "TIFF"), np.asarray(YCBCR.convert("RGB"))),
    "WebP, lossless with alpha": (encoded(HALF_CLEAR, "WEBP", lossless=True), CLEAR),
    "GIF": (encoded(palette(), "GIF"), COLOURS),
    "GIF, a colour transparent": (encoded(palette(), "GIF", transparency=4), BLACK_AS_WHITE),
    "GIF, animated": (
        encoded(RED_IMAGE, "GIF", save_all=True, append_images=[BLUE_IMAGE]),
        np.full((2, 3, 3), RED, np.uint8),
    ),
    "BMP": (encoded(COLOURS, "BMP"), COLOURS),
    "PPM": (encoded(COLOURS, "PPM"), COLOURS),
    "PBM": (encoded(CHECKERS, "PPM"), of_grey(CHECKERS * 255)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_lossless_format_is_decoded_exactly(tmp_path: Path, name: str) -> None:
    content, expected = PICTURES[name]
    (tmp_path / "picture").write_bytes(content)
    np.testing.assert_array_equal(pixels(tmp_path / "picture", channels=3), expected)
    np.testing.assert_array_equal(pixels(tmp_path / "picture", channels=1), grey(expected))


@pytest.mark.parametrize(
    ("file_format", "mode"),
    [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("WEBP", "RGB"), ("WEBP", "RGBA")],
)
def test_lossy_formats_are_decoded_approximately(
    tmp_path: Path, file_format: str, mode: str
) -> None:
    colour = (90, 90, 90) if mode == "L" else (200, 100, 50)
    image = Image.new("RGB", (16, 16), colour).convert(mode)
    (tmp_path / "picture").write_bytes(encoded(image, file_format, quality=95))
    assert np.abs(pixels(tmp_path / "picture").astype(int) - colour).max() <= 4
    expected = int(grey(np.array([colour], np.uint8))[0])
    assert np.abs(pixels(tmp_path / "picture", 1).astype(int) - expected).max() <= 4


@given(alpha=st.integers(0, 255), colour=st.tuples(*[st.integers(0, 255)] * 3))
def test_half_transparent_pixels_are_blended_with_white(
    alpha: int, colour: tuple[int, int, int]
) -> None:
    image = Image.new("RGBA", (1, 1), (*colour, alpha))
    expected = (np.array(colour) * alpha + 255 * (255 - alpha)) / 255
    found = np.asarray(Preprocessing(3, None, "crop")(image))[0, 0]
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.ones((2, 2), np.float32), "floating-point pixels, whose white is unknown"),
        (np.full((2, 2), 0x10000, np.int32), "pixels beyond 16 bits, whose white is unknown"),
        (np.full((2, 2), -1, np.int32), "pixels beyond 16 bits, whose white is unknown"),
    ],
)
def test_pixels_whose_white_level_is_unknown_are_refused(
    tmp_path: Path, values: Any, reason: str
) -> None:
    Image.fromarray(values).save(tmp_path / "picture.tif")
    for channels in (1, 3):
        with pytest.raises(ValueError, match=f"^{reason}$"):
            pixels(tmp_path / "picture.tif", channels)


# Where the picture's rows and columns lie in the file, for each orientation (EXIF 2.3, 4.6.4 A).
AS_STORED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", AS_STORED)
def test_exif_orientation_is_applied(tmp_path: Path, file_format: str, orientation: int) -> None:
    upright = np.kron(COLOURS, np.ones((16, 16, 1), np.uint8))  # blocks, which JPEG keeps
    stored = Image.fromarray(np.ascontiguousarray(AS_STORED[orientation](upright)))
    options: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 95, "subsampling": 0},
        "WEBP": {"lossless": True},
    }
    stored.save(
        tmp_path / "picture", file_format, exif=exif(orientation), **options.get(file_format, {})
    )
    found = pixels(tmp_path / "picture")
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).max() <= (4 if file_format == "JPEG" else 0)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    "tags",
    [
        b"garbage",
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01",
        exif(0).tobytes(),
        exif(9).tobytes(),
    ],
)
def test_broken_exif_is_ignored(tmp_path: Path, file_format: str, tags: bytes) -> None:
    Image.new("L", (3, 2), 90).save(tmp_path / "picture", file_format, exif=tags)
    assert pixels(tmp_path / "picture", 1).tolist() == [[90] * 3] * 2


FITS: tuple[Literal["crop", "pad"], ...] = ("crop", "pad")


@pytest.mark.parametrize("fit", FITS)
def test_a_picture_of_the_same_shape_is_resized_with_a_bicubic_filter(
    fit: Literal["crop", "pad"],
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    for size in ((3, 5), (60, 100)):
        expected = Image.fromarray(noise).resize(size[::-1], Image.Resampling.BICUBIC)
        found = Preprocessing(3, size, fit)(Image.fromarray(noise))
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def test_crop_keeps_the_centre() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 50), np.uint8)
    centre = Image.fromarray(noise).resize((10, 10), Image.Resampling.BICUBIC, box=(15, 0, 35, 20))
    np.testing.assert_array_equal(
        np.asarray(Preprocessing(1, (10, 10), "crop")(Image.fromarray(noise))), np.asarray(centre)
    )


def test_pad_centres_the_picture_on_black() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 50), np.uint8)
    inner = np.asarray(Image.fromarray(noise).resize((10, 4), Image.Resampling.BICUBIC))
    expected = np.zeros((10, 10), np.uint8)
    expected[3:7] = inner
    found = Preprocessing(1, (10, 10), "pad")(Image.fromarray(noise))
    np.testing.assert_array_equal(np.asarray(found), expected)


sides = st.integers(1, 60) | st.just(5000)


@given(width=sides, height=sides, size=st.tuples(st.integers(1, 30), st.integers(1, 30)))
def test_every_shape_is_resized_to_the_size(width: int, height: int, size: tuple[int, int]) -> None:
    white = Image.new("L", (width, height), 255)
    cropped = np.asarray(Preprocessing(1, size, "crop")(white))
    assert cropped.shape == size
    assert (cropped == 255).all()
    padded = np.asarray(Preprocessing(1, size, "pad")(white))
    assert padded.shape == size
    rows, columns = np.nonzero(padded)
    inner = padded[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert (inner == 255).all()
    assert inner.shape[0] == size[0] or inner.shape[1] == size[1]
    for lowest, highest, side in zip(
        (rows.min(), columns.min()), (rows.max(), columns.max()), size, strict=True
    ):
        assert 0 <= side - 1 - highest - lowest <= 1


@pytest.mark.parametrize("fit", FITS)
def test_a_picture_of_the_right_size_keeps_its_bytes(
    tmp_path: Path, fit: Literal["crop", "pad"]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "picture.png")
    np.testing.assert_array_equal(pixels(tmp_path / "picture.png", 3, (7, 9), fit), noise)
    assert pixels(tmp_path / "picture.png", 3, (9, 7), fit).shape == (9, 7, 3)


@pytest.mark.parametrize(
    ("channels", "size", "fit", "sha256"),
    [
        (1, (28, 28), "crop", "d30e99ac7be8410a"),
        (3, (28, 28), "crop", "a99e80e6ea976383"),
        (3, (28, 28), "pad", "72412c8c03758447"),
        (3, (100, 31), "pad", "5af2c482291d87eb"),
    ],
)
def test_a_lossless_picture_gives_the_same_bytes_on_every_machine(
    tmp_path: Path,
    channels: int,
    size: tuple[int, int],
    fit: Literal["crop", "pad"],
    sha256: str,
) -> None:
    i = np.arange(61 * 47 * 4, dtype=np.uint32)
    noise = ((i * 2654435761) >> 24).astype(np.uint8).reshape(61, 47, 4)
    Image.fromarray(noise).save(tmp_path / "picture.png")
    found = pixels(tmp_path / "picture.png", channels, size, fit)
    assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == sha256


NO_FORMAT = "none of the formats PNG, JPEG, WEBP, GIF, BMP, TIFF, PPM"
BOMB = "Image size ({} pixels) exceeds limit of {} pixels, could be decompression bomb DOS attack."
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
BROKEN = {
    "empty": (b"", "an empty file"),
    "text": (b"no picture", NO_FORMAT),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", NO_FORMAT),
    "no pixels": (png_of_size(0, 5), NO_FORMAT),
    "truncated PNG": (encoded(NOISE, "PNG")[:-100], "image file is truncated"),
    "truncated JPEG": (encoded(NOISE, "JPEG")[:-100], "image file is truncated"),
    "truncated GIF": (encoded(NOISE, "GIF")[:-100], "image file is truncated"),
    "truncated WebP": (encoded(NOISE, "WEBP")[:-100], "could not create decoder object"),
    "truncated BMP": (encoded(NOISE, "BMP")[:-100], "image file is truncated"),
    "truncated TIFF": (encoded(NOISE, "TIFF")[:-200], "image file is truncated"),
    "truncated PPM": (encoded(NOISE, "PPM")[:-100], "image file is truncated"),
    "bomb": (png_of_size(60_000, 60_000), BOMB.format(3_600_000_000, 178_956_970)),
    "small bomb": (png_of_size(10_000, 9_000), BOMB.format(90_000_000, 89_478_485)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_picture_is_refused_with_a_one_line_reason(tmp_path: Path, name: str) -> None:
    content, reason = BROKEN[name]
    (tmp_path / "picture.png").write_bytes(content)
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}") as error, bombs_refused():
        open_picture(tmp_path / "picture.png")
    assert_reason_is_portable(str(error.value), tmp_path)


def assert_reason_is_portable(reason: str, tmp_path: Path) -> None:
    assert reason.isprintable()
    assert str(tmp_path) not in reason
    assert " at 0x" not in reason


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "dangling.png").symlink_to("nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    for name, reason in [
        ("missing.png", "No such file or directory"),
        ("dangling.png", "No such file or directory"),
        ("folder.png", "Is a directory"),
        ("pipe.png", "not a regular file"),
        ("/dev/zero", "not a regular file"),
    ]:
        with pytest.raises(ValueError, match=f"^{reason}$"):
            open_picture(tmp_path / name)


def test_whatever_pillow_raises_for_a_picture_makes_it_unreadable(tmp_path: Path) -> None:
    content = encoded(palette(), "PNG")
    start = content.index(b"PLTE") - 4
    length = int.from_bytes(content[start : start + 4], "big") + 12
    (tmp_path / "picture").write_bytes(content[:start] + content[start + length :])
    with pytest.raises(ValueError, match=r"^cannot be decoded \(AssertionError\)$"):
        pixels(tmp_path / "picture")


@pytest.mark.parametrize("error", [MemoryError(), Image.DecompressionBombError("too large")])
def test_a_picture_beyond_the_memory_is_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def raises(*_: object, **__: object) -> Never:
        raise error

    picture = Image.new("RGB", (2, 2))
    picture.save(tmp_path / "picture", "PNG")
    monkeypatch.setattr(Image.Image, "convert", raises)
    monkeypatch.setattr(Image, "open", raises)
    match = "^(more pixels than there is memory for|too large)$"
    with pytest.raises(ValueError, match=match):
        Preprocessing(1, None, "crop")(picture)
    with pytest.raises(ValueError, match=match):
        open_picture(tmp_path / "picture")


def test_the_format_is_recognised_by_content_not_suffix(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "picture.jpg", "PNG")
    np.testing.assert_array_equal(pixels(tmp_path / "picture.jpg"), COLOURS)


def test_warnings_are_restored_after_bombs_were_refused() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with bombs_refused():
            warnings.warn("of no use to the reader of a log", stacklevel=1)
        warnings.warn("of use", stacklevel=1)
    assert [str(warning.message) for warning in told] == ["of use"]


WHOLE = [content for content, _ in PICTURES.values()] + [
    encoded(NOISE, "JPEG", exif=exif(6)),
    encoded(NOISE.convert("CMYK"), "JPEG", progressive=True),
    encoded(NOISE, "WEBP", exif=exif(6)),
    b"P3\n1 1\n255\n1 2 3\n",
]
change = st.tuples(st.integers(0, 2**16), st.binary(max_size=4), st.integers(0, 4))


@settings(max_examples=400)
@given(content=st.sampled_from(WHOLE), changes=st.lists(change, min_size=1, max_size=4))
def test_corrupted_pictures_raise_only_value_errors(
    tmp_path_factory: pytest.TempPathFactory,
    content: bytes,
    changes: list[tuple[int, bytes, int]],
) -> None:
    for place, new, length in changes:
        start = place % (len(content) + 1)
        content = content[:start] + new + content[start + length :]
    path = tmp_path_factory.getbasetemp() / "changed"
    path.write_bytes(content)
    try:
        for channels in (1, 3):
            assert pixels(path, channels, (5, 4), "pad").shape[:2] == (5, 4)
    except ValueError as error:
        assert_reason_is_portable(str(error), path.parent)
