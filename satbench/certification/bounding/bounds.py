"""Bounds of every step of a network: intervals in the forward, linear bounds in the backward.

Interval bound propagation (Gowal et al., 2018, arXiv:1810.12715, section 3) propagates a box
through the steps.  Backward bounds (CROWN: Zhang et al., 2018, arXiv:1811.00866) propagate a row of
coefficients back from a step to the image, and replace each activation by a line below or above it.
Both include the errors of rounding (`satbench.certification.bounding.rounding`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from satbench.certification.bounding.lines import Lines, chosen_lines, highest, lowest
from satbench.certification.bounding.operations import Affine
from satbench.certification.bounding.program import Program, ProgramStep, Signed, Source
from satbench.certification.bounding.region import Region
from satbench.certification.bounding.rounding import Roundoff
from satbench.certification.bounding.shapes import ActivationShape

_UP = 1 + 2.0**-30  # covers the rounding of sizes, which are sums of nonnegative numbers

_UNDERFLOW = 2.0**-90
"""More than a sum of 2^30 float32 products can lose if each is flushed to 0 below 2^-126."""


@dataclass(frozen=True)
class Box:
    """An interval for each element of a step, (B, …), and the error that rounding may cause.

    The product of `slack` and a row's coefficient of the element is subtracted from the bound.
    """

    low: Tensor
    high: Tensor
    slack: Tensor

    @property
    def size(self) -> Tensor:
        """An upper bound on the absolute value of the element."""
        return self.low.abs().maximum(self.high.abs())


Refine = Callable[["Bounds", int], tuple[Tensor, Tensor] | None]
"""Gets the bounds up to the input of an activation, and returns a second box of that input."""


@dataclass
class Bounds:
    """The bounds of the steps of a program for images of a region.

    `boxes` has one box per step, `lines` the lines of each activation, (B, 1, …).
    """

    program: Program
    region: Region
    rounding: Roundoff
    boxes: list[Box] = field(default_factory=list)
    lines: dict[int, Lines] = field(default_factory=dict)

    def lines_at(self, site: int) -> Lines:
        """Return the lines of an activation by the fixed rule, computed at the first call."""
        if site not in self.lines:
            step = self.program.steps[site]
            box = self.boxes[step.takes[0]]
            made = chosen_lines(self.program.shape_at(site), box.low, box.high)
            self.lines[site] = Lines(*(one.unsqueeze(1) for one in vars(made).values()))
        return self.lines[site]


def interval_bounds(
    program: Program, region: Region, rounding: Roundoff, refine: Refine | None = None
) -> Bounds:
    """Propagate the box of a region through all steps; `refine` may tighten some inputs."""
    bounds = Bounds(program, region, rounding)
    own = rounding.here(program.largest)
    for step in program.steps:
        if isinstance(step.does, ActivationShape) and refine is not None:
            _tighten(bounds, step.takes[0], refine)
        low, high, error = _interval(step, bounds)
        error = error + _UNDERFLOW
        low, high = low - error, high + error
        size = low.abs().maximum(high.abs())
        bounds.boxes.append(Box(low, high, (error + own * size) * _UP))
    return bounds


def _tighten(bounds: Bounds, number: int, refine: Refine) -> None:
    found = refine(bounds, number)
    if found is not None:
        box = bounds.boxes[number]
        low, high = box.low.maximum(found[0]), box.high.minimum(found[1])
        bounds.boxes[number] = Box(low, high, box.slack)


def _interval(step: ProgramStep, bounds: Bounds) -> tuple[Tensor, Tensor, Tensor]:
    """Return the interval of a step in real arithmetic, and the possible error of its ends."""
    rounding, does = bounds.rounding, step.does
    own = rounding.here(bounds.program.largest)
    if isinstance(does, Source):
        region = bounds.region
        return region.low, region.high, own * region.size
    boxes = [bounds.boxes[place] for place in step.takes]
    if isinstance(does, ActivationShape):
        box, zero = boxes[0], torch.zeros_like(boxes[0].low)
        low, high = (one(does, zero, box.low, box.high) for one in (lowest, highest))
        error = rounding.activations * does.scale * (1 + box.size) + does.gap
        return low, high, error * _UP
    if isinstance(does, Signed):
        pairs = list(zip(does.signs, boxes, strict=True))
        low = torch.stack([box.low if sign > 0 else -box.high for sign, box in pairs]).sum(0)
        high = torch.stack([box.high if sign > 0 else -box.low for sign, box in pairs]).sum(0)
        size = torch.stack([box.size for box in boxes]).sum(0)
        return low, high, (rounding.answers(len(pairs)) + own) * size * _UP
    box = boxes[0]
    middle, half = (box.low + box.high) / 2, (box.high - box.low) / 2
    centre, reach, size = does.apply(middle), does.apply_abs(half), does.apply_abs(box.size)
    offset, offset_size = does.offset(), does.offset_size()
    if offset is not None and offset_size is not None:
        centre, size = centre + offset, size + offset_size
    error = (rounding.answers(does.terms) + own) * size * _UP
    return centre - reach, centre + reach, error


@dataclass(frozen=True)
class Splits:
    """The additional knowledge about some rows: the halves of intervals to which they apply.

    `coefficients` are added to a row's coefficients, (B, R, …), by step, and `constant` to its
    value, (B, R); `lines` are those of the rows, (B, R, …), by activation.
    """

    coefficients: Mapping[int, Tensor]
    constant: Tensor
    lines: Mapping[int, Lines]


def lower_bounds(
    bounds: Bounds,
    start: int,
    rows: Tensor,
    *,
    until: int = 0,
    lines: Mapping[int, Lines] | None = None,
    splits: Splits | None = None,
    seen: dict[int, Tensor] | None = None,
) -> Tensor:
    """Return a lower bound on each row's sum over the elements of a step.

    (B, R, …) rows of coefficients of the step `start` -> (B, R).  They are propagated back to the
    image, or to the steps up to `until`, whose boxes are then used.  `lines`, by activation, (B, R,
    …) or (B, 1, …), replace those of the bounds.  `seen` gets the coefficients of each activation.
    """
    steps, own = bounds.program.steps, bounds.rounding.here(bounds.program.largest)
    waiting = {start: rows}
    total = torch.zeros_like(rows.flatten(2)[..., 0])
    if splits is not None:
        total = total + splits.constant
    for number in range(start, -1, -1):
        a = waiting.pop(number, None)
        if splits is not None and number in splits.coefficients:
            more = splits.coefficients[number]
            a = more if a is None else a + more
        if a is None:
            continue
        step, box = steps[number], bounds.boxes[number]
        total = total - _sum(a.abs(), box.slack)
        if isinstance(step.does, Source):
            total = total + bounds.region.least(a)
        elif number <= until:
            total = total + _sum(a.clamp_min(0), box.low) + _sum(a.clamp_max(0), box.high)
        elif isinstance(step.does, ActivationShape):
            if seen is not None:
                seen[number] = a
            given = (splits.lines if splits is not None else lines) or {}
            line = given[number] if number in given else bounds.lines_at(number)
            moved, value = _through(a, line)
            size = bounds.boxes[step.takes[0]].size
            off = own * (_sum(moved.abs(), size) + value.abs().flatten(2).sum(2))
            total = total + value.flatten(2).sum(2) - off
            _give(waiting, step.takes[0], moved)
        elif isinstance(step.does, Signed):
            for sign, place in zip(step.does.signs, step.takes, strict=True):
                _give(waiting, place, a if sign > 0 else -a)
        else:
            offset = step.does.offset()
            if offset is not None:
                total = total + _sum(a, offset.expand(step.shape).unsqueeze(0))
            _give(waiting, step.takes[0], _transposed(step.does, a))
    return total


def _through(a: Tensor, line: Lines) -> tuple[Tensor, Tensor]:
    """Replace activations by lines: return the coefficients of the inputs, and the constants."""
    up, down = a.clamp_min(0), a.clamp_max(0)
    moved = up * line.low_slope + down * line.high_slope
    return moved, up * line.low + down * line.high


def _transposed(does: Affine, a: Tensor) -> Tensor:
    back = does.transpose(a.flatten(0, 1))
    return back.view(*a.shape[:2], *back.shape[1:])


def _give(waiting: dict[int, Tensor], place: int, a: Tensor) -> None:
    waiting[place] = a if place not in waiting else waiting[place] + a


def _sum(a: Tensor, values: Tensor) -> Tensor:
    """Sum the products of `a` (B, R, …) with values of each image, or with the same for all."""
    return torch.einsum("brn,bn->br", a.flatten(2), values.flatten(1).expand(len(a), -1))


def logit_bounds(bounds: Bounds, rows: Tensor, until_last_site: bool = False) -> Tensor:
    """Return lower bounds of rows of logits.  (B, R, K) -> (B, R).

    With `until_last_site` they use the boxes after the last activation, as intervals do.
    """
    start = len(bounds.program.steps) - 1
    sites = bounds.program.sites
    until = sites[-1] if until_last_site and sites else 0
    return lower_bounds(bounds, start, rows, until=until)


def margin_rows(labels: Tensor, classes: int) -> Tensor:
    """Return the rows for the label's logit minus each other logit. (B,) -> (B, K - 1, K)."""
    eye = torch.eye(classes, dtype=torch.float64, device=labels.device)
    others = [[k for k in range(classes) if k != label] for label in labels.tolist()]
    return eye[labels].unsqueeze(1) - eye[torch.tensor(others, device=labels.device)]
