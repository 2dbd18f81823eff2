"""InputSpec: what a picture becomes before the model sees it. Splits and models carry it."""

from dataclasses import asdict, dataclass
from typing import Any

from stages.formats.metadata import record

FITS = ("crop", "pad")
FEATURES = ("pixels", "gradients")


@dataclass(frozen=True)
class InputSpec:
    """An image of `channels` x `height` x `width` pixels, and the features computed from it.

    channels: 1 (grey) or 3 (RGB).  fit: `crop` or `pad`, for pictures of another shape.  deskew:
    whether the image is sheared upright first.  features: `pixels` or `gradients`.
    """

    channels: int
    height: int
    width: int
    fit: str = "crop"
    deskew: bool = False
    features: str = "pixels"

    def __post_init__(self) -> None:
        if type(self.channels) is not int or self.channels not in (1, 3):
            raise ValueError(f"channels: found {self.channels!r:.200}; expected 1 or 3")
        for name, side in (("height", self.height), ("width", self.width)):
            if type(side) is not int or side < 1:
                raise ValueError(f"{name}: found {side!r:.200}; expected pixels, 1 or more")
        if self.fit not in FITS:
            raise ValueError(f"fit: found {self.fit!r:.200}; expected {' or '.join(FITS)}")
        if type(self.deskew) is not bool:
            raise ValueError(f"deskew: found {self.deskew!r:.200}; expected true or false")
        if self.features not in FEATURES:
            raise ValueError(
                f"features: found {self.features!r:.200}; expected {' or '.join(FEATURES)}"
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    @property
    def shows_images(self) -> bool:
        """Whether the features are the image itself, pixel by pixel."""
        return self.features == "pixels" and not self.deskew

    def to_json(self) -> dict[str, Any]:
        """The object that `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, about: Any) -> "InputSpec":
        """Read what `to_json` returned; raises ValueError if `about` is anything else."""
        return record(cls, "input", about)
