"""Models with known or random answers, for the fixtures of the same names."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Mean(nn.Module):
    """Two classes by the mean pixel: logits (-s, s) with s = mean - 1/2.

    So the Linf distance of an image to the boundary is |mean - 1/2|, in L2 √d times as much.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        score = self.scale * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-score, score], 1)


def random_net(channels: int = 1, classes: int = 5, seed: int = 0) -> nn.Module:
    """Make a random convolutional net with batch norm, in eval mode, frozen."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, classes),
        )
        x = torch.rand(64, channels, 8, 8)
        net(x)  # gives the batch norm its statistics
        with torch.no_grad():
            net[-1].bias -= net.eval()(x).mean(0)  # so that every class is predicted
    return net.requires_grad_(False)
