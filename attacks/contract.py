"""What an attack is.  Searching is its whole job: it never says whether it won (the judge does)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from satbench.core.threat import Threat

Model = Callable[[Tensor], Tensor]
"""A classifier in pixel space: (B, C, H, W) float32 in [0, 1] -> (B, K) logits."""


class NoiseSource(Protocol):
    """Random numbers for a batch, one row per image.  `satbench.core.noise.Noise` is one."""

    def uniform(self, shape: tuple[int, ...], restart: int = 0) -> NDArray[np.float32]:
        """Draw from U(-1, 1).  (C, H, W) -> (B, C, H, W)."""
        ...

    def normal(self, shape: tuple[int, ...], restart: int = 0) -> NDArray[np.float32]:
        """Draw from N(0, 1).  (C, H, W) -> (B, C, H, W)."""
        ...

    def block_seed(self, restart: int = 0) -> int:
        """Return a seed for code that draws for the whole batch at once."""
        ...


class Attack(Protocol):
    """A frozen dataclass whose fields are the attack's parameters.

    It holds no model, device, seed or state.
    """

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat`.

        (B, C, H, W) in [0, 1], (B,) labels -> (B, C, H, W).  `x` and `y` are left as they are.
        """
        ...
