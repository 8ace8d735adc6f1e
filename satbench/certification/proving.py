"""Proofs that no image of a region is classified as another class, and their check.

A proof names its method and has the results of a search: slopes and trees.  The check computes
every bound again from the weights, so a wrong proof proves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from satbench.certification.bounding.bounds import (
    Bounds,
    interval_bounds,
    logit_bounds,
    lower_bounds,
    margin_rows,
)
from satbench.certification.bounding.crown import (
    Deadline,
    OutOfTimeError,
    crown_bounds,
    lines_with,
    searched_slopes,
)
from satbench.certification.bounding.lines import Lines
from satbench.certification.bounding.program import Program
from satbench.certification.bounding.region import Region
from satbench.certification.bounding.rounding import Roundoff
from satbench.certification.branching import searched_tree, tree_bound
from satbench.certification.trees import BadTreeError, Tree
from satbench.records.certificates import METHODS

IBP, CROWN_IBP, CROWN, ALPHA, BAB = range(len(METHODS))

SLOPE_STEPS = 30
"""The steps of the search for slopes."""

MOST_SLOPE = 1e4
"""The largest slope in a proof."""


@dataclass(frozen=True)
class ImageProof:
    """The proof that one image is certified.

    `method` is a place in `METHODS`.  `slopes` has, for some classes, the slopes of the lines below
    and above all activations, (2, neurons) float16, for the bound of the label's logit minus the
    class's; `trees` has trees of such rows.
    """

    method: int
    slopes: Mapping[int, NDArray[np.float16]] = field(default_factory=dict)
    trees: Mapping[int, Tree] = field(default_factory=dict)


class BadProofError(ValueError):
    """A proof that does not fit this program."""


@dataclass(frozen=True)
class Attempt:
    """The result of trying to prove an image: a proof or None, and the least proven margin.

    `out_of_time` says that the time ended before all methods were tried.
    """

    proof: ImageProof | None
    margin: float
    out_of_time: bool = False


@dataclass(frozen=True)
class Prover:
    """The prover for images of one network."""

    program: Program
    rounding: Roundoff

    def prove(self, region: Region, label: int, method: int, deadline: Deadline) -> Attempt:
        """Try the methods up to `method`, the cheapest first, on the region around one image."""
        try:
            with torch.no_grad():
                return self._proven(region, label, method, deadline)
        except OutOfTimeError:
            return Attempt(None, -np.inf, out_of_time=True)

    def check(self, region: Region, label: int, proof: ImageProof) -> float:
        """Return the least margin of the label's logit over another's that a proof shows.

        The image is certified if it is above 0.  Raises BadProofError.
        """
        with torch.no_grad():
            bounds = self._bounds(region, proof.method, Deadline())
            return float(self._shown(bounds, label, proof).min())

    def _proven(self, region: Region, label: int, method: int, deadline: Deadline) -> Attempt:
        best = -np.inf
        bounds = self._bounds(region, IBP, deadline)
        for cheap in (IBP, CROWN_IBP, CROWN)[: method + 1]:
            if cheap == CROWN:
                bounds = self._bounds(region, CROWN, deadline)
            shown = self._shown(bounds, label, ImageProof(cheap))
            best = max(best, float(shown.min()))
            if best > 0:
                return Attempt(ImageProof(cheap), float(shown.min()))
        if method < ALPHA:
            return Attempt(None, best, deadline.is_over)
        proof = self._with_slopes(bounds, label, shown, deadline)
        shown = self._shown(bounds, label, proof)
        if method == BAB and not float(shown.min()) > 0:
            proof = self._with_trees(bounds, label, shown, proof, deadline)
            shown = self._shown(bounds, label, proof)
        least = float(shown.min())
        # A margin that is not finite does not count as shown.
        return Attempt(
            proof if least > 0 else None, max(best, least), least <= 0 and deadline.is_over
        )

    def _bounds(self, region: Region, method: int, deadline: Deadline) -> Bounds:
        if method < CROWN:
            return interval_bounds(self.program, region, self.rounding)
        return crown_bounds(self.program, region, self.rounding, deadline)

    def _shown(self, bounds: Bounds, label: int, proof: ImageProof) -> Tensor:
        """Return the margins that a proof shows, by bounds of its method.  -> (K - 1,)."""
        if not IBP <= proof.method <= BAB:
            raise BadProofError(f"there is no method {proof.method}")
        rows = self._rows(label)
        shown = logit_bounds(bounds, rows, until_last_site=True)[0]
        if proof.method > IBP:
            shown = shown.maximum(logit_bounds(bounds, rows)[0])
        known = set(range(self.program.classes)) - {label}
        if not set(proof.slopes) | set(proof.trees) <= known:
            raise BadProofError("it is about a class that the model does not have")
        if (proof.slopes and proof.method < ALPHA) or (proof.trees and proof.method < BAB):
            raise BadProofError(f"{METHODS[proof.method]} has no such parts")
        for name in sorted(known):
            place = name - (name > label)
            base = self._base(bounds, proof, name)
            row = rows[:, place : place + 1]
            if base and name not in proof.trees:
                start = len(self.program.steps) - 1
                found = lower_bounds(bounds, start, row, lines=base)[0, 0]
                shown[place] = shown[place].maximum(found)
            if name in proof.trees:
                try:
                    found_here = tree_bound(bounds, row, base, proof.trees[name])
                except BadTreeError as error:
                    raise BadProofError(str(error)) from None
                shown[place] = max(float(shown[place]), found_here)
        return torch.nan_to_num(shown, nan=-torch.inf)

    def _rows(self, label: int) -> Tensor:
        return margin_rows(torch.tensor([label]), self.program.classes)

    def _base(self, bounds: Bounds, proof: ImageProof, name: int) -> dict[int, Lines]:
        """Return the lines of a proof's slopes for a class; none if it has none."""
        if name not in proof.slopes:
            return {}
        given = proof.slopes[name]
        if given.shape != (2, self.program.neurons) or not (np.abs(given) <= MOST_SLOPE).all():
            raise BadProofError(
                f"expected slopes of {self.program.neurons} neurons, at most {MOST_SLOPE:g} each"
            )
        found, first = {}, 0
        for site in self.program.sites:
            shape = self.program.steps[site].shape
            last = first + int(np.prod(shape))
            both = torch.from_numpy(given[:, first:last].astype(np.float64)).view(2, 1, 1, *shape)
            found[site], first = (both[0], both[1]), last
        return lines_with(bounds, found)

    def _with_slopes(
        self, bounds: Bounds, label: int, shown: Tensor, deadline: Deadline
    ) -> ImageProof:
        open_ones = torch.nonzero(shown <= 0)[:, 0]
        rows = self._rows(label)[:, open_ones]
        found = searched_slopes(bounds, rows, SLOPE_STEPS, deadline)
        told = {}
        for line, place in enumerate(open_ones.tolist()):
            flat = [
                torch.stack([one[0, line].flatten() for one in pair]) for pair in found.values()
            ]
            told[place + (place >= label)] = torch.cat(flat, 1).numpy().astype(np.float16)
        return ImageProof(ALPHA, told)

    def _with_trees(
        self, bounds: Bounds, label: int, shown: Tensor, proof: ImageProof, deadline: Deadline
    ) -> ImageProof:
        """Search for trees of the open rows, the lowest first; a failure ends the search."""
        rows, trees = self._rows(label), {}
        for place in torch.argsort(shown).tolist():
            if float(shown[place]) > 0:
                continue
            name = place + (place >= label)
            base = self._base(bounds, proof, name)
            tree = searched_tree(bounds, rows[:, place : place + 1], base, deadline)
            if tree is None:
                return proof
            trees[name] = tree
        return ImageProof(BAB, proof.slopes, trees)
