"""Activations as curves: where each bends which way, and how far a computed value may be off.

A bound of a network replaces each activation f by a line on an interval.  Any slope s is sound if
the intercept is the extreme of f(x) - s x on the interval.  The module `lines` beside this one
finds that extreme.  It has to know only where f' rises and where it falls.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from scipy.optimize import brentq
from torch import Tensor, nn

from satbench.networks.activations import PSSiLUModule, SmoothReLUModule

Bend = Literal["convex", "concave", "straight"]

_SILU = 2.399357280515468
_GELU_TANH = 1.4185040087908284
_MISH = (-2.256376396360793, 1.4905711794854285)
"""Where the second derivatives of SILU, GELU in its tanh form, and Mish are 0.

Computed with 40 digits; a test computes their signs on both sides again.
"""


@dataclass(frozen=True)
class ActivationShape:
    """An activation f: ℝ → ℝ, continuous, which bends one way on each of finitely many pieces.

    `value` and `slope` compute f and f' element by element, in float64 for certificates.  The
    pieces lie between the `breaks`, ascending; on piece i, closed, f' rises (`bends[i]` is
    `convex`), falls (`concave`) or stays, and changes by at most `curvature` times the distance.
    At a break f' may jump; `slope` has the value of the piece that follows from the left.
    |f(x)| ≤ `scale` (1 + |x|).  A program with unit roundoff u may return a value that is off by
    16 u `scale` (1 + |x|) and `gap` (`satbench.certification.bounding.rounding`).
    """

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    breaks: tuple[float, ...]
    bends: tuple[Bend, ...]
    curvature: float = 0.0
    scale: float = 1.0
    gap: float = 0.0

    @property
    def is_piecewise_linear(self) -> bool:
        """Whether f is a line on each piece: then it is one on an interval without a break."""
        return set(self.bends) == {"straight"}

    @property
    def is_convex(self) -> bool:
        """Whether f' never falls, over breaks included."""
        return "concave" not in self.bends and all(
            one <= other for one, other in zip(self.jumps[::2], self.jumps[1::2], strict=True)
        )

    def interval(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return the least and the greatest value on [low, high], without a margin for rounding.

        Both follow the ends of the interval with their gradient.
        """
        left, right = self.value(low), self.value(high)
        if not self.turns and self.is_rising:
            return left, right
        least, most = torch.minimum(left, right), torch.maximum(left, right)
        for at in self.turns:
            inside = (low < at) & (at < high)
            value = self.value(low.new_tensor(at))
            least = torch.where(inside & (value < least), value, least)
            most = torch.where(inside & (value > most), value, most)
        return least, most

    @cached_property
    def is_rising(self) -> bool:
        """Whether f(1) is above f(-1): without turns f rises everywhere then."""
        ends = self.value(torch.tensor([-1.0, 1.0], dtype=torch.float64)).tolist()
        return bool(ends[0] < ends[1])

    @cached_property
    def turns(self) -> tuple[float, ...]:
        """Where f' changes its sign: the only inner points where f can be least or greatest.

        The search ends at ±1,000, where no activation of the zoo turns any more.
        """
        found = []
        ends = (-1e3, *self.breaks, 1e3)
        for start, end in pairwise(ends):
            points = torch.tensor([start + 1e-9, end - 1e-9], dtype=torch.float64)
            left, right = self.slope(points).tolist()
            if left * right < 0:
                root = brentq(
                    lambda x: float(self.slope(torch.tensor(x, dtype=torch.float64))),
                    *points.tolist(),
                    xtol=1e-12,
                )
                found.append(float(root))
        slopes = self.jumps
        found += [
            at
            for at, before, after in zip(self.breaks, slopes[::2], slopes[1::2], strict=True)
            if before * after < 0
        ]
        return tuple(sorted(found))

    @property
    def jumps(self) -> list[float]:
        """The slopes on the left and on the right of each break."""
        at = torch.tensor([side for one in self.breaks for side in (one - 1e-6, one + 1e-6)])
        return self.slope(at.double()).tolist()


def shape_of(module: nn.Module) -> ActivationShape | None:
    """Return the shape of an activation's module; None for a module that is none of those known.

    Numbers that were trained are read from the module as they are now.
    """
    kind = type(module)
    for known, make in _SHAPES:
        if kind is known:
            shape = make(module)
            return shape if _is_sound(shape) else None
    return None


def _is_sound(shape: ActivationShape) -> bool:
    numbers = (*shape.breaks, shape.curvature, shape.scale, shape.gap)
    return all(map(math.isfinite, numbers)) and list(shape.breaks) == sorted(shape.breaks)


def relu() -> ActivationShape:
    """Return max(0, x)."""
    return _bent(0.0)


def _bent(below: float) -> ActivationShape:
    """Return x, and `below` · x for x < 0."""
    return ActivationShape(
        lambda x: F.leaky_relu(x, below) if below else torch.relu(x),
        lambda x: torch.where(x > 0, 1.0, below).to(x),
        (0.0,),
        ("straight", "straight"),
        scale=max(1.0, abs(below)),
    )


def _silu(module: Any) -> ActivationShape:
    def slope(x: Tensor) -> Tensor:
        s = torch.sigmoid(x)
        return s * (1 + x * (1 - s))

    return ActivationShape(F.silu, slope, (-_SILU, _SILU), ("concave", "convex", "concave"), 0.5)


def _gelu(module: Any) -> ActivationShape:
    tanh = module.approximate == "tanh"
    end = _GELU_TANH if tanh else math.sqrt(2)
    # |f''| is largest at 0, where it is √(2/π) in both forms.
    return ActivationShape(
        lambda x: F.gelu(x, approximate=module.approximate),
        _gelu_tanh_slope if tanh else _gelu_slope,
        (-end, end),
        ("concave", "convex", "concave"),
        0.8,
    )


def _gelu_slope(x: Tensor) -> Tensor:
    density = torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
    below: Tensor = torch.special.ndtr(x)
    return below + x * density


def _gelu_tanh_slope(x: Tensor) -> Tensor:
    k = math.sqrt(2 / math.pi)
    t = torch.tanh(k * (x + 0.044715 * x**3))
    return (1 + t) / 2 + x * (1 - t.square()) / 2 * k * (1 + 3 * 0.044715 * x.square())


def _mish(module: Any) -> ActivationShape:
    def slope(x: Tensor) -> Tensor:
        t = torch.tanh(F.softplus(x, threshold=60))
        return t + x * torch.sigmoid(x) * (1 - t.square())

    return ActivationShape(F.mish, slope, _MISH, ("concave", "convex", "concave"), 0.65)


def _softplus(module: Any) -> ActivationShape:
    beta, threshold = float(module.beta), float(module.threshold)

    def value(x: Tensor) -> Tensor:
        bent: Tensor = torch.log1p(torch.exp(-beta * x.abs())) / beta
        return x.clamp_min(0) + bent

    # Above the threshold torch returns x itself, which is below the formula by so much at most.
    gap = math.exp(min(-threshold, 0)) / beta if beta > 0 else math.nan
    return ActivationShape(
        value,
        lambda x: torch.sigmoid(beta * x),
        (),
        ("convex",),
        beta / 4,
        scale=max(1.0, 1 / beta) if beta > 0 else math.nan,
        gap=gap + (abs(threshold) / beta if threshold < 0 else 0.0),
    )


def _elu(module: Any) -> ActivationShape:
    return _exponential(float(module.alpha), 1.0)


def _celu(module: Any) -> ActivationShape:
    return _exponential(float(module.alpha), float(module.alpha))


def _exponential(alpha: float, width: float) -> ActivationShape:
    """Return x, and α (exp(x / width) - 1) for x < 0."""
    if not (alpha > 0 and width > 0):
        return ActivationShape(torch.relu, torch.relu, (), (), scale=math.nan)

    def slope(x: Tensor) -> Tensor:
        return torch.where(x > 0, 1.0, alpha / width * torch.exp(x.clamp_max(0) / width))

    return ActivationShape(
        lambda x: torch.where(x > 0, x, alpha * torch.expm1(x.clamp_max(0) / width)),
        slope,
        (0.0,),
        ("convex", "straight"),
        alpha / width**2,
        scale=max(1.0, alpha),
    )


def _smooth_relu(module: Any) -> ActivationShape:
    # As the module keeps it off 0.
    alpha: float = max(module.b.detach().double().square().item(), 1e-6)

    def value(x: Tensor) -> Tensor:
        x = x.clamp_min(0)
        return x - torch.log1p(alpha * x) / alpha

    def slope(x: Tensor) -> Tensor:
        x = alpha * x.clamp_min(0)
        return x / (1 + x)

    # Where αx is small, the value of about αx²/2 is what is left of two numbers of size x.
    return ActivationShape(value, slope, (0.0,), ("straight", "convex"), alpha)


def _pssilu(module: Any) -> ActivationShape:
    """Return x (σ(ax) - b) / (1 - b): SILU in other units, and a line."""
    a: float = abs(module.a.detach().double().item())
    b: float = abs(module.b.detach().double().item())
    if b == 1:
        return ActivationShape(torch.relu, torch.relu, (), (), scale=math.nan)
    whole = 1 - b

    def value(x: Tensor) -> Tensor:
        return x * (torch.sigmoid(a * x) - b) / whole

    def slope(x: Tensor) -> Tensor:
        s = torch.sigmoid(a * x)
        return (s * (1 + a * x * (1 - s)) - b) / whole

    scale = (1 + b) / abs(whole)
    if a == 0:
        return ActivationShape(value, slope, (), ("straight",), scale=max(1.0, scale))
    outside: Bend = "concave" if whole > 0 else "convex"
    inside: Bend = "convex" if whole > 0 else "concave"
    return ActivationShape(
        value,
        slope,
        (-_SILU / a, _SILU / a),
        (outside, inside, outside),
        a / 2 / abs(whole),
        max(1.0, scale),
    )


def _leaky(module: Any) -> ActivationShape:
    return _bent(float(module.negative_slope))


_SHAPES: tuple[tuple[type[nn.Module], Callable[[Any], ActivationShape]], ...] = (
    (nn.ReLU, lambda module: relu()),
    (nn.LeakyReLU, _leaky),
    (nn.SiLU, _silu),
    (nn.GELU, _gelu),
    (nn.Mish, _mish),
    (nn.Softplus, _softplus),
    (nn.ELU, _elu),
    (nn.CELU, _celu),
    (SmoothReLUModule, _smooth_relu),
    (PSSiLUModule, _pssilu),
)
