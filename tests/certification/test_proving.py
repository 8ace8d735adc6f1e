"""Proofs: against the exact answer on tiny nets, and refused where they were changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch
from bounded_nets import EXACT, around, perceptron
from torch import Tensor, nn

from satbench.certification.bounding.crown import Deadline
from satbench.certification.bounding.program import read_program
from satbench.certification.bounding.region import Region
from satbench.certification.proving import (
    ALPHA,
    BAB,
    CROWN,
    CROWN_IBP,
    IBP,
    BadProofError,
    ImageProof,
    Prover,
)
from satbench.certification.trees import BadTreeError, Tree, parts_of

SHAPE = (1, 1, 2)


def prover(net: nn.Module) -> Prover:
    return Prover(read_program(net, SHAPE), EXACT)


@dataclass(frozen=True)
class Case:
    """A net of two inputs, an image that it has right, and the eps at which that ends."""

    net: nn.Module
    x: Tensor
    label: int
    critical: float

    def exact(self, eps: float) -> float:
        """The least margin of a label's logit, but for the spacing of a grid."""
        return least_margin(self.net, self.x, self.label, eps)


GRID = torch.cartesian_prod(*2 * [torch.linspace(-1, 1, 101, dtype=torch.float64)])


def least_margin(net: nn.Module, x: Tensor, label: int, eps: float) -> float:
    logits = net((x + eps * GRID.view(-1, 1, 1, 2)).clamp(0, 1))
    others = [k for k in range(logits.shape[1]) if k != label]
    return float((logits[:, [label]] - logits[:, others]).min())


@cache
def case(activation: str, seed: int) -> Case:
    net = perceptron(activation, 2, 6, 6, 3, seed=seed)
    for layer in net[1::2]:
        layer.weight.mul_(2.5)
    drawn = torch.Generator().manual_seed(seed)
    x = 0.3 + 0.4 * torch.rand(1, *SHAPE, generator=drawn).double()
    label = int(net(x).argmax())
    low, high = 0.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if least_margin(net, x, label, middle) > 0 else (low, middle)
    return Case(net, x, label, low)


CASES = [
    ("relu", 5, 0.95),
    ("relu", 7, 0.95),
    ("silu", 4, 0.8),
    ("elu", 4, 0.9),
    ("pssilu", 1, 0.9),
]
"""The share of the critical eps up to which a smooth net is proven in a second."""


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("activation", "seed", "near"), CASES)
def test_bab_proves_nearly_all_that_is_true_and_nothing_that_is_not(
    activation: str, seed: int, near: float
) -> None:
    one = case(activation, seed)
    proves = prover(one.net)
    for share in (near, 1.05):
        eps = share * one.critical
        region, exact = around(one.x, eps), one.exact(eps)
        for method in (IBP, CROWN_IBP, CROWN, ALPHA, BAB):
            if method == BAB and share > 1 and activation != "relu":
                continue  # a smooth net's intervals can be halved for ever
            attempt = proves.prove(region, one.label, method, Deadline())
            assert attempt.margin <= exact + 1e-9
            if share > 1:
                assert attempt.proof is None
            elif attempt.proof is not None:
                shown = proves.check(region, one.label, attempt.proof)
                assert 0 < shown == attempt.margin
        if share < 1:
            assert attempt.proof is not None


def test_each_method_is_needed_by_some() -> None:
    """Else the test above says nothing about the methods that it does not come to."""
    used = set()
    for activation, seed, share in (
        ("relu", 5, 0.3), ("relu", 5, 0.5), ("silu", 2, 0.9), ("pssilu", 1, 0.9), ("silu", 4, 0.7),
    ):  # fmt: skip
        one = case(activation, seed)
        region = around(one.x, share * one.critical)
        attempt = prover(one.net).prove(region, one.label, BAB, Deadline())
        assert attempt.proof is not None
        used.add(attempt.proof.method)
    assert used == {IBP, CROWN_IBP, CROWN, ALPHA, BAB}


@pytest.fixture(scope="module")
def proven() -> tuple[Prover, Region, int, ImageProof]:
    """An image that only a tree proves."""
    for seed in range(12):
        one = case("relu", seed)
        for share in (0.9, 0.96):
            region, proves = around(one.x, share * one.critical), prover(one.net)
            attempt = proves.prove(region, one.label, BAB, Deadline())
            if attempt.proof is not None and attempt.proof.trees:
                return proves, region, one.label, attempt.proof
    raise AssertionError("no image needs a tree")


def test_a_proof_shows_nothing_at_a_larger_radius_or_for_another_label(
    proven: tuple[Prover, Region, int, ImageProof],
) -> None:
    proves, region, label, proof = proven
    assert proves.check(region, label, proof) > 0
    alone = ImageProof(ALPHA, proof.slopes)
    assert proves.check(region, label, alone) < 0
    assert proves.check(around(region.centre, 2 * region.radius), label, alone) < 0
    for other in {0, 1, 2} - {label}:
        swapped = {label: next(iter(proof.slopes.values()))}
        assert proves.check(region, other, ImageProof(ALPHA, swapped)) < 0
        with pytest.raises(BadProofError):
            proves.check(region, other, ImageProof(ALPHA, {other: swapped[label]}))


def changed(tree: Tree, **fields: object) -> Tree:
    return replace(tree, **fields)  # type: ignore[arg-type]


def test_a_tree_that_was_changed_is_refused_or_shows_no_more(
    proven: tuple[Prover, Region, int, ImageProof],
) -> None:
    proves, region, label, proof = proven
    name, tree = next(iter(proof.trees.items()))
    honest = proves.check(region, label, proof)

    def shown(other: Tree) -> float:
        return proves.check(region, label, replace(proof, trees={**proof.trees, name: other}))

    leaf = int(np.flatnonzero(tree.nodes[:, 0] < 0)[0])
    without = changed(
        tree, nodes=np.delete(tree.nodes, leaf, 0), points=np.delete(tree.points, leaf)
    )
    for bad in (
        without,
        changed(tree, nodes=tree.nodes[:0], points=tree.points[:0], betas=tree.betas[:0]),
        changed(tree, nodes=np.where(tree.nodes >= 0, tree.nodes + 1, -1).astype(np.int32)),
        changed(
            tree, nodes=np.where([1, 0] * (tree.nodes >= 0), tree.nodes, 10**6).astype(np.int32)
        ),
        changed(tree, points=tree.points + np.float32(1e3)),
        changed(tree, points=tree.points * np.float32("nan")),
        changed(tree, betas=-1 - tree.betas),
        changed(tree, betas=tree.betas + np.float32("inf")),
        changed(tree, betas=tree.betas[1:]),
        changed(tree, betas=np.append(tree.betas, tree.betas[:1])),
    ):
        with pytest.raises(BadProofError):
            shown(bad)
    assert shown(changed(tree, betas=0 * tree.betas)) <= honest + 1e-9
    # More weight than the search found to be best is sound too, and mostly shows less.
    assert shown(changed(tree, betas=100 + tree.betas)) < honest


def test_slopes_that_were_changed_are_refused_or_show_no_more_than_is_true(
    proven: tuple[Prover, Region, int, ImageProof],
) -> None:
    proves, region, label, proof = proven
    alone = replace(proof, method=ALPHA, trees={})
    name, slopes = next(iter(proof.slopes.items()))
    for bad in (slopes * np.float16("nan"), slopes + np.float16(2e4), slopes[:, 1:]):
        with pytest.raises(BadProofError):
            proves.check(region, label, replace(alone, slopes={name: bad}))
    with pytest.raises(BadProofError):
        proves.check(region, label, replace(alone, slopes={7: slopes}))
    with pytest.raises(BadProofError):
        proves.check(region, label, replace(alone, method=CROWN))
    with pytest.raises(BadProofError):
        proves.check(region, label, replace(alone, method=9))
    wild = proves.check(region, label, replace(alone, slopes={name: slopes * 0 + np.float16(50)}))
    assert wild <= proves.check(region, label, alone) + 1e-9


def test_parts_of_a_tree_come_in_the_order_of_their_nodes() -> None:
    tree = Tree(
        np.array([[1, 0], [-1, -1], [3, 2], [-1, -1], [-1, -1]], np.int32),
        np.array([0.5, 0, 0.25, 0, 0], np.float32),
        np.arange(5, dtype=np.float32),
    )
    parts, betas = parts_of(tree)

    assert [[(one.site, one.side) for one in path] for path in parts] == [
        [(1, -1)],
        [(1, 1), (3, -1)],
        [(1, 1), (3, 1)],
    ]
    assert [part.tolist() for part in betas] == [[0], [1, 2], [3, 4]]
    with pytest.raises(BadTreeError):
        parts_of(replace(tree, nodes=np.full((5, 2), 1, np.int32)))


def test_an_image_out_of_time_is_undecided() -> None:
    one = case("silu", 2)
    over = prover(one.net).prove(
        around(one.x, 0.93 * one.critical), one.label, BAB, Deadline.after(-1)
    )

    assert over.proof is None
    assert over.out_of_time
