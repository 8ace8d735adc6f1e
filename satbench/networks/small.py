"""A residual net for 28×28 grey images, larger than `tiny`, but trainable on a CPU. Our own."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from satbench.core.limits import check_at_least_one
from satbench.networks.blocks import (
    Activation,
    BasicBlock,
    convolution,
    stage,
    zero_last_gammas,
)
from satbench.networks.normalize import normalize


@dataclass(frozen=True)
class Small:
    """A 5×5 convolution that halves the resolution, three residual stages, pooling, a linear layer.

    The stages have `blocks` blocks each, of width, 2 width and 4 width channels at 14×14, 7×7 and
    4×4: like the ResNets of He et al., 2016, arXiv:1512.03385, section 4.2, for CIFAR-10, but at
    half the resolution.
    """

    width: int = 16
    blocks: int = 3

    def __post_init__(self) -> None:
        check_at_least_one("small", self, "width", "blocks")

    def __call__(self, activation: Activation, classes: int) -> nn.Module:
        """Build the net: (B, 1, H, W) in [0, 1] -> (B, classes) logits."""
        w, n = self.width, self.blocks
        net = nn.Sequential(
            normalize("fashion-mnist"),
            convolution(1, w, 5, 2),
            nn.BatchNorm2d(w),
            activation(),
            *stage(BasicBlock, w, w, n, 1, activation),
            *stage(BasicBlock, w, 2 * w, n, 2, activation),
            *stage(BasicBlock, 2 * w, 4 * w, n, 2, activation),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4 * w, classes),
        )
        zero_last_gammas(net)
        return net
