"""What a run remembers from stage to stage, and what it lends: for attacks that build on others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.attacks.borrow import searching_copy
from satbench.attacks.contract import Hints, History, Informed, Lender
from satbench.attacks.passes import CountingModel, Passes
from satbench.attacks.suite import Stage
from satbench.core.noise import generator_for


class Result(Protocol):
    """A finished batch as far as it is remembered, such as the engine's `BatchResult`."""

    @property
    def stage(self) -> int:
        """The stage's number."""
        ...

    @property
    def indices(self) -> NDArray[np.int64]:
        """Places in the data set, (B,)."""
        ...

    @property
    def broken(self) -> NDArray[np.bool_]:
        """The judge's word, (B,)."""
        ...

    @property
    def margins(self) -> NDArray[np.float32]:
        """Margins told, (B,) or empty."""
        ...

    @property
    def points(self) -> NDArray[np.float32]:
        """Points told of the survivors, (S, C, H, W) or empty."""
        ...


@dataclass(frozen=True)
class Known:
    """What stages before one told: the least margin of each image (N,), and where it was reached.

    `points` (N, C, H, W) is empty where no attack of the suite goes on from others.
    """

    margins: NDArray[np.float32]
    points: NDArray[np.float32]

    def hints(self, batch: NDArray[np.int64], x: Tensor) -> Hints:
        """Return what is known of the images `x` at the places `batch`."""
        margins = torch.from_numpy(self.margins[batch]).to(x.device)
        if not len(self.points):
            return Hints(margins, x)
        points = torch.from_numpy(self.points[batch]).to(x.device)
        known = margins.isfinite().view(-1, *[1] * (x.dim() - 1))
        return Hints(margins, torch.where(known, points, x))


class Memory:
    """The results of a run, stage by stage; what one stage is told is fixed when it begins.

    Points are kept for suites with an informed attack alone: one image of float32 a survivor.
    """

    def __init__(self, shape: tuple[int, ...], suite: Sequence[Stage]) -> None:
        self._shape, self._suite = shape, suite
        self._keeps = any(isinstance(stage.attack, Informed) for stage in suite)
        self._told: dict[int, list[Result]] = {}
        self._counts = np.zeros((len(suite) + 1, 2), int)  # attacked, broken
        self._prepared: set[int] = set()

    def add(self, result: Result) -> None:
        """Remember one result."""
        if not len(result.indices):
            self._prepared.add(result.stage)
        self._counts[result.stage] += len(result.indices), int(result.broken.sum())
        if self._keeps and len(result.margins):
            self._told.setdefault(result.stage, []).append(result)

    def prepared(self, number: int) -> bool:
        """Whether the preparation of a stage has been written down."""
        return number in self._prepared

    def before(self, number: int) -> Known:
        """Return what the stages before `number` told."""
        margins = np.full(self._shape[0], np.inf, np.float32)
        if not self._keeps:
            return Known(margins, np.empty((0, *self._shape[1:]), np.float32))
        points = np.zeros(self._shape, np.float32)  # untouched pages take no memory
        for result in (
            r for stage in sorted(self._told) if stage < number for r in self._told[stage]
        ):
            survivors = ~result.broken
            rows, told = result.indices[survivors], result.margins[survivors]
            better = told < margins[rows]
            margins[rows[better]] = told[better]
            points[rows[better]] = result.points[better]
        return Known(margins, points)

    def history(
        self,
        number: int,
        survivors: NDArray[np.bool_],
        entered: NDArray[np.bool_],
        seed: int,
    ) -> History:
        """Return what is known of every image when stage `number` begins."""
        earlier = list(enumerate(self._suite[: number - 1], 1))
        spec = self._suite[number - 1].spec
        share = [generator_for(seed, spec, "share", i).random() for i in range(self._shape[0])]
        return History(
            survivors,
            entered,
            self.before(number).margins,
            broken={stage.part or stage.spec: int(self._counts[k, 1]) for k, stage in earlier},
            attacked={stage.part or stage.spec: int(self._counts[k, 0]) for k, stage in earlier},
            share=np.array(share),
        )


class CountedLent:
    """What a run lends, with every pass of it counted."""

    def __init__(self, lent: Lender, passes: Passes, device: torch.device) -> None:
        self._lent, self._passes, self._device = lent, passes, device

    def source(self, name: str) -> nn.Module:
        """Return another model, made for searching, frozen, in eval mode, on the device."""
        module = self._lent.source(name).eval().requires_grad_(False).to(self._device)
        return CountingModel(searching_copy(module), self._passes)

    def pool(self, n: int) -> NDArray[np.float32]:
        """Return up to `n` images that are not under evaluation."""
        return self._lent.pool(n)

    def spent(self, forwards: int, backwards: int) -> None:
        """Count passes of a model that the attack made itself."""
        self._passes.forwards += forwards
        self._passes.backwards += backwards
