"""The class of data sets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray

from satbench.core.digests import digest_arrays
from satbench.core.errors import SatbenchError
from satbench.core.noise import generator_for

USER = "user"
"""The split of the user's own images: they cannot be found again by only their name."""


@dataclass(frozen=True)
class Dataset:
    """Ordered images with labels.

    `images` is (N, C, H, W), uint8 in 0…255 or float32 in [0, 1]; `labels` is (N,) int64 in
    0…classes-1.  An image's place is its index, which keys its noise.  `population` is 0 for images
    in the order of their split; else they are the first of a random order of that many.  With
    `more_classes` the number of classes is only what the labels need, and a model may have more.
    `origin` is the text with which `load_dataset` finds the split again; empty for images that are
    only in memory.
    """

    name: str
    split: str
    images: NDArray[np.uint8] | NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: int
    population: int = 0
    more_classes: bool = False
    origin: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of one image."""
        return cast(tuple[int, int, int], self.images.shape[1:])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of pixels and labels, as stored."""
        return digest_arrays(self.images, self.labels)

    def first(self, n: int) -> Dataset:
        """Return the first n images. Raises SatbenchError if there are fewer, or n is below 1."""
        if n < 1:
            raise SatbenchError(f"expected at least 1 example, got {n}")
        if n > len(self):
            raise SatbenchError(
                f"expected at most {len(self)} examples, all that {self.name} ({self.split}) has, "
                f"got {n}"
            )
        return self.taken(slice(n))

    def shuffled(self) -> Dataset:
        """Return the same images in a random order that depends only on the digest."""
        order = generator_for("order of images", self.digest).permutation(len(self))
        return replace(self.taken(order), population=len(self))

    def taken(self, rows: NDArray[np.int64] | slice) -> Dataset:
        """Return the images of some rows, in that order."""
        return replace(self, images=self.images[rows], labels=self.labels[rows])

    def pixels(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return images as float32 in [0, 1].  (B,) indices -> (B, C, H, W)."""
        chosen = self.images[indices]
        if chosen.dtype == np.uint8:
            return chosen.astype(np.float32) / np.float32(255)
        return chosen.astype(np.float32, copy=False)
