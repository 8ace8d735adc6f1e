"""Branch and bound: intervals of neurons are halved until every part is bounded.

A part has constraints z ≤ p or z ≥ p on some neurons z.  Its bound uses them through a multiplier β
≥ 0, as in β-CROWN (Wang et al., 2021, arXiv:2103.06624), and through lines on the smaller interval.
A ReLU neuron is cut at 0, and is then exact.  A neuron of a smooth activation is cut in the middle,
and its lines become tighter, but never exact (Shi et al., 2024, arXiv:2405.21063).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from satbench.certification.bounding.bounds import Bounds, Splits, lower_bounds
from satbench.certification.bounding.crown import Deadline
from satbench.certification.bounding.lines import Lines, chosen_lines, highest, lowest
from satbench.certification.trees import MOST_SPLITS, BadTreeError, Split, Tree, parts_of

MOST_PARTS = 20_000
"""The most parts of one tree; `MOST_NODES` allows twice as many nodes."""

_TOGETHER = 32
_STEPS, _LONG = 12, 150
"""Steps of a search for multipliers; the long one is for a part that cannot be cut further."""

_LEAST_SCALE = 0.1
"""The least scale of a multiplier, which may need to be large even if a coefficient is 0."""

_FIRST_STEP, _LAST_STEP = 0.2, 0.02


Base = dict[int, Lines]
"""The lines of a row before any cut, (1, 1, …), by activation."""


def tree_bound(bounds: Bounds, row: Tensor, base: Base, tree: Tree) -> float:
    """Return the lower bound of a row of logits that a tree proves.  (1, 1, K) -> number.

    Raises BadTreeError.
    """
    parts, betas = parts_of(tree)
    least = np.inf
    for first in range(0, len(parts), _TOGETHER):
        some = parts[first : first + _TOGETHER]
        work = _Parts(bounds, row, base, some)
        found = work.bound(work.padded(betas[first : first + _TOGETHER]))
        if not bool(torch.isfinite(found).all()):
            return -np.inf
        least = min(least, float(found.min()))
    return least


class _Parts:
    """Parts of one row that are bounded together."""

    def __init__(
        self, bounds: Bounds, row: Tensor, base: Base, parts: Sequence[tuple[Split, ...]]
    ) -> None:
        self.bounds, self.row, self.parts = bounds, row, parts
        self.depth = max(map(len, parts))
        self.intervals = self._intervals()
        self.lines = self._lines(base)

    def padded(self, betas: Sequence[NDArray[np.float32]]) -> Tensor:
        """Return multipliers of parts of unequal depth as one tensor, (R, depth)."""
        whole = torch.zeros(len(betas), self.depth, dtype=torch.float64)
        for line, some in enumerate(betas):
            whole[line, : len(some)] = torch.from_numpy(some.astype(np.float64))
        return whole

    def bound(self, betas: Tensor, seen: dict[int, Tensor] | None = None) -> Tensor:
        """Return the lower bound of each part.  (R, depth) -> (R,)."""
        start = len(self.bounds.program.steps) - 1
        rows = self.row.expand(1, len(self.parts), -1)
        splits = Splits(*self._multiplied(betas), self.lines)
        return lower_bounds(self.bounds, start, rows, splits=splits, seen=seen)[0]

    def _source(self, site: int) -> int:
        return self.bounds.program.steps[site].takes[0]

    def _intervals(self) -> list[dict[tuple[int, int], tuple[float, float]]]:
        """Return the remaining intervals of the neurons that each part cuts."""
        found = []
        for path in self.parts:
            mine: dict[tuple[int, int], tuple[float, float]] = {}
            for one in path:
                low, high = mine.get((one.site, one.neuron)) or self._whole(one)
                if not low < one.point < high:
                    raise BadTreeError("it cuts an interval where it is not")
                left = (low, one.point) if one.side < 0 else (one.point, high)
                mine[one.site, one.neuron] = left
            found.append(mine)
        return found

    def _whole(self, one: Split) -> tuple[float, float]:
        sites = self.bounds.program.sites
        if one.site not in sites:
            raise BadTreeError(f"step {one.site} is no activation")
        box = self.bounds.boxes[self._source(one.site)]
        if not 0 <= one.neuron < box.low[0].numel():
            raise BadTreeError(f"step {one.site} has no neuron {one.neuron}")
        return float(box.low.flatten()[one.neuron]), float(box.high.flatten()[one.neuron])

    def _lines(self, base: Base) -> dict[int, Lines]:
        """Return the lines of each part: those of the row, except for neurons that are cut."""
        lines = {}
        for site in self.bounds.program.sites:
            cut = [
                (line, neuron, *ends)
                for line, mine in enumerate(self.intervals)
                for (at, neuron), ends in mine.items()
                if at == site
            ]
            whole = base[site] if site in base else self.bounds.lines_at(site)
            if not cut:
                lines[site] = whole
                continue
            at, neurons = (torch.tensor([one[k] for one in cut]) for k in (0, 1))
            ends = torch.tensor([one[2:] for one in cut], dtype=torch.float64).T
            new = chosen_lines(self.bounds.program.shape_at(site), ends[0], ends[1])
            changed = []
            for old, better in zip(vars(whole).values(), vars(new).values(), strict=True):
                wide = old.expand(1, len(self.parts), *old.shape[2:]).flatten(2).clone()
                wide[0, at, neurons] = better
                changed.append(wide.view(1, len(self.parts), *old.shape[2:]))
            lines[site] = Lines(*changed)
        return lines

    def _multiplied(self, betas: Tensor) -> tuple[dict[int, Tensor], Tensor]:
        """Return the terms that the multipliers add to the coefficients and to the value.

        For z ≥ p a row is at least the row minus β (z - p); for z ≤ p at least the row plus β (z -
        p).
        """
        cuts = [
            (line, k, one) for line, path in enumerate(self.parts) for k, one in enumerate(path)
        ]
        sides, points = torch.zeros_like(betas), torch.zeros_like(betas)
        for line, k, one in cuts:
            sides[line, k], points[line, k] = one.side, one.point
        constant = (sides * points * betas).sum(1).unsqueeze(0)
        coefficients = {}
        for source in {self._source(one.site) for _, _, one in cuts}:
            mine = [cut for cut in cuts if self._source(cut[2].site) == source]
            lines, places = (torch.tensor([cut[k] for cut in mine]) for k in (0, 1))
            neurons = torch.tensor([one.neuron for _, _, one in mine])
            shape = self.bounds.program.steps[source].shape
            flat = betas.new_zeros(len(self.parts), prod(shape))
            value = -sides[lines, places] * betas[lines, places]
            flat = flat.index_put((lines, neurons), value, accumulate=True)
            coefficients[source] = flat.view(1, len(self.parts), *shape)
        return coefficients, constant

    def searched(self, start: Tensor, scales: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Search for multipliers that raise the bounds; return them in float32, and the bounds.

        `scales` (R, depth) are the units of the multipliers: the sizes of the coefficients.
        """
        if self.depth == 0:
            return start, self.bound(start)
        free = (start / scales).clone().requires_grad_()
        adam = torch.optim.Adam([free], lr=_FIRST_STEP)
        best = start.float().double()
        least = self.bound(best)
        for _ in range(steps):
            if bool((least > 0).all()):
                break
            adam.zero_grad()
            with torch.enable_grad():
                torch.autograd.backward(-self.bound(free * scales).sum())
            adam.step()
            with torch.no_grad():
                free.clamp_min_(0)
                now = (free * scales).float().double()
                found = self.bound(now)
                better = found > least
                best = torch.where(better.unsqueeze(1), now, best)
                least = torch.where(better, found, least)
            for group in adam.param_groups:
                group["lr"] *= (_LAST_STEP / _FIRST_STEP) ** (1 / steps)
        return best, least

    def next_cuts(self, betas: Tensor) -> list[tuple[Split, float] | None]:
        """Return the next cut of each part, and the size of the coefficient there.

        It is at the neuron whose lines, times its coefficient, are furthest from the activation.  A
        part without any image may have coefficients of 0 before it is cut further: then the widest
        interval with a break is cut.  None for a part without a neuron to cut.
        """
        seen: dict[int, Tensor] = {}
        self.bound(betas, seen)
        best: list[tuple[float, Split, float] | None] = [None] * len(self.parts)
        for site, a in seen.items():
            low, high = self._cut_intervals(site)
            gap = self._gaps(site, a[0], low, high)
            for line, (value, neuron) in enumerate(zip(*gap.max(1), strict=True)):
                so_far = best[line]
                if value > 0 and (so_far is None or value > so_far[0]):
                    at = self._point(site, float(low[line, neuron]), float(high[line, neuron]))
                    size = float(a[0, line].flatten()[neuron].abs())
                    best[line] = (float(value), Split(site, int(neuron), at, 1), size)
        return [self._widest(line) if one is None else one[1:] for line, one in enumerate(best)]

    def _widest(self, line: int) -> tuple[Split, float] | None:
        found: tuple[float, Split] | None = None
        for site in self.bounds.program.sites:
            low, high = (one[line] for one in self._cut_intervals(site))
            width, neuron = torch.where(self._bent(site, low, high), high - low, 0.0).max(0)
            if width > 0 and (found is None or width > found[0]):
                at = self._point(site, float(low[neuron]), float(high[neuron]))
                found = float(width), Split(site, int(neuron), at, 1)
        return None if found is None else (found[1], 1.0)

    def _bent(self, site: int, low: Tensor, high: Tensor) -> Tensor:
        """Return which intervals have a break of a piecewise linear activation in them."""
        shape = self.bounds.program.shape_at(site)
        bent = torch.zeros_like(low, dtype=torch.bool)
        for at in shape.breaks if shape.is_piecewise_linear else ():
            bent |= (low < at) & (at < high) & _is_wide(low, high)
        return bent

    def _cut_intervals(self, site: int) -> tuple[Tensor, Tensor]:
        box = self.bounds.boxes[self._source(site)]
        low, high = (
            one.flatten().expand(len(self.parts), -1).clone() for one in (box.low, box.high)
        )
        for line, mine in enumerate(self.intervals):
            for (at, neuron), ends in mine.items():
                if at == site:
                    low[line, neuron], high[line, neuron] = ends
        return low, high

    def _gaps(self, site: int, a: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Return how much the lines of neurons may lower the bound of each part. (R, n)."""
        shape = self.bounds.program.shape_at(site)
        line = Lines(*(one[0].flatten(1).expand_as(low) for one in vars(self.lines[site]).values()))
        below = highest(shape, line.low_slope, low, high) - line.low
        above = line.high - lowest(shape, line.high_slope, low, high)
        gap = torch.where(a.flatten(1) > 0, below, above) * a.flatten(1).abs()
        cut = self._bent(site, low, high) if shape.is_piecewise_linear else _is_wide(low, high)
        return torch.where(cut & (gap > 1e-12), gap, 0.0)

    def _point(self, site: int, low: float, high: float) -> float:
        shape = self.bounds.program.shape_at(site)
        inner = [at for at in shape.breaks if low < at < high]
        middle = (low + high) / 2
        if shape.is_piecewise_linear and inner:
            middle = min(inner, key=lambda at: abs(at - middle))
        return float(np.float32(middle))


def _is_wide(low: Tensor, high: Tensor) -> Tensor:
    """Return which intervals are wide enough for a cut in float32."""
    return high - low > 1e-5 * (1 + low.abs().maximum(high.abs()))


@dataclass(frozen=True)
class _Leaf:
    path: tuple[Split, ...]
    betas: NDArray[np.float32]
    scales: tuple[float, ...]


@dataclass
class _Node:
    """A node of a growing tree: it has two children if it is cut, else it is a leaf."""

    leaf: _Leaf
    cut: Split | None = None
    halves: tuple[_Node, _Node] | None = None


def searched_tree(
    bounds: Bounds, row: Tensor, base: Base, deadline: Deadline, most_parts: int = MOST_PARTS
) -> Tree | None:
    """Search for a tree that proves a row of logits to be above 0; None if the time ends first.

    (1, 1, K) row.  Also None if a part is left that cannot be cut, or after `most_parts` parts.
    """
    root = _Node(_Leaf((), np.empty(0, np.float32), ()))
    count = 1
    waiting: list[tuple[float, int, _Node]] = [(-np.inf, 0, root)]
    while waiting:
        if deadline.is_over or count > most_parts:
            return None
        some = [heapq.heappop(waiting)[2] for _ in range(min(len(waiting), _TOGETHER // 4))]
        work = _Parts(bounds, row, base, [node.leaf.path for node in some])
        cuts = work.next_cuts(work.padded([node.leaf.betas for node in some]))
        halves: list[_Node] = []
        for node, cut in zip(some, cuts, strict=True):
            if cut is None or len(node.leaf.path) >= MOST_SPLITS:
                if not _improved(bounds, row, base, [node], _LONG)[0] > 0:
                    return None
                continue
            node.cut = cut[0]
            node.halves = (_half(node.leaf, *cut, -1), _half(node.leaf, *cut, 1))
            halves += node.halves
        for node, bound in zip(halves, _improved(bounds, row, base, halves, _STEPS), strict=True):
            if not bound > 0:
                count += 1
                heapq.heappush(waiting, (bound, count, node))
    return _written(root)


def _half(leaf: _Leaf, cut: Split, size: float, side: int) -> _Node:
    split = Split(cut.site, cut.neuron, cut.point, side)
    betas = np.append(leaf.betas, np.float32(0))
    return _Node(_Leaf((*leaf.path, split), betas, (*leaf.scales, max(size, _LEAST_SCALE))))


def _improved(
    bounds: Bounds, row: Tensor, base: Base, nodes: Sequence[_Node], steps: int
) -> list[float]:
    """Search for multipliers of leaves in `steps` steps, and return their bounds."""
    if not nodes:
        return []
    work = _Parts(bounds, row, base, [node.leaf.path for node in nodes])
    scales = torch.ones(len(nodes), work.depth, dtype=torch.float64)
    for line, node in enumerate(nodes):
        scales[line, : len(node.leaf.scales)] = torch.tensor(node.leaf.scales)
    start = work.padded([node.leaf.betas for node in nodes])
    best, least = work.searched(start, scales, steps)
    for line, node in enumerate(nodes):
        depth = len(node.leaf.path)
        told = best[line, :depth].numpy().astype(np.float32)
        node.leaf = _Leaf(node.leaf.path, told, node.leaf.scales)
    return least.tolist()


def _written(root: _Node) -> Tree:
    nodes, points, betas = [], [], []
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.halves is None or node.cut is None:
            nodes.append((-1, -1))
            points.append(0.0)
            betas.append(node.leaf.betas)
            continue
        nodes.append((node.cut.site, node.cut.neuron))
        points.append(node.cut.point)
        waiting += reversed(node.halves)
    return Tree(
        np.array(nodes, np.int32),
        np.array(points, np.float32),
        np.concatenate([np.empty(0, np.float32), *betas]),
    )
