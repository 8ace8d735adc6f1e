"""The proposals of Square in L2 and L1: the change of one window is moved into another.

Andriushchenko et al., 2020 (arXiv:1912.00049), algorithm 3; in L1 Croce & Hein, 2021
(arXiv:2103.01208).  A proposal sets the change in a second window to 0.  Its length, and the unused
length of the ball, go to the first window, whose change is mixed with a bump.

The arithmetic is float32 in the order of pyautoattack: the last bit can decide whether a query
lowers the margin, and all later queries depend on it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from satbench.attacks.gradient.order import ascending
from satbench.core.threat import Threat

_TINY = 1e-12  # prevents 0 / 0
_INSIDE = 1 - 1e-6  # the share of eps that L1 uses, so that rounding does not leave the ball

Windows = tuple[slice | Tensor, slice | Tensor, slice | Tensor, slice | Tensor]
"""Indexes (B, C, H, W) to one s×s window per image."""


def shared_windows(top: int, left: int, side: int) -> Windows:
    """Index the same window in every image."""
    return slice(None), slice(None), slice(top, top + side), slice(left, left + side)


def own_windows(top: Tensor, left: Tensor, side: int, channels: int) -> Windows:
    """Index the window of each image whose upper left corner is at (top, left), (B,) each."""
    within = torch.arange(side, device=top.device)
    image = torch.arange(len(top), device=top.device)
    channel = torch.arange(channels, device=top.device)
    rows, columns = top[:, None] + within, left[:, None] + within
    return (
        image[:, None, None, None],
        channel[:, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    )


def transfer(
    x: Tensor,
    best: Tensor,
    first: Windows,
    second: Windows,
    bump: Tensor,
    threat: Threat,
) -> Tensor:
    """Propose a point: the change in `second` is moved to `first` and mixed with `bump`.

    (B, C, H, W) twice, a signed bump (B, C, s, s) -> (B, C, H, W) in the ball.
    """
    delta, channels = best - x, x.shape[1]
    rest = delta.clone()
    rest[second] = 0
    rest[first] = 0
    spare = _spare(_size(delta, threat), threat)
    moved = _length(delta - rest, threat)
    before = delta[first]
    change = bump + before / (_TINY + _length(before, threat))
    change = change / (_TINY + _length(change, threat))
    if threat.norm == "l2":
        change = change * (spare / channels + moved**2).sqrt()
    else:
        change = change * (spare / channels + moved) * channels
    rest[first] = change
    return into_ball(x, rest, threat)


def into_ball(x: Tensor, delta: Tensor, threat: Threat) -> Tensor:
    """Bring `x + delta` into the ball and the box.  (B, C, H, W) twice -> (B, C, H, W).

    In L2 the change is scaled to the length eps and clipped to the box; in L1 only a longer change
    is projected, to the nearest point of both.
    """
    if threat.norm == "l2":
        delta = delta / (_size(delta, threat) + _TINY)
        return (x + delta * threat.radius).clamp(0, 1)
    return x + delta + _correction(x, delta, threat.radius * _INSIDE)


def bump(side: int, threat: Threat) -> Tensor:
    """Return a square of a positive and a negative pyramid, one above the other, of norm 1.

    (side, side).  A pyramid adds 1/k^2 in L2 and 1/k^4 in L1 on the k-th ring about its centre
    and on those inside.
    """
    shape = torch.zeros(side, side)
    shape[: side // 2] = _pyramid(side // 2, side, threat)
    shape[side // 2 :] = -_pyramid(side - side // 2, side, threat)
    return shape / _length(shape, threat)


def _pyramid(height: int, width: int, threat: Threat) -> Tensor:
    power = 2 if threat.norm == "l2" else 4
    rows = (torch.arange(height) - height // 2).abs()
    columns = (torch.arange(width) - width // 2).abs()
    ring = torch.maximum(rows[:, None], columns)
    shape = torch.zeros(height, width)
    for k in range(max(height, width) // 2 + 1):
        shape += (ring <= k).float() / (k + 1) ** power
    return shape / _length(shape, threat)


def _length(delta: Tensor, threat: Threat) -> Tensor:
    """Measure the last two dimensions.  (..., H, W) -> (..., 1, 1)."""
    if threat.norm == "l2":
        return (delta**2).sum(dim=(-2, -1), keepdim=True).sqrt()
    return delta.abs().sum(dim=(-2, -1), keepdim=True)


def _size(delta: Tensor, threat: Threat) -> Tensor:
    """Measure whole images.  (B, C, H, W) -> (B, 1, 1, 1)."""
    flat = delta.flatten(1)
    sizes = (flat**2).sum(-1).sqrt() if threat.norm == "l2" else flat.abs().sum(-1)
    return sizes[:, None, None, None]


def _spare(length: Tensor, threat: Threat) -> Tensor:
    """The unused length of the ball: eps^2 - length^2 in L2, eps - length in L1, at least 0."""
    radius = torch.tensor(threat.radius, dtype=length.dtype, device=length.device)
    left = radius**2 - length**2 if threat.norm == "l2" else radius - length
    return left.clamp_min(0)


def _correction(x: Tensor, delta: Tensor, eps: float) -> Tensor:
    """Return the vector from `x + delta` to the nearest point of the L1 ball and the box.

    The method is that of `ball.l1_correction`, but with the package's rounding.
    """
    start, flat = x.flatten(1), delta.flatten(1)
    outside = torch.minimum(1 - start - flat, start + flat).clamp_max(0)
    missing = eps - flat.abs().sum(1)
    change = outside.clone()
    long = (missing - outside.sum(1) < 0).nonzero()[:, 0]  # even when clipped to the box
    if len(long):
        change[long] = _shrink(flat[long].abs(), -outside[long], missing[long])
    return (flat.sign() * change).view_as(x)


def _shrink(length: Tensor, least: Tensor, missing: Tensor) -> Tensor:
    """Shorten every pixel by one common amount, at least by `least` and at most to 0.

    (M, D) lengths of pixels, (M, D), minus the length of a row that is too much, (M,) -> what is
    added to the lengths, (M, D), ≤ 0.
    """
    corners = torch.cat((least, length), 1)
    order = ascending(corners)
    corners = corners.gather(1, order)
    following = torch.nn.functional.pad(corners[:, 1:], (0, 1))
    slopes = torch.where(order < length.shape[1], 1, -1).cumsum(1)
    cut = least.sum(1, keepdim=True) + ((following - corners) * slopes).cumsum(1)

    low = torch.zeros(len(length), 1, dtype=torch.int64, device=length.device)
    high = torch.full_like(low, corners.shape[1] - 1)
    for _ in range(math.ceil(math.log2(corners.shape[1]))):
        middle = (low + high) // 2
        short = cut.gather(1, middle) + missing[:, None] < 0
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    amount = (-cut.gather(1, low) - missing[:, None]) / slopes.gather(1, low + 1)
    amount = amount + following.gather(1, low)
    return -torch.minimum(torch.maximum(least, amount), length)
