"""Backward bounds of the inputs of each activation, and a search for slopes.

CROWN (Zhang et al., 2018, arXiv:1811.00866) bounds each neuron by its own rows.  Gradient steps
improve the slopes of the last rows, as in α-CROWN (Xu et al., 2021, arXiv:2011.13824), here for
every activation and not only for ReLU, because any slope gives a sound line.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from satbench.certification.bounding.bounds import (
    Bounds,
    interval_bounds,
    logit_bounds,
    lower_bounds,
)
from satbench.certification.bounding.lines import Lines, lines_of
from satbench.certification.bounding.program import Program, Source
from satbench.certification.bounding.region import Region
from satbench.certification.bounding.rounding import Roundoff
from satbench.certification.bounding.shapes import ActivationShape

_ROWS = 512
"""Rows that are propagated together: few enough for memory, and enough to be fast."""

_FIRST_STEP, _DECAY = 0.1, 0.97


class OutOfTimeError(Exception):
    """The time limit of an image is exceeded."""


@dataclass(frozen=True)
class Deadline:
    """The end of an image's time, by `time.monotonic`; infinity for no limit."""

    end: float = float("inf")

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline `seconds` from now."""
        return cls(time.monotonic() + seconds)

    @property
    def is_over(self) -> bool:
        """Whether there is no time left."""
        return time.monotonic() > self.end

    def check(self) -> None:
        """Raise OutOfTimeError if there is no time left."""
        if self.is_over:
            raise OutOfTimeError


def crown_bounds(
    program: Program, region: Region, rounding: Roundoff, deadline: Deadline | None = None
) -> Bounds:
    """Bound every neuron of one image by its own rows. Raises OutOfTimeError."""
    until = deadline or Deadline()

    def refine(bounds: Bounds, number: int) -> tuple[Tensor, Tensor] | None:
        return _refined(bounds, number, until)

    return interval_bounds(program, region, rounding, refine)


def _refined(bounds: Bounds, number: int, deadline: Deadline) -> tuple[Tensor, Tensor] | None:
    """Return a box of step `number` by rows; neurons that cannot gain keep their interval."""
    if bounds.region.norm == "linf" and not _has_activation_before(bounds.program, number):
        return None  # intervals are exact there
    step, box = bounds.program.steps[number], bounds.boxes[number]
    low, high = box.low.flatten().clone(), box.high.flatten().clone()
    places = torch.nonzero(_matters(bounds, number).flatten())[:, 0]
    for some in torch.split(places, _ROWS // 2):
        deadline.check()
        rows = low.new_zeros(1, 2 * len(some), prod(step.shape))
        line = torch.arange(len(some), device=some.device)
        rows[0, line, some], rows[0, line + len(some), some] = 1.0, -1.0
        found = lower_bounds(bounds, number, rows.view(1, -1, *step.shape))[0]
        low[some], high[some] = found[: len(some)], -found[len(some) :]
    return low.view_as(box.low), high.view_as(box.high)


def _has_activation_before(program: Program, number: int) -> bool:
    waiting, seen = [number], set[int]()
    while waiting:
        place = waiting.pop()
        step = program.steps[place]
        if isinstance(step.does, ActivationShape):
            return True
        if not isinstance(step.does, Source) and place not in seen:
            waiting += step.takes
        seen.add(place)
    return False


def _matters(bounds: Bounds, number: int) -> Tensor:
    """Return which neurons could gain: if every activation is linear, the box is as good."""
    box = bounds.boxes[number]
    gains = torch.zeros_like(box.low, dtype=torch.bool)
    for step in bounds.program.steps:
        if not (isinstance(step.does, ActivationShape) and number in step.takes):
            continue
        if not step.does.is_piecewise_linear:
            gains |= box.low < box.high
        for at in step.does.breaks:
            gains |= (box.low < at) & (at < box.high)
    return gains


Slopes = Mapping[int, tuple[Tensor, Tensor]]
"""Slopes below and above, by activation, (B, R, …) each."""


def lines_with(bounds: Bounds, slopes: Slopes) -> dict[int, Lines]:
    """Return the lines of these slopes; a linear activation keeps its line.

    Slopes may be any numbers: their lines are always sound.
    """
    made = {}
    for site, (below, above) in slopes.items():
        shape, rule = bounds.program.shape_at(site), bounds.lines_at(site)
        box = bounds.boxes[bounds.program.steps[site].takes[0]]
        low, high = box.low.unsqueeze(1), box.high.unsqueeze(1)
        if shape.is_convex:  # no line above it is lower than the chord
            above = rule.high_slope.expand_as(below)
        new = lines_of(shape, below, above, low, high)
        free = is_free(bounds, site).unsqueeze(1)
        pairs = zip(vars(new).values(), vars(rule).values(), strict=True)
        made[site] = Lines(*(torch.where(free, one, other) for one, other in pairs))
    return made


def is_free(bounds: Bounds, site: int) -> Tensor:
    """Return which neurons of an activation have several possible lines, (B, …)."""
    shape = bounds.program.shape_at(site)
    box = bounds.boxes[bounds.program.steps[site].takes[0]]
    if not shape.is_piecewise_linear:
        return torch.ones_like(box.low, dtype=torch.bool)
    bent = torch.zeros_like(box.low, dtype=torch.bool)
    for at in shape.breaks:
        bent |= (box.low < at) & (at < box.high)
    return bent


def searched_slopes(
    bounds: Bounds, rows: Tensor, steps: int, deadline: Deadline | None = None
) -> dict[int, tuple[Tensor, Tensor]]:
    """Search for slopes that raise the lower bound of each row of logits, (B, R, K).

    The best slopes that Adam finds in `steps` steps are returned, (B, R, …) per activation; the
    search ends early if all rows are above 0, and at the deadline.  The result is only a proposal:
    its user computes the bound again.
    """
    sites = bounds.program.sites
    free: dict[int, tuple[Tensor, Tensor]] = {}
    for site in sites:
        rule = bounds.lines_at(site)
        shape = (rows.shape[0], rows.shape[1], *bounds.program.steps[site].shape)
        free[site] = (
            rule.low_slope.expand(shape).clone().requires_grad_(),
            rule.high_slope.expand(shape).clone().requires_grad_(),
        )
    flat = [one for pair in free.values() for one in pair]
    best = {
        site: (pair[0].detach().clone(), pair[1].detach().clone()) for site, pair in free.items()
    }
    least = torch.full(rows.shape[:2], -torch.inf, dtype=rows.dtype)
    adam = torch.optim.Adam(flat, lr=_FIRST_STEP)
    start = len(bounds.program.steps) - 1
    for _ in range(steps):
        adam.zero_grad()
        with torch.enable_grad():
            found = lower_bounds(bounds, start, rows, lines=lines_with(bounds, free))
            torch.autograd.backward(_minus_sum(found))
        better = found.detach() > least
        least = torch.where(better, found.detach(), least)
        for site, pair in free.items():
            mask = better.view(*better.shape, *[1] * (pair[0].dim() - 2))
            below, above = (
                torch.where(mask, new.detach(), old)
                for new, old in zip(pair, best[site], strict=True)
            )
            best[site] = (below, above)
        if bool((least > 0).all()) or (deadline and deadline.is_over):
            break
        adam.step()
        for group in adam.param_groups:
            group["lr"] *= _DECAY
    return best


def _minus_sum(found: Tensor) -> Tensor:
    """Return the loss, without rows that are already above 0."""
    loss: Tensor = -found.clamp_max(0.1).sum()
    return loss


__all__ = [
    "Deadline", "OutOfTimeError", "Slopes", "crown_bounds", "is_free", "lines_with", "logit_bounds",
    "searched_slopes",
]  # fmt: skip
