"""Minimum-norm attacks: the smallest perturbation that breaks an image, and its distance.

One run gives an image's place on the whole curve of robust accuracy against eps.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from satbench.core.threat import Threat
from satbench.engine.ball import size
from satbench.engine.contract import Model, NoiseSource
from satbench.engine.judge import predict

FURTHER = (1.0, 1.0001, 1.001, 1.01, 1.05)
"""How far along its own direction a point is pushed until the judge confirms it.

A nearest point is on the decision boundary.  A search on a copy of the model, which rounds
differently, may stop slightly before it.  The reported distance is that of the confirmed point.
"""


@runtime_checkable
class MinimumNorm(Protocol):
    """An attack that looks for the smallest perturbation, independently of eps.

    Its trait `norms` lists the norms that it can minimise.
    """

    def nearest(self, model: Model, x: Tensor, y: Tensor, norm: str, noise: NoiseSource) -> Tensor:
        """Return the nearest points found that `model` gets wrong, in [0, 1]; `x` if there is none.

        (B, C, H, W) in [0, 1], (B,) labels -> (B, C, H, W).
        """
        ...


def minimum_distances(
    judged: nn.Module,
    searcher: Model,
    x: Tensor,
    y: Tensor,
    attack: MinimumNorm,
    norm: str,
    noise: NoiseSource,
) -> tuple[Tensor, Tensor]:
    """Return the nearest points that the judge confirms, and their distances.

    (B, C, H, W), (B,) labels -> (B, C, H, W), (B,) float64 in pixel units.  The distance is 0 for
    an image that is wrong without an attack and infinite if no point was confirmed; `x` is returned
    for both.  `judged` is the untouched model in eval mode; `searcher`, which may be a fast copy,
    is the model that the attack uses.  Raises SatbenchError for a norm that the attack does not
    support, and NonFiniteLogitsError.
    """
    points = x.clone()
    right = predict(judged, x) == y
    distances = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    distances[right] = torch.inf
    delta = attack.nearest(searcher, x, y, norm, noise) - x
    left = (right & delta.flatten(1).any(1)).nonzero().flatten()
    for factor in FURTHER:
        if not len(left):
            break
        x_adv = (x[left] + factor * delta[left]).clamp(0, 1)
        wrong = predict(judged, x_adv) != y[left]
        rows = left[wrong]
        points[rows] = x_adv[wrong]
        distances[rows] = size(x_adv[wrong].double() - x[rows].double(), Threat.of(norm, "1"))
        left = left[~wrong]
    return points, distances
