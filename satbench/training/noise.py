"""The attacker's noise in training: a function of the place in the run and in the batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from satbench.core.noise import generator_for


@dataclass(frozen=True)
class StepNoise:
    """The attacker's noise in one training step: one stream a step, drawn for the whole batch.

    `first` and `rows` name the part of the batch that is computed here (None: all that follow), so
    that the noise of an image is the same however a batch is split.
    """

    seed: int
    epoch: int
    step: int
    batch: int
    first: int = 0
    rows: int | None = None

    def uniform(self, shape: tuple[int, ...], restart: int = 0) -> NDArray[np.float32]:
        """Draw from U(-1, 1).  (C, H, W) -> (B, C, H, W)."""
        generator = generator_for(*self._key(restart))
        return 2 * self._part(generator.random((self.batch, *shape), np.float32)) - 1

    def normal(self, shape: tuple[int, ...], restart: int = 0) -> NDArray[np.float32]:
        """Draw from N(0, 1).  (C, H, W) -> (B, C, H, W)."""
        generator = generator_for(*self._key(restart), "normal")
        return self._part(generator.standard_normal((self.batch, *shape), np.float32))

    def block_seed(self, restart: int = 0) -> int:
        """Return a 31-bit seed."""
        return int(generator_for(*self._key(restart), "block").integers(2**31))

    def _part(self, drawn: NDArray[np.float32]) -> NDArray[np.float32]:
        return drawn[self.first :][: self.rows]

    def _key(self, restart: int) -> tuple[int | str, ...]:
        return (self.seed, "training attack", self.epoch, self.step, restart)
