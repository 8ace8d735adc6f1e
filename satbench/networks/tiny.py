"""A small convolutional net for 28×28 grey images, trained in minutes on a CPU.  Our own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from satbench.core.errors import SatbenchError
from satbench.networks.normalize import Normalize

# Mean and standard deviation of the pixels of Fashion-MNIST's training set.
_MEAN, _STD = (0.286,), (0.353,)


@dataclass(frozen=True)
class Tiny:
    """Four convolutions with batch-norm and activation, global average pooling, one linear layer.

    Channels: width, 2 width, 4 width, 4 width; the first and the third convolution halve the
    resolution.  At width 8: 15,682 parameters and 0.94 M multiply-adds per 28×28 image.
    """

    width: int = 8

    def __post_init__(self) -> None:
        if self.width < 1:
            raise SatbenchError(f"tiny: expected a width of 1 or more, got {self.width}")

    def __call__(self, activation: Callable[[], nn.Module], classes: int) -> nn.Module:
        """Build the net: (B, 1, H, W) in [0, 1] -> (B, classes) logits."""
        w = self.width
        return nn.Sequential(
            Normalize(_MEAN, _STD),
            *_block(1, w, 5, 2, activation),
            *_block(w, 2 * w, 3, 1, activation),
            *_block(2 * w, 4 * w, 3, 2, activation),
            *_block(4 * w, 4 * w, 3, 1, activation),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4 * w, classes),
        )


def _block(
    inputs: int, outputs: int, kernel: int, stride: int, activation: Callable[[], nn.Module]
) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        activation(),
    )
