"""Bars: computed grey images of noise with a bright row; the class is the row's place.  Our own."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from satbench.data._dataset import Dataset

_SIZES = {"train": 600, "test": 200}
_CLASSES, _SIDE = 4, 16


def load(folder: Path, split: Literal["test", "train"], n_examples: int | None = None) -> Dataset:
    """Compute a split: 600 images to train on, 200 to test on, 16×16.  Nothing is read."""
    draw = np.random.default_rng([2026, len(split)])
    labels = draw.integers(0, _CLASSES, _SIZES[split])
    images = draw.integers(0, 128, (len(labels), 1, _SIDE, _SIDE))
    images[np.arange(len(labels)), 0, 2 + 4 * labels] += 127
    return Dataset("bars", split, images.astype(np.uint8), labels.astype(np.int64), _CLASSES)
