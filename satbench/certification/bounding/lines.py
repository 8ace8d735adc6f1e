"""Sound lines above and below an activation on intervals.

For any slope s, f(x) ≥ s x + b on [l, u] where b is at most the least value of g(x) = f(x) - s x
there.  g has its least value at an end, at a break of f, or, within a piece where f' rises, where
f' = s; halving finds that point.  So a slope may come from anywhere, a search or a stranger's file:
the line is sound because its intercept is computed here.

Three errors are taken off.  Halving stops at an interval of width w, in which g is at most
`curvature` w² / 8 below its ends.  The functions of the standard library are off by rounding, and
so is the sign of f' - s where it is nearly 0; `MARGIN` is 4,096 times the unit roundoff of float64,
relative to 1, x and s x, far above the few units that these functions are off by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from satbench.certification.bounding.shapes import ActivationShape

MARGIN = 2.0**-40

_HALVINGS = 26


@dataclass(frozen=True)
class Lines:
    """Two lines of each activation on its interval: low_slope x + low ≤ f(x) ≤ high_slope x + high.

    All are of one shape, that of the intervals, or broadcast with it.
    """

    low_slope: Tensor
    low: Tensor
    high_slope: Tensor
    high: Tensor


def lowest(
    shape: ActivationShape, slope: Tensor, low: Tensor, high: Tensor, halvings: int = _HALVINGS
) -> Tensor:
    """Return at most the least value of f(x) - slope · x on [low, high], element by element.

    The result follows the slope and the ends of the interval with its gradient.  With fewer
    `halvings` it is found sooner, and is as sound, but lower.
    """
    return _extreme(shape, slope, low, high, 1.0, halvings)


def highest(
    shape: ActivationShape, slope: Tensor, low: Tensor, high: Tensor, halvings: int = _HALVINGS
) -> Tensor:
    """Return at least the greatest value of f(x) - slope · x on [low, high]; as `lowest`."""
    return _extreme(shape, slope, low, high, -1.0, halvings)


def lines_of(
    shape: ActivationShape,
    low_slope: Tensor,
    high_slope: Tensor,
    low: Tensor,
    high: Tensor,
    halvings: int = _HALVINGS,
) -> Lines:
    """Return the lines of given slopes on [low, high], as near to f as they can be."""
    return Lines(
        low_slope,
        lowest(shape, low_slope, low, high, halvings),
        high_slope,
        highest(shape, high_slope, low, high, halvings),
    )


def chosen_lines(
    shape: ActivationShape, low: Tensor, high: Tensor, tangents: int = 5, halvings: int = _HALVINGS
) -> Lines:
    """Return lines on [low, high] whose slopes are chosen by a fixed rule.

    Of the slope of the chord and of f' at so many points of the interval, evenly spread, each side
    takes the one whose line is nearest to f in the middle: it leaves the smallest area between the
    two.  For ReLU these are the lines of CROWN (Zhang et al., 2018, arXiv:1811.00866, section 3.3).
    """
    middle = (low + high) / 2
    chord = (shape.value(high) - shape.value(low)) / (high - low).clamp_min(1e-12)
    at = [
        (2 * k + 1) / (2 * tangents) if tangents < 3 else k / (tangents - 1)
        for k in range(tangents)
    ]
    slopes = torch.stack([chord, *(shape.slope(low + share * (high - low)) for share in at)])
    below = lowest(shape, slopes, low, high, halvings)
    above = highest(shape, slopes, low, high, halvings)
    return Lines(
        *_nearest(slopes, below, slopes * middle + below),
        *_nearest(slopes, above, -(slopes * middle + above)),
    )


def _nearest(slopes: Tensor, intercepts: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slope and the intercept with the highest score, element by element.

    A loop over the few slopes: torch's argmax over a leading dimension takes ten times as long.
    """
    slope, intercept, best = slopes[0], intercepts[0], score[0].detach()
    for one, other, now in zip(slopes[1:], intercepts[1:], score[1:].detach(), strict=True):
        better = now > best
        slope, intercept = torch.where(better, one, slope), torch.where(better, other, intercept)
        best = torch.where(better, now, best)
    return slope, intercept


def _extreme(
    shape: ActivationShape, slope: Tensor, low: Tensor, high: Tensor, sign: float, halvings: int
) -> Tensor:
    size = (slope + low + high).shape
    slope, low, high = slope.expand(size), low.expand(size), high.expand(size)
    ends = [low, *(low.clamp_min(at).minimum(high) for at in shape.breaks), high]
    points, width = list(ends), torch.zeros_like(low)
    with torch.no_grad():
        for start, end, bend in zip(ends[:-1], ends[1:], shape.bends, strict=True):
            if bend == ("convex" if sign > 0 else "concave"):
                start, end = _halved(shape, slope, start, end, sign, halvings)
                points += [start, end]
                width = width.maximum(end - start)
        far = low.abs().maximum(high.abs())
        off = MARGIN * (shape.scale * (1 + far) + slope.abs() * far)
        off = off + shape.curvature * width.square() / 8
    x = _least(points, lambda at: sign * (shape.value(at) - slope * at))
    return shape.value(x) - slope * x - sign * off


def _least(points: Sequence[Tensor], g: Callable[[Tensor], Tensor]) -> Tensor:
    """Return, element by element, the point at which g is least; one at which g is NaN, if any.

    A loop over the few points: torch's argmin over a leading dimension takes ten times as long.
    """
    x = points[0]
    with torch.no_grad():
        best = g(x)
    for point in points[1:]:
        with torch.no_grad():
            now = g(point)
            better = (now < best) | now.isnan()
            best = torch.where(better, now, best)
        x = torch.where(better, point, x)
    return x


def _halved(
    shape: ActivationShape, slope: Tensor, start: Tensor, end: Tensor, sign: float, halvings: int
) -> tuple[Tensor, Tensor]:
    """Close in on where f' = slope, in pieces where sign · f' rises.

    Where f' is above the slope, or below it, on a whole piece, it closes in on the end at which g
    is least.
    """
    for _ in range(halvings):
        middle = (start + end) / 2
        past = sign * (shape.slope(middle) - slope) > 0
        start, end = torch.where(past, start, middle), torch.where(past, middle, end)
    return start, end
