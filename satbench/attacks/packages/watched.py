"""A model that records, for each image, the nearest point that it got wrong.

So a search gives more than the one point that it returns, and a bisection along lines need not
record its points.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from satbench.core.threat import Threat
from satbench.engine.ball import size
from satbench.engine.contract import Model, NoiseSource

DRAWS = 100
"""Noise images tried as starting points while an image has none (Foolbox: 1,000)."""

BISECTIONS = 10
"""Steps along the line from an image to a starting point (Foolbox: 50 equal ones)."""


class EnoughError(Exception):
    """Every image is broken within eps: the search may end."""


class Watched(nn.Module):
    """A model that records the nearest point that it got wrong for each of N images.

    An image's point no longer changes once it is within `enough`, so that it does not depend on how
    long the search continues for other images.  When all points are, a call raises `EnoughError`.
    """

    def __init__(self, model: Model, x: Tensor, y: Tensor, threat: Threat, enough: float) -> None:
        super().__init__()
        self.eval()
        self.ask = partial(model)  # no submodule: its mode and device are not ours to set
        self.x, self.y, self.threat, self.enough = x, y, threat, enough
        self.best = x.clone()
        self.distance = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)

    def only(self, chosen: Tensor) -> Watched:
        """Return a watched model for some of the images, with their records."""
        twin = Watched(self.ask, self.x[chosen], self.y[chosen], self.threat, self.enough)
        twin.best, twin.distance = self.best[chosen], self.distance[chosen]
        return twin

    def forward(self, points: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K)."""
        logits = self.ask(points)
        with torch.no_grad():
            wrong = logits.argmax(1) != self.y
            rows = (wrong & (self.distance > self.enough)).nonzero().flatten()
            if len(rows):
                self._note(rows, points.detach()[rows])
        return logits

    def _note(self, rows: Tensor, points: Tensor) -> None:
        # Rounding can move points slightly out of [0, 1]; comparisons with NaN are false.
        inside = points.clamp(0, 1)
        sizes = size(inside.double() - self.x[rows].double(), self.threat)
        closer = sizes < self.distance[rows]
        self.best[rows[closer]] = inside[closer]
        self.distance[rows[closer]] = sizes[closer]
        if bool((self.distance <= self.enough).all()):
            raise EnoughError


@dataclass(frozen=True)
class Draws:
    """The noise of some rows of a batch."""

    noise: NoiseSource
    rows: Tensor

    def image(self, like: Tensor, draw: int) -> Tensor:
        """Return uniform noise in [0, 1] from each image's own stream."""
        drawn = torch.from_numpy(self.noise.uniform(tuple(like.shape[1:]), draw))
        return ((drawn.to(like.device, like.dtype) + 1) / 2)[self.rows]


def look_for_starts(watched: Watched, draws: Draws) -> None:
    """Try distant points, and points on the lines to them, until each image has a wrong one.

    They are the nearest image of the batch with another label, noise, white and black; then up to
    `DRAWS` more noise images while some image still has no point.
    """
    x = watched.x
    fixed = [_others(x, watched.y), draws.image(x, 0), torch.ones_like(x), torch.zeros_like(x)]
    for target in fixed:
        _bisect(watched, target)
    for draw in range(1, DRAWS):
        if bool(watched.distance.isfinite().all()):
            return
        _bisect(watched, draws.image(x, draw))


def _bisect(watched: Watched, target: Tensor) -> None:
    if not bool(_wrong(watched, target).any()):
        return
    low, high = torch.zeros_like(watched.distance), torch.ones_like(watched.distance)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        share = _rows(middle.to(target.dtype), target)
        wrong = _wrong(watched, watched.x + share * (target - watched.x))
        low, high = torch.where(wrong, low, middle), torch.where(wrong, middle, high)


def _wrong(watched: Watched, points: Tensor) -> Tensor:
    with torch.no_grad():
        wrong: Tensor = watched(points).argmax(1) != watched.y
    return wrong


def _others(x: Tensor, y: Tensor) -> Tensor:
    """Return for each image the nearest one, in L2, with another label; itself if there is none."""
    apart = torch.cdist(x.flatten(1), x.flatten(1))
    apart = apart.masked_fill(y[:, None] == y[None, :], torch.inf)
    nearest = torch.where(
        apart.isinf().all(1), torch.arange(len(x), device=x.device), apart.argmin(1)
    )
    return x[nearest]


def _rows(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))
