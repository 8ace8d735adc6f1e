"""The rule for the pixels of image files, for evaluation and training.

A rule is a text after a folder of images, `imagefolder:PATH@resize=256,crop=224`.  It is part of
the data set's name, so records and cards have it.

For training: `satbench.data.open_tree(spec, rule, workers)` lists the folder of a data set
`imagefolder:PATH[@RULE]`, with `rule` if the text has none.  `tree.picture(row)` is an image in its
own size, for random crops; `tree.view(row)` is the image with the rule applied, as in evaluation,
for held-out images and for `augment` none, flip and crop-flip.  `tree.origin` is the text with the
complete rule.  It belongs in the card, as `Training.dataset`: an evaluation of the model then uses
the same rule for other folders, unless it gets another one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image

from satbench.core.errors import SatbenchError
from satbench.core.limits import whole_number
from satbench.data.image_files.options import PathOptions
from satbench.data.image_files.picture import Bands

Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]

_MOST = 8192  # pixels of a side, far more than any network needs


@dataclass(frozen=True)
class ResizeCrop:
    """Resize, then cut out the middle, as torchvision's Resize and CenterCrop do with files.

    `resize` is the length of the shortest side, or (height, width); None keeps the size.  `crop` is
    the side of the central square that is cut out; None cuts nothing.  A smaller image gets a black
    `border`, or is refused without `border`.  With `upright` the EXIF orientation is applied first.
    """

    resize: int | tuple[int, int] | None = None
    crop: int | None = None
    interpolation: Interpolation = "bicubic"
    border: bool = False
    upright: bool = True

    def __post_init__(self) -> None:
        sides = (*(self.resize if isinstance(self.resize, tuple) else (self.resize,)), self.crop)
        for side in sides:
            if side is not None and not 1 <= side <= _MOST:
                raise SatbenchError(f"expected a side from 1 to {_MOST} pixels, got {side}")
        if self.resize is None or self.crop is None or self.border:
            return
        shortest = min(self.resize) if isinstance(self.resize, tuple) else self.resize
        if shortest < self.crop:
            raise SatbenchError(
                f"expected a crop of at most {shortest} pixels, to which images are resized, got "
                f"{self.crop}"
            )

    @classmethod
    def parse(cls, text: str) -> ResizeCrop:
        """Read `resize=256,crop=224,interpolation=bicubic`, or a word of WORDS, or a side.

        A word may come first and be changed by what follows.  Raises SatbenchError.

        >>> str(ResizeCrop.parse("Res256Crop224"))
        'resize=256,crop=224,interpolation=bilinear'
        """
        options = PathOptions.parse(f"@{text}", WORDS)
        if options.path:
            raise SatbenchError(f"expected a rule for pixels such as {STANDARD}, got {text!r}")
        return cls.of(options)

    @classmethod
    def of(cls, options: PathOptions) -> ResizeCrop:
        """Read the rule among the options of a data set.  Raises SatbenchError."""
        said = {key: value for key, value in options.values.items() if key in KEYS}
        changes = {_FIELDS[key]: _value(key, value) for key, value in said.items()}
        return replace(_rule(options), **changes)  # type: ignore[arg-type]

    @classmethod
    def centre(cls, side: int) -> ResizeCrop:
        """Return the usual rule for a side: resize with a border, and crop the centre.

        From 224 on the border is 32 pixels, as in the SAT code's evaluation; below, it is the same
        share of the image as at 224, because 32 pixels would be half of a small image.
        """
        return cls(side + 32 if side >= 224 else round(side * 256 / 224), side, "bicubic")

    def __str__(self) -> str:
        """Return the canonical text of the rule; `parse` is its inverse."""
        size = self.resize
        shown = {
            "resize": "x".join(map(str, size)) if isinstance(size, tuple) else size,
            "crop": self.crop,
            "interpolation": None if size is None else self.interpolation,
            "border": "black" if self.border else None,
            "exif": None if self.upright else "ignore",
        }
        words = [f"{key}={value}" for key, value in shown.items() if value is not None]
        return ",".join(words) or "none"

    @property
    def shape(self) -> tuple[int, int] | None:
        """The height and width of images after the rule; None if an image keeps its own size."""
        if self.crop is not None:
            return self.crop, self.crop
        return self.resize if isinstance(self.resize, tuple) else None

    def applied(self, picture: Bands, path: Path) -> Bands:
        """Apply the rule to the picture of `path`. Raises SatbenchError if it is too small."""
        return tuple(self._cut(self._resized(band), path) for band in picture)

    def _resized(self, band: Image.Image) -> Image.Image:
        size = self._resized_size(*band.size)
        if size == band.size:
            return band
        resized = band.resize(size, Image.Resampling[self.interpolation.upper()])
        if resized.mode != "F":
            return resized
        # Bicubic and Lanczos overshoot the range; Pillow clips bytes, but not floats.
        return Image.fromarray(np.asarray(resized).clip(0, 1))

    def _cut(self, band: Image.Image, path: Path) -> Image.Image:
        if self.crop is None:
            return band
        if min(band.size) < self.crop and not self.border:
            raise SatbenchError(
                f"expected at least {self.crop}×{self.crop} pixels to cut out, got "
                f"{band.size[0]}×{band.size[1]} from {path}; give resize=N too, or border=black"
            )
        left, upper = (_edge(length, self.crop) for length in band.size)
        return band.crop((left, upper, left + self.crop, upper + self.crop))

    def _resized_size(self, width: int, height: int) -> tuple[int, int]:
        if self.resize is None:
            return width, height
        if isinstance(self.resize, tuple):
            return self.resize[1], self.resize[0]
        # The longer side is rounded down to whole pixels, as in torchvision.
        short, long = sorted((width, height))
        longer = int(self.resize * long / short)
        return (self.resize, longer) if width <= height else (longer, self.resize)


UNTOUCHED = ResizeCrop()
"""Unchanged pixels."""

STANDARD = ResizeCrop(256, 224, "bicubic")
"""The usual ImageNet evaluation (He et al., 2016, arXiv:1512.03385, section 3.4), bicubic."""

WORDS = {
    "none": UNTOUCHED,
    # The transforms of RobustBench 1.1.1 (robustbench/data.py, PREPROCESSINGS).
    "Res256Crop224": ResizeCrop(256, 224, "bilinear"),
    "BicubicRes256Crop224": ResizeCrop(256, 224, "bicubic"),
    "Res224": ResizeCrop((224, 224), None, "bilinear"),
    "Crop288": ResizeCrop(None, 288, border=True),
}
"""Rules by name."""

_FIELDS = {
    "resize": "resize",
    "crop": "crop",
    "interpolation": "interpolation",
    "border": "border",
    "exif": "upright",
}
KEYS = tuple(_FIELDS)
"""The keys of a rule."""

# The second of two choices means true.
_CHOICES = {
    "interpolation": get_args(Interpolation),
    "border": ("none", "black"),
    "exif": ("ignore", "follow"),
}


def _edge(length: int, crop: int) -> int:
    # torchvision's rounding, and its split of a border.
    return round((length - crop) / 2) if length >= crop else -((crop - length) // 2)


def _rule(options: PathOptions) -> ResizeCrop:
    """Return the rule that the options' word names."""
    if (side := options.side) is not None:
        return ResizeCrop((side, side), None, "bilinear")
    known = {name.lower(): rule for name, rule in WORDS.items()}
    return known[options.word.lower()] if options.word else UNTOUCHED


def _value(key: str, value: str) -> object:
    if key == "resize":
        return _size(value)
    if key == "crop":
        return None if value == "none" else _side(value, key)
    choices = _CHOICES[key]
    if value not in choices:
        raise SatbenchError(f"expected {key}={'|'.join(choices)}, got {value!r}")
    return value if key == "interpolation" else value == choices[1]


def _size(value: str) -> int | tuple[int, int] | None:
    if value == "none":
        return None
    height, by, width = value.partition("x")
    side = _side(height, "resize")
    return (side, _side(width, "resize")) if by else side


def _side(value: str, key: str) -> int:
    if (side := whole_number(value)) is None:
        form = "N, HEIGHTxWIDTH or none" if key == "resize" else "N or none"
        raise SatbenchError(f"expected {key}={form}, got {value!r}")
    return side
