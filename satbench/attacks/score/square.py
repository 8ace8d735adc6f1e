"""Square: random search with squares that uses only scores (Andriushchenko et al., 2020).

arXiv:1912.00049, algorithms 1 to 3; in L1 as Croce & Hein, 2021 (arXiv:2103.01208).  Each query
proposes one change of the best point so far, and keeps it if it lowers the margin, the label's
logit minus the largest other.

`Square` is AutoAttack's: all images of a block share the position and, in Linf, the colours of each
square.  With the same seed it makes the queries of pyautoattack in the same order.  Two differences
change no verdict: in Linf, an image of which a square changes no pixel is not evaluated, and no
forward checks the result.

`square_search` starts from a given point, and every image draws its own squares.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from satbench.attacks.gradient.losses import label_margin
from satbench.attacks.score.square_windows import (
    bump,
    into_ball,
    own_windows,
    shared_windows,
    transfer,
)
from satbench.core.errors import SatbenchError
from satbench.core.limits import check_at_least_one
from satbench.core.specs import later
from satbench.core.threat import Threat
from satbench.engine.contract import Model, NoiseSource, of_any_batch

_FIRST_SHARE = 0.8  # AutoAttack's p: the share of the pixels that the first squares cover
# The share is halved after these queries of 10,000, as in the authors' code.  Large squares lower
# the margin fast at first; later only small changes still lower it.  AutoAttack does not rescale
# these numbers to its 5,000 queries, so its squares never reach the last two sizes.
_HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)

Propose = Callable[[int, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(query, images' rows in the batch (A,), x, best (A, C, H, W)) -> the rows of these A that get a
proposal, (P,), and the proposals, (P, C, H, W)."""


@dataclass(frozen=True)
class Square:
    """Square as AutoAttack runs it, with at most `queries` queries an image after the first.

    The data set is cut into blocks of `block` images by index, whose survivors share their draws.
    `schedule` says when the squares shrink.  `fixed`, as in AutoAttack: after the same numbers of
    queries for any `queries`, those for 10,000.  `rescaled`, as in the authors' code: after the
    same shares of `queries`, which breaks more images if there are few queries (docs/attacks.md).
    """

    uses_gradients: ClassVar[bool] = False

    queries: int = 5000
    block: int = 250
    schedule: Literal["fixed", "rescaled"] = later("fixed")

    def __post_init__(self) -> None:
        check_at_least_one("square", self, "queries", "block")

    @of_any_batch
    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat`.  (B, C, H, W) in [0, 1], (B,) labels -> (B, C, H, W).

        An image that is still right is returned unchanged.  Differs from AutoAttack: a tie between
        the label and another class ends the search only if argmax gives the other class.
        """
        x_adv = x.clone()
        with torch.no_grad():
            # Noise is drawn for the images that the model gets right, as in the package.
            rows = (model(x).argmax(1) == y).nonzero()[:, 0]
            if not len(rows):
                return x_adv
            draw = torch.Generator().manual_seed(noise.block_seed())
            prepare = _shared_squares if threat.norm == "linf" else _shared_transfers
            sides = self._sides(x.shape[1:], threat)
            start, propose = prepare(x[rows], threat, sides, draw)
            best, margin = _climb(model, x[rows], y[rows], start, self.queries, propose)
        fell = margin <= 0
        x_adv[rows[fell]] = best[fell].clamp(0, 1)  # L1 may leave the box by rounding
        return x_adv

    def _sides(self, shape: torch.Size, threat: Threat) -> list[int]:
        """Return the side of the square of each query."""
        least = 1 if threat.norm == "linf" else 3
        places = range(self.queries) if self.schedule == "fixed" else _rescaled(self.queries)
        return [_side(place, shape, _FIRST_SHARE, least) for place in places]


@dataclass(frozen=True)
class Squares:
    """The settings of `square_search`.

    `first_share` in (0, 1] is the share of the pixels that the first squares cover; it is halved
    nine times over the `queries`, as in the paper over 10,000.  `restart` numbers the random draws.
    """

    queries: int
    first_share: float = _FIRST_SHARE
    restart: int = 0

    def __post_init__(self) -> None:
        if self.queries < 1 or not 0 < self.first_share <= 1:
            raise SatbenchError(
                "expected queries of 1 or more and first_share in (0, 1], "
                f"got {self.queries} and {self.first_share:g}"
            )


def square_search(
    model: Model,
    x: Tensor,
    y: Tensor,
    start: Tensor,
    threat: Threat,
    squares: Squares,
    noise: NoiseSource,
) -> tuple[Tensor, Tensor]:
    """Search with squares from `start`, points within `threat` around `x`.

    Every image draws its own squares from its own noise, so neither its result nor its cost depends
    on its batch, apart from the model's rounding.  An image leaves when its margin is 0 or less; if
    that is so at the start, it costs one forward.

    (B, C, H, W) in [0, 1], (B,) labels, (B, C, H, W) -> the points, (B, C, H, W), and their
    margins, (B,): the label's logit minus the largest other.  A margin is never above the start's.
    """
    prepare = _own_squares if threat.norm == "linf" else _own_transfers
    with torch.no_grad():
        propose = prepare(x, threat, squares, noise)
        best, margin = _climb(model, x, y, start, squares.queries, propose)
    return best.clamp(0, 1), margin


def _climb(
    model: Model, x: Tensor, y: Tensor, start: Tensor, queries: int, propose: Propose
) -> tuple[Tensor, Tensor]:
    """Keep each proposal that lowers the margin, and stop when it is 0 or less."""
    best, margin = start.clone(), _margin(model, start, y)
    active = (margin > 0).nonzero()[:, 0]
    x, y, current, lowest = x[active], y[active], best[active], margin[active]
    for query in range(queries):
        if not len(active):
            break
        rows, tried = propose(query, active, x, current)
        if not len(rows):
            continue
        found = _margin(model, tried, y[rows])
        better = (found < lowest[rows]) | (found <= 0)
        rows = rows[better]
        current[rows], lowest[rows] = tried[better], found[better]
        fell = lowest <= 0
        if bool(fell.any()):
            best[active[fell]], margin[active[fell]] = current[fell], lowest[fell]
            active, current, lowest = active[~fell], current[~fell], lowest[~fell]
            x, y = x[~fell], y[~fell]
    best[active], margin[active] = current, lowest
    return best, margin


def _margin(model: Model, x: Tensor, y: Tensor) -> Tensor:
    """Return the margins of images, (B, C, H, W), (B,) -> (B,); see `label_margin`."""
    return label_margin(model(x), y)


def _shared_squares(
    x: Tensor, threat: Threat, sides: list[int], draw: torch.Generator
) -> tuple[Tensor, Propose]:
    """Linf: start from vertical stripes; put one square, with its colours, on every image."""
    n, channels, height, width = x.shape
    eps = threat.radius
    stripes = _signs(torch.rand(n, channels, 1, width, generator=draw)).to(x.device)
    start = (x + eps * stripes).clamp(0, 1)

    # One call draws the same numbers as three calls per query would.
    drawn = torch.rand(len(sides), 2 + channels, generator=draw)
    tops = ((height - torch.tensor(sides)) * drawn[:, 0]).long().tolist()
    lefts = ((width - torch.tensor(sides)) * drawn[:, 1]).long().tolist()
    shifts = (2.0 * eps * _signs(drawn[:, 2:])).view(-1, channels, 1, 1).to(x.device)

    def propose(query: int, active: Tensor, x: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
        window = shared_windows(tops[query], lefts[query], sides[query])
        before, clean = best[window], x[window]
        after = (before + shifts[query]).clamp(clean - eps, clean + eps).clamp_(0, 1)
        rows = (after != before).flatten(1).any(1).nonzero()[:, 0]
        tried = best[rows]
        tried[window] = after[rows]
        return rows, tried

    return start, propose


def _own_squares(x: Tensor, threat: Threat, squares: Squares, noise: NoiseSource) -> Propose:
    """Linf: each image has its own squares and colours."""
    channels, height, width = x.shape[1:]
    eps, sides = threat.radius, _own_sides(squares, x.shape[1:], least=1)
    drawn = _own_draws(x, 2 + channels, squares, noise)
    down, across = (torch.arange(size, device=x.device) for size in (height, width))

    def propose(query: int, active: Tensor, x: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
        side, numbers = sides[query], drawn[active, query]
        top = _place(numbers[:, 0, None], height - side)
        left = _place(numbers[:, 1, None], width - side)
        in_rows = (down >= top) & (down < top + side)
        in_columns = (across >= left) & (across < left + side)
        inside = in_rows[:, None, :, None] & in_columns[:, None, None, :]
        shift = 2 * eps * numbers[:, 2:].sign()[:, :, None, None]
        painted = (best + shift).clamp(x - eps, x + eps).clamp_(0, 1)
        tried = torch.where(inside, painted, best)
        rows = (tried != best).flatten(1).any(1).nonzero()[:, 0]
        return rows, tried[rows]

    return propose


def _shared_transfers(
    x: Tensor, threat: Threat, sides: list[int], draw: torch.Generator
) -> tuple[Tensor, Propose]:
    """L2 and L1: start from tiles of bumps; move the change of one window into another.

    The images share the windows and the orientation of the bump, but not its signs: the draws of a
    query depend on the number of images that are left.
    """
    channels, height, width = x.shape[1:]
    shapes: dict[int, Tensor] = {}

    def signed_bump(side: int, images: int) -> Tensor:
        if side not in shapes:
            shapes[side] = bump(side, threat).to(x.device)
        turned = bool(torch.rand(1, generator=draw) > 0.5)
        # Contiguous, because the order of a sum follows the strides.
        shape = shapes[side].T.contiguous() if turned else shapes[side]
        signs = _signs(torch.rand(images, channels, 1, 1, generator=draw))
        return shape * signs.to(x.device)

    tile = max(height // 5, 1)
    change, corner = torch.zeros_like(x), max(height - tile * 5, 0) // 2
    for row in range(height // tile):
        for column in range(width // tile):
            window = change[
                :, :, corner + row * tile : corner + (row + 1) * tile,
                corner + column * tile : corner + (column + 1) * tile,
            ]  # fmt: skip
            window += signed_bump(tile, len(x))[:, :, : window.shape[2], : window.shape[3]]
    start = into_ball(x, change, threat)

    def propose(query: int, active: Tensor, x: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
        side = sides[query]
        room = torch.tensor([height - side, width - side] * 2)
        top, left, top2, left2 = (room * torch.rand(4, generator=draw)).long().tolist()
        first, second = shared_windows(top, left, side), shared_windows(top2, left2, side)
        tried = transfer(x, best, first, second, signed_bump(side, len(x)), threat)
        return torch.arange(len(x), device=x.device), tried

    return start, propose


def _own_transfers(x: Tensor, threat: Threat, squares: Squares, noise: NoiseSource) -> Propose:
    """L2 and L1: each image has its own windows, bump and signs."""
    channels, height, width = x.shape[1:]
    sides = _own_sides(squares, x.shape[1:], least=3)
    drawn = _own_draws(x, 5 + channels, squares, noise)

    def propose(query: int, active: Tensor, x: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
        side, numbers = sides[query], drawn[active, query]
        top, top2 = _place(numbers[:, :2], height - side).unbind(1)
        left, left2 = _place(numbers[:, 2:4], width - side).unbind(1)
        first = own_windows(top, left, side, channels)
        second = own_windows(top2, left2, side, channels)
        shape = bump(side, threat).to(x.device)
        turned = torch.where(numbers[:, 4, None, None] > 0, shape.T, shape)
        signed = turned[:, None] * numbers[:, 5:].sign()[:, :, None, None]
        tried = transfer(x, best, first, second, signed, threat)
        return torch.arange(len(x), device=x.device), tried

    return propose


def _own_draws(x: Tensor, numbers: int, squares: Squares, noise: NoiseSource) -> Tensor:
    """Draw for each image, (B, queries, numbers) from U(-1, 1)."""
    drawn = noise.uniform((squares.queries, numbers), squares.restart)
    return torch.from_numpy(drawn).to(x.device)


def _own_sides(squares: Squares, shape: torch.Size, least: int) -> list[int]:
    places = _rescaled(squares.queries)
    return [_side(place, shape, squares.first_share, least) for place in places]


def _rescaled(queries: int) -> list[int]:
    """Return the place of each query on a scale of 10,000 queries."""
    return [int(query / queries * 10_000) for query in range(queries)]


def _side(place: int, shape: torch.Size, first_share: float, least: int) -> int:
    """Return the side of the square at query `place` of 10,000; a side of 3 or more is odd."""
    channels, height, width = shape
    share = first_share / 2 ** bisect_left(_HALVED_AFTER, place)
    side = max(round(math.sqrt(share * (channels * height * width) / channels)), least)
    if least == 3 and side % 2 == 0:
        side += 1
    return min(side, height, width)


def _place(number: Tensor, room: int) -> Tensor:
    """Turn draws from U(-1, 1) into whole numbers from 0 to `room`."""
    return ((number + 1) / 2 * (room + 1)).long().clamp_max(room)


def _signs(number: Tensor) -> Tensor:
    return (2 * number - 1).sign()
