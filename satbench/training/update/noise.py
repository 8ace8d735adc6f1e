"""The noise of the training attack, as a function of the position in the run and in the batch.

A step has one stream of uniform numbers, Philox 4×64-10 (Salmon et al., 2011, "Parallel random
numbers: as easy as 1, 2, 3"), which the images of the batch use in order.  Philox is a function of
a counter, so a process that computes a part of a batch starts to draw at the start of that part.
It draws no unneeded numbers, and the noise of an image is the same in any part of the batch and on
any device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from satbench.core.noise import generator_for, key_of
from satbench.training.update.philox import NUMBERS, uniform_numbers


@dataclass(frozen=True)
class StepNoise:
    """The noise of the attack in one training step.

    `first` and `rows` are the part of the batch that is computed here (None: all that follow).
    """

    seed: int
    epoch: int
    step: int
    batch: int
    first: int = 0
    rows: int | None = None

    def uniform(self, shape: tuple[int, ...], restart: int = 0) -> NDArray[np.float32]:
        """Draw from U(-1, 1).  (C, H, W) -> (B, C, H, W)."""
        start, drawn = self.first * math.prod(shape), np.empty((self._rows, *shape), np.float32)
        philox = np.random.Philox(key=key_of(*self._key(restart)))
        philox.advance(start // NUMBERS)
        generator = np.random.Generator(philox)
        generator.random(start % NUMBERS, np.float32)
        generator.random(dtype=np.float32, out=drawn)
        drawn *= 2
        drawn -= 1
        return drawn

    def uniform_on(self, shape: tuple[int, ...], device: torch.device, restart: int = 0) -> Tensor:
        """Draw the same numbers on a device.  (C, H, W) -> (B, C, H, W)."""
        if device.type == "cpu":
            return torch.from_numpy(self.uniform(shape, restart))
        size = math.prod(shape)
        key = key_of(*self._key(restart))
        drawn = uniform_numbers(key, self.first * size, self._rows * size, device)
        return (2 * drawn - 1).view(self._rows, *shape)

    def normal(self, shape: tuple[int, ...], restart: int = 0) -> NDArray[np.float32]:
        """Draw from N(0, 1).  (C, H, W) -> (B, C, H, W)."""
        # A normal number uses a random count of uniform ones, so each image has its own counter.
        key, drawn = (
            key_of(*self._key(restart), "normal"),
            np.empty((self._rows, *shape), np.float32),
        )
        for place, row in enumerate(drawn, start=self.first):
            philox = np.random.Philox(key=key, counter=np.array([0, 0, place, 0], np.uint64))
            np.random.Generator(philox).standard_normal(dtype=np.float32, out=row)
        return drawn

    def block_seed(self, restart: int = 0) -> int:
        """Return a 31-bit seed."""
        return int(generator_for(*self._key(restart), "block").integers(2**31))

    @property
    def _rows(self) -> int:
        left = self.batch - self.first
        return left if self.rows is None else min(self.rows, left)

    def _key(self, restart: int) -> tuple[int | str, ...]:
        return (self.seed, "training attack", self.epoch, self.step, restart)
