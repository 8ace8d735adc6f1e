"""The set of images that an adversary may choose, and bounds of linear functions on it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from satbench.core.threat import Norm, Threat
from satbench.engine.judge import TOLERANCE

_OUTWARD = 2.0**-48  # far above the rounding of a pixel of [0, 1] in float64


@dataclass(frozen=True)
class Region:
    """Images within `radius` of each centre in `norm`, all pixels in [0, 1].

    `centre`, `low` and `high` are (B, C, H, W); the box [low, high] contains the region.
    """

    norm: Norm
    radius: float
    centre: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def around(cls, x: Tensor, norm: Norm, radius: float) -> Region:
        """Return the region around images (B, C, H, W), in the type of `x`."""
        reach = radius + _OUTWARD
        return cls(norm, reach, x, (x - reach).clamp_min(0), (x + reach).clamp_max(1))

    @classmethod
    def judged(cls, x: Tensor, threat: Threat) -> Region:
        """Return the region that the judge allows: eps plus the judge's tolerance."""
        return cls.around(x, threat.norm, threat.radius + TOLERANCE[threat.norm])

    @property
    def size(self) -> Tensor:
        """An upper bound on the absolute values of a pixel and of its change. (B, C, H, W)."""
        return self.centre.abs() + self.radius

    def least(self, a: Tensor) -> Tensor:
        """Return a lower bound on Σ a x over the region, apart from rounding.

        (B, R, C, H, W) -> (B, R).
        """
        low, high, centre = (one.unsqueeze(1) for one in (self.low, self.high, self.centre))
        boxed = (a.clamp_min(0) * low + a.clamp_max(0) * high).flatten(2).sum(2)
        if self.norm == "linf":
            return boxed
        order = 2 if self.norm == "l2" else torch.inf
        length = torch.linalg.vector_norm(a.flatten(2), ord=order, dim=2)
        return boxed.maximum((a * centre).flatten(2).sum(2) - self.radius * length)
