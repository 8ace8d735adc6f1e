"""Pictures of adversarial images: the clean image, the perturbation and the adversarial image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from satbench.core.errors import SatbenchError
from satbench.core.files import atomic_path
from satbench.figures.picture import DrawnFigure, check_can_draw, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACROSS = 8
"""Images in a row."""

_ROWS = ("clean", "perturbation", "adversarial")


@dataclass(frozen=True)
class ModelAnswer:
    """A model's answer to an image: a class, by its name or number, and its probability."""

    said: str
    confidence: float

    def __str__(self) -> str:
        return f"{self.said}\n{self.confidence:.0%}"


@dataclass(frozen=True)
class Broken:
    """An image that an attack broke.  `clean` and `adversarial` are (C, H, W) in [0, 1].

    `before` and `after` are the model's answers to the two; the first is the label.
    """

    index: int
    clean: NDArray[np.float32]
    adversarial: NDArray[np.float32]
    before: ModelAnswer
    after: ModelAnswer


def factor_of(images: Sequence[Broken]) -> float:
    """Return the factor that amplifies perturbations: the largest then spans half the grey range.

    It is rounded down to two digits, so that the text in the figure is exact.  It is at least 1.
    """
    largest = max(float(np.abs(one.adversarial - one.clean).max()) for one in images)
    factor = max(1.0, 0.5 / largest) if largest else 1.0
    digits = 10 ** (int(np.floor(np.log10(factor))) - 1)
    whole = np.floor(factor / digits + 1e-3)  # more than the rounding error of float32
    return float(f"{whole * digits:.6g}")


def amplified(image: Broken, factor: float) -> NDArray[np.float32]:
    """Return a visible perturbation: grey where nothing changed.  (C, H, W) in [0, 1]."""
    shown: NDArray[np.float32] = 0.5 + factor * (image.adversarial - image.clean)
    return shown.clip(0, 1).astype(np.float32)


def images_picture(images: Sequence[Broken], title: str, inches: float = 0.9) -> DrawnFigure:
    """Draw broken images, `ACROSS` in a row: clean, perturbation and adversarial.

    Below each image is the model's answer with its confidence; next to the perturbation is the
    factor that amplifies it.  `inches` is the width of one image.  Raises SatbenchError without an
    image or without matplotlib.
    """
    if not images:
        raise SatbenchError("expected at least one broken image to draw, got none")
    factor = factor_of(images)
    across = min(ACROSS, len(images))
    blocks = -(-len(images) // across)
    size = (0.45 + across * inches, blocks * (3 * inches + 0.95) + 0.35)
    with drawing(size) as picture:
        grid = picture.figure.subplots(3 * blocks, across, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for place, image in enumerate(images):
            block, column = divmod(place, across)
            above = grid[3 * block : 3 * block + 3, column]
            _draw(above[0], image.clean, str(image.before))
            _draw(above[1], amplified(image, factor), "")
            _draw(above[2], image.adversarial, str(image.after))
        for number, axes in enumerate(grid[:, 0]):
            name = _ROWS[number % 3]
            _name_row(axes, f"{name}\n× {factor:g}" if number % 3 == 1 else name)
        picture.figure.suptitle(title, fontsize=8, x=0.01, ha="left")
        return picture


def write_images(images: Sequence[Broken], title: str, folder: Path) -> list[Path]:
    """Write the figure and, for each image, three PNGs in the image's size; return the paths.

    The files are `images.png`, and `INDEX-clean.png`, `INDEX-perturbation.png` and
    `INDEX-adversarial.png`.  A PNG has 256 levels of grey, so these files are only for looking at;
    the exact images are the witnesses.  Raises SatbenchError without an image or without
    matplotlib.
    """
    picture = images_picture(images, title)
    paths = [picture.save(folder / "images.png")]
    factor = factor_of(images)
    for image in images:
        shown = (image.clean, amplified(image, factor), image.adversarial)
        for name, pixels in zip(_ROWS, shown, strict=True):
            paths.append(folder / f"{image.index:05d}-{name}.png")
            _write_png(pixels, paths[-1])
    return paths


def _draw(axes: Axes, pixels: NDArray[np.float32], below: str) -> None:
    axes.imshow(seen_pixels(pixels), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.text(0.5, -0.03, below, transform=axes.transAxes, ha="center", va="top", fontsize=7)


def _name_row(axes: Axes, name: str) -> None:
    axes.text(
        -0.06,
        0.5,
        name,
        transform=axes.transAxes,
        rotation=90,
        ha="right",
        va="center",
        fontsize=8,
        multialignment="center",
    )


def seen_pixels(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return pixels for matplotlib: three channels as colours, otherwise their mean."""
    seen: NDArray[np.float32] = pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels.mean(0)
    return seen


def _write_png(pixels: NDArray[np.float32], path: Path) -> None:
    check_can_draw()
    from PIL import Image  # a dependency of matplotlib

    with atomic_path(path) as temporary:
        Image.fromarray(np.rint(255 * seen_pixels(pixels)).astype(np.uint8)).save(temporary, "PNG")
