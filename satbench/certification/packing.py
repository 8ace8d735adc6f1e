"""Conversion of the proofs of images to the arrays of a file, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from satbench.certification.proving import ImageProof
from satbench.certification.trees import Tree
from satbench.records.certificates import Proofs


def packed(proofs: Mapping[int, ImageProof], neurons: int) -> Proofs:
    """Return the proofs of images, by their places in the data set, as arrays."""
    indices = sorted(proofs)
    slopes = [(i, name, one) for i in indices for name, one in sorted(proofs[i].slopes.items())]
    trees = [(i, name, one) for i in indices for name, one in sorted(proofs[i].trees.items())]
    sizes = [(len(tree.nodes), len(tree.betas)) for _, _, tree in trees]
    return Proofs(
        np.array(indices, np.int64),
        np.array([proofs[i].method for i in indices], np.uint8),
        _pairs([(i, name) for i, name, _ in slopes]),
        np.array([one for _, _, one in slopes], np.float16).reshape(-1, 2, neurons),
        _pairs([(i, name) for i, name, _ in trees]),
        np.cumsum(_pairs(sizes), axis=0),
        np.concatenate([np.empty((0, 2), np.int32), *(tree.nodes for _, _, tree in trees)]),
        np.concatenate([np.empty(0, np.float32), *(tree.points for _, _, tree in trees)]),
        np.concatenate([np.empty(0, np.float32), *(tree.betas for _, _, tree in trees)]),
    )


def unpacked(proofs: Proofs) -> Iterator[tuple[int, ImageProof]]:
    """Yield each image's place in the data set, and its proof."""
    slopes: dict[int, dict[int, NDArray[np.float16]]] = {}
    for (index, name), one in zip(proofs.slope_of.tolist(), proofs.slopes, strict=True):
        slopes.setdefault(index, {})[name] = one
    trees: dict[int, dict[int, Tree]] = {}
    first = [0, 0]
    for (index, name), last in zip(proofs.tree_of.tolist(), proofs.tree_ends.tolist(), strict=True):
        nodes, betas = slice(first[0], last[0]), slice(first[1], last[1])
        tree = Tree(proofs.nodes[nodes], proofs.points[nodes], proofs.betas[betas])
        trees.setdefault(index, {})[name] = tree
        first = last
    for index, method in zip(proofs.indices.tolist(), proofs.methods.tolist(), strict=True):
        yield index, ImageProof(method, slopes.get(index, {}), trees.get(index, {}))


def _pairs(values: list[tuple[int, int]]) -> NDArray[np.int64]:
    return np.array(values, np.int64).reshape(-1, 2)
