"""Square from the best points of earlier searches: the gradient-free part of the fast suite.

It does not use the model's gradients.  `square-flagged` looks for images with misleading gradients
(`satbench.diagnosis.signs`) and attacks only these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from satbench.attacks.score.square import Squares, square_search
from satbench.core.limits import check_at_least_one
from satbench.core.threat import Threat
from satbench.diagnosis.signs import MASKED, examine
from satbench.engine.contract import Found, Hints, Informed, Model, NoiseOfSome, NoiseSource


@dataclass(frozen=True)
class SquareFromBest(Informed):
    """Square from the best point of each image; every image has its own squares.

    `queries` is the number of forwards for each image; `first_share` the share of the pixels that
    the first squares cover.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    uses_gradients: ClassVar[bool] = False

    queries: int = 400
    first_share: float = 0.2

    def __post_init__(self) -> None:
        check_at_least_one("square-from-best", self)

    def follow(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        noise: NoiseSource,
        hints: Hints,
    ) -> Found:
        """Search from the best points so far."""
        squares = Squares(self.queries, self.first_share)
        return Found(*square_search(model, x, y, hints.points, threat, squares, noise))


@dataclass(frozen=True)
class SquareFlagged(Informed):
    """Square from the best points, only on images with signs of misleading gradients.

    To examine an image costs 3 forwards and 2 backwards; `queries` are as many as AutoAttack's.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")

    queries: int = 5000
    first_share: float = 0.2

    def __post_init__(self) -> None:
        check_at_least_one("square-flagged", self)

    def follow(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        noise: NoiseSource,
        hints: Hints,
    ) -> Found:
        """Search from the best points so far; an image without a sign keeps its best point."""
        signs = examine(model, x, y, threat)
        flagged = torch.stack([signs[name] for name in MASKED]).any(0)
        x_adv, margins = hints.points.clone(), hints.margins.clone()
        if flagged.any():
            squares = Squares(self.queries, self.first_share)
            x_adv[flagged], margins[flagged] = square_search(
                model,
                x[flagged],
                y[flagged],
                x_adv[flagged],
                threat,
                squares,
                NoiseOfSome(noise, flagged.cpu().numpy()),
            )
        return Found(x_adv, margins)
