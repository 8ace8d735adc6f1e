"""Trees of a branch and bound as arrays, and their parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_SPLITS = 200
"""The most cuts of a part: the depth of a tree."""

MOST_NODES = 50_000
"""The most nodes of a tree: more than a search ever makes."""


@dataclass(frozen=True)
class Split:
    """One half of a neuron's interval: `side` is -1 for z ≤ point, 1 for z ≥ point.

    `neuron` is a place in the flattened activation `site`.
    """

    site: int
    neuron: int
    point: float
    side: int


@dataclass(frozen=True)
class Tree:
    """The cuts with which a row of logits was bounded, part by part.

    `nodes` (M, 2) int32 has the site and the neuron of each cut in prefix order, the lower half
    before the upper one, and (-1, -1) for a part that is not cut further; `points` (M,) float32 has
    the values at which they were cut.  `betas` float32 has the multipliers of each part, in the
    order of the cuts that lead to it.
    """

    nodes: NDArray[np.int32]
    points: NDArray[np.float32]
    betas: NDArray[np.float32]


class BadTreeError(ValueError):
    """A tree does not cover the whole, or has invalid numbers."""


def parts_of(tree: Tree) -> tuple[list[tuple[Split, ...]], list[NDArray[np.float32]]]:
    """Return the splits that lead to each part of a tree, and its multipliers.

    Raises BadTreeError for nodes that are no complete tree, and multipliers that do not fit.
    """
    if len(tree.nodes) > MOST_NODES:
        raise BadTreeError(f"it has {len(tree.nodes):,} nodes, more than {MOST_NODES:,}")
    parts: list[tuple[Split, ...]] = []
    betas: list[NDArray[np.float32]] = []
    waiting: list[tuple[Split, ...]] = [()]
    used = 0
    for (site, neuron), point in zip(tree.nodes.tolist(), tree.points.tolist(), strict=True):
        if not waiting:
            raise BadTreeError("it goes on after its last part")
        path = waiting.pop()
        if site < 0:
            parts.append(path)
            betas.append(tree.betas[used : used + len(path)])
            used += len(path)
            continue
        if len(path) >= MOST_SPLITS:
            raise BadTreeError(f"it is more than {MOST_SPLITS} cuts deep")
        waiting.append((*path, Split(site, neuron, point, 1)))
        waiting.append((*path, Split(site, neuron, point, -1)))
    if waiting:
        raise BadTreeError("it leaves a part out")
    if used != len(tree.betas):
        raise BadTreeError(f"it has {len(tree.betas)} multipliers for {used} cuts")
    if not (np.isfinite(tree.betas).all() and (tree.betas >= 0).all()):
        raise BadTreeError("expected multipliers from 0 on")
    return parts, betas
