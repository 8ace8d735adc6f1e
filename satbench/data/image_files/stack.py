"""Image files as one array."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from satbench.core.errors import SatbenchError
from satbench.data.image_files.picture import Bands, read_picture
from satbench.data.image_files.pixels import ResizeCrop

Source = tuple[Path, bytes | None]
"""The path or name of an image, and its bytes if they were already read."""


def stacked(
    sources: Iterable[Source], count: int, rule: ResizeCrop, deep: bool
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Read `count` ≥ 1 images. -> (N, 3, H, W): bytes, or with `deep` floats in [0, 1].

    Raises SatbenchError, naming the image, for one that is refused or has another size.
    """
    images: NDArray[np.generic] = np.empty(0)
    for row, (path, raw) in enumerate(sources):
        bands = rule.applied(read_picture(path, rule.upright, raw), path)
        if row == 0:
            width, height = bands[0].size
            images = np.empty((count, 3, height, width), np.float32 if deep else np.uint8)
        check_size(bands[0], (images.shape[3], images.shape[2]), path)
        images[row] = _floats(bands) if deep else np.asarray(bands[0]).transpose(2, 0, 1)
    return cast("NDArray[np.uint8] | NDArray[np.float32]", images)


def check_size(image: Image.Image, size: tuple[int, int], path: Path) -> None:
    """Raise SatbenchError unless `image` has the (width, height) of the others."""
    if image.size != size:
        raise SatbenchError(
            f"expected all images {size[0]}×{size[1]} as the first one is, got "
            f"{image.size[0]}×{image.size[1]} from {path}; give a rule that makes them one size, "
            "such as @resize=256,crop=224"
        )


def _floats(bands: Bands) -> NDArray[np.float32]:
    if len(bands) == 1:
        return np.asarray(bands[0]).transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    return np.stack([np.asarray(band) for band in bands])
