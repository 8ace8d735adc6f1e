"""Noise that belongs to an image: it depends only on the seed and the names given here.

The stream of an image is Philox (Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2,
3") keyed with the SHA-256 of (seed, purpose, restart, image index).  Batch size, order, sharding,
resuming and the device have no influence.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Noise:
    """The noise of a batch of images.

    `purpose` is the user of the noise (an attack's name); `indices` are the images' places in the
    data set, one per row of the batch; `block` is the number of their block, for attacks whose code
    draws for a whole block at once.
    """

    seed: int
    purpose: str
    indices: tuple[int, ...]
    block: int = 0

    def uniform(self, shape: tuple[int, ...], restart: int = 0) -> NDArray[np.float32]:
        """Draw from U(-1, 1).  The shape of one image (…) -> (B, …) float32."""
        draws = [
            2 * self._generator(i, restart).random(shape, np.float32) - 1 for i in self.indices
        ]
        return np.stack(draws) if draws else np.empty((0, *shape), np.float32)

    def normal(self, shape: tuple[int, ...], restart: int = 0) -> NDArray[np.float32]:
        """Draw from N(0, 1).  The shape of one image (…) -> (B, …) float32."""
        # A separate stream: L2 starts draw a direction and a radius, which must be independent.
        draws = [
            generator_for(self.seed, self.purpose, restart, i, "normal").standard_normal(
                shape, np.float32
            )
            for i in self.indices
        ]
        return np.stack(draws) if draws else np.empty((0, *shape), np.float32)

    def block_seed(self, restart: int = 0) -> int:
        """Return a 31-bit seed that is a function of (seed, purpose, restart, block)."""
        generator = generator_for(self.seed, self.purpose, "block", restart, self.block)
        return int(generator.integers(2**31))

    def _generator(self, index: int, restart: int) -> np.random.Generator:
        return generator_for(self.seed, self.purpose, restart, index)


def generator_for(*parts: int | str) -> np.random.Generator:
    """Return a generator whose stream depends only on `parts`."""
    return np.random.Generator(np.random.Philox(key=key_of(*parts)))


def key_of(*parts: int | str) -> int:
    """Return the 128-bit key of the stream that belongs to `parts`."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
