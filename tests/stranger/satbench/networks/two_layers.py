"""A net of two convolutions for grey images.  Our own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from satbench.core.errors import SatbenchError


@dataclass(frozen=True)
class TwoLayers:
    """Two strided convolutions with batch-norm and activation, average pooling, a linear layer."""

    width: int = 4

    def __post_init__(self) -> None:
        if self.width < 1:
            raise SatbenchError(f"two-layers: expected a width of 1 or more, got {self.width}")

    def __call__(self, activation: Callable[[], nn.Module], classes: int) -> nn.Module:
        """Build the net: (B, 1, H, W) in [0, 1] -> (B, classes) logits."""
        w = self.width
        return nn.Sequential(
            nn.Conv2d(1, w, 3, 2, 1, bias=False),
            nn.BatchNorm2d(w),
            activation(),
            nn.Conv2d(w, 2 * w, 3, 2, 1, bias=False),
            nn.BatchNorm2d(2 * w),
            activation(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2 * w, classes),
        )
