"""Any data set at another resolution: NAME@SIDE."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from satbench.data._dataset import Dataset


def resized(data: Dataset, side: int) -> Dataset:
    """Resize all images to side × side, bilinear with antialiasing; the name becomes NAME@SIDE.

    (N, C, H, W) -> (N, C, side, side), of the same type: bytes stay bytes.  Pillow computes bytes
    with integers, so that the pixels and their digest are the same on every machine.
    """
    count, channels = data.images.shape[:2]
    images = np.empty((count, channels, side, side), data.images.dtype)
    for place in np.ndindex(count, channels):
        plane = Image.fromarray(data.images[place])
        images[place] = np.asarray(plane.resize((side, side), Image.Resampling.BILINEAR))
    return replace(data, name=f"{data.name}@{side}", images=images)
