"""Small networks for the tests of certification."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from satbench.certification.bounding.region import Region
from satbench.certification.bounding.rounding import Roundoff
from satbench.networks.build import build_activation

EXACT = Roundoff(2.0**-53)


def perceptron(activation: str, *widths: int, seed: int = 0) -> nn.Module:
    """Linear layers with an activation between any two, for 1×1×n images, in float64."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), build_activation(activation)()]
    return nn.Sequential(*layers[:-1]).double().eval().requires_grad_(False)


def around(x: Tensor, eps: float, norm: str = "linf") -> Region:
    return Region.around(x, norm, eps)  # type: ignore[arg-type]


def points(region: Region, n: int, seed: int = 0) -> Tensor:
    """Random points of a region around one image, corners among them.  (n, C, H, W)."""
    drawn = torch.Generator().manual_seed(seed)
    shape = (n, *region.centre.shape[1:])
    delta = 2 * torch.rand(shape, generator=drawn, dtype=torch.float64) - 1
    delta[::2] = delta[::2].sign()
    if region.norm == "linf":
        delta = delta * region.radius
    else:
        order = 2 if region.norm == "l2" else 1
        if region.norm == "l1":
            delta = delta.pow(9)
        length = torch.linalg.vector_norm(delta.flatten(1), ord=order, dim=1)
        delta = delta * (region.radius / length).view(-1, 1, 1, 1)
    return (region.centre + delta * (1 - 1e-9)).clamp(0, 1)
