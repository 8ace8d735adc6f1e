"""Project points onto the intersection of a hyperplane and the box [0, 1], in Linf, L2 and L1.

FAB (Croce & Hein, 2020, arXiv:1907.02044, section 2) linearises the decision
boundary to the hyperplane {z : w·z = b} and asks for the shortest d with

    w·(t + d) = b   and   0 ≤ t + d ≤ 1.

Each coordinate contributes at most |w_i| · room_i, where room_i is its distance to the side of the
box toward the hyperplane.  In every norm one number is unknown: the common length in Linf, the
multiple of w in L2, the last used coordinate in L1.  It is between two of the sorted break points,
found by bisection.  If the box does not reach the hyperplane, every coordinate goes to its side of
the box.

Sums are computed in float32 in the order of pyautoattack's projections, so that a search follows
the same path to the last bit.  Therefore the bisection can end one short in L1, as there, if the
number of pixels is a power of two.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from satbench.attacks.gradient.order import ascending
from satbench.core.threat import Threat

_FLAT = 1e-8  # a coordinate with a smaller weight does not move, in L2 and L1
_FAR = 1e12  # the break point of a coordinate that never reaches the box


def to_hyperplane(t: Tensor, w: Tensor, b: Tensor, threat: Threat) -> Tensor:
    """Return the shortest vector from `t` to {z in [0, 1] : w·z = b} in the norm of `threat`.

    (M, D) points in [0, 1], (M, D) weights, (M,) offsets, float32 -> (M, D).  The radius of
    `threat` does not matter.
    """
    gap = (w * t).sum(1) - b
    w = torch.where(gap[:, None] >= 0, w, -w)  # so that the vector points against w
    project = {"linf": _linf, "l2": _l2, "l1": _l1}[threat.norm]
    return project(t, w, gap.abs())


def _linf(t: Tensor, w: Tensor, gap: Tensor) -> Tensor:
    up, used, last = w < 0, w != 0, t.shape[1] - 1
    room = torch.where(up, 1 - t, t)
    to_box = torch.where(up, room, -t) * used
    most = (w * to_box).sum(1)

    order = ascending(room).flip(1)
    weights, rooms = w.gather(1, order), room.gather(1, order)
    # w·d is ends_k - slopes_k · length if the k + 1 coordinates with most room are at `length` and
    # the others at the box.
    ends = (-weights * to_box.gather(1, order)).cumsum(1) + most[:, None]
    slopes = weights.abs().cumsum(1)

    free = -gap > ends[:, last] - slopes[:, last] * rooms[:, last]  # none at the box
    reached = -gap > most
    k = _halve(last, t, lambda k: -gap > _at(ends, k) - _at(slopes, k) * _at(rooms, k))
    k = torch.where(free, last, k)
    length = ((-gap - _at(ends, k)) / -_at(slopes, k)).clamp_min(0)[:, None]
    # If none is at the box, the box does not limit the length, as in the package: FAB clips later.
    cut = torch.where(free[:, None], length, torch.minimum(length, room))
    d = torch.where(up, cut, -cut) * used
    return torch.where((free | reached)[:, None], d, to_box)


def _l2(t: Tensor, w: Tensor, gap: Tensor) -> Tensor:
    used, last = w.abs() > _FLAT, t.shape[1] - 1
    # The multiple of w at which a coordinate reaches the box.
    meets = torch.maximum(t / w, (t - 1) / w).clamp(-_FAR, _FAR)
    meets = meets.masked_fill((w.abs() < _FLAT) | (meets == -_FAR), _FAR)
    to_box = -(meets * w) * used

    # The package's own sort: the order of ties changes the sum of the squares.
    ends, order = meets.sort(dim=1)
    ends = ends.masked_fill_(ends == _FAR, 0)
    following = torch.nn.functional.pad(ends[:, 1:], (0, 1))
    squares = (w**2).gather(1, order)
    total = squares.sum(1, keepdim=True)
    left = total - squares.cumsum(1)  # the squared weight of those that have not met the box
    # w·d when the k-th coordinate reaches the box.
    first = -total * ends[:, :1]
    value = torch.cat((first, ((ends - following) * left).cumsum(1) + first), 1)

    free = value[:, 0] + gap < 0  # none at the box
    reached = (to_box * w).sum(1) + gap <= 0
    k = _halve(last, t, lambda k: _at(value, k) + gap > 0)
    multiple = (_at(value, k) + gap) / _at(left, k) + _at(ends, k)
    multiple = multiple.masked_fill(_at(left, k) == 0, 0)
    multiple = torch.where(free, gap / total[:, 0], multiple)[:, None]
    at_box = (multiple > meets) & ~free[:, None] | ~(free | reached)[:, None]
    return torch.where(at_box, to_box, -multiple * w) * used


def _l1(t: Tensor, w: Tensor, gap: Tensor) -> Tensor:
    size = t.shape[1]
    to_box = torch.where(w < 0, 1 - t, -t) * (w != 0)
    order = ascending((1 / w).abs().clamp_max(_FAR))  # the largest weight first
    gives = torch.minimum(-w * t, w * (1 - t)).gather(1, order)
    value = torch.cat((gap[:, None], gives), 1).cumsum(1)  # what is left after k coordinates

    reached = value[:, -1] < 0
    k = _halve(size + 1, t, lambda k: _at(value, k) > 0).clamp_max(size - 1)
    place = torch.arange(size, device=t.device)
    whole = torch.empty_like(order).scatter_(1, order, place.expand_as(order)) < k[:, None]
    partly = order.gather(1, k[:, None])
    d = (to_box * whole).scatter_(1, partly, -_at(value, k)[:, None] / w.gather(1, partly))
    return torch.where(reached[:, None], d, to_box) * (w.abs() > _FLAT)


def _halve(upper: int, t: Tensor, holds: Callable[[Tensor], Tensor]) -> Tensor:
    """Find the last place in [0, upper) where `holds`, for each row; it holds at 0 or nowhere."""
    low = torch.zeros(len(t), dtype=torch.int64, device=t.device)
    high = torch.full_like(low, upper)
    for _ in range(math.ceil(math.log2(t.shape[1]))):
        middle = (low + high) // 2
        found = holds(middle)
        low, high = torch.where(found, middle, low), torch.where(found, high, middle)
    return low


def _at(values: Tensor, k: Tensor) -> Tensor:
    return values.gather(1, k[:, None])[:, 0]
