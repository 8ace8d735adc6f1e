"""The run of minimum-norm attacks on every image that is right when clean."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from satbench.attacks.minimum_norm import MinimumNorm, minimum_distances
from satbench.calling.devices import device_of
from satbench.core.noise import Noise
from satbench.curve.nearest import Nearest
from satbench.engine.passes import CountingModel, Passes
from satbench.engine.runner import CLEAN, BatchResult, Context, StageWork
from satbench.engine.searched import Searched, Trial, joint
from satbench.engine.stage import Stage
from satbench.engine.suite_run import CleanPass
from satbench.records.curves import CurveAttack


class SearchRun:
    """Minimum-norm attacks in progress; `nearest` gets the points that they find.

    Stage 0 is the clean pass; the attacks are stages 1, 2, …  The result of a unit has the points
    as witnesses, and their distances as margins.
    """

    def __init__(
        self,
        judged: nn.Module,
        suite: Sequence[Stage],
        norm: str,
        nearest: Nearest,
        context: Context,
    ) -> None:
        self.judged, self.suite, self.norm = judged, suite, norm
        self.nearest, self.context, self.target = nearest, context, Searched(judged)
        self._results: list[list[BatchResult]] = [[] for _ in range(len(suite) + 1)]

    def stages(self) -> Iterator[StageWork]:
        """Yield the clean pass, then each attack, on all images that are right when clean."""
        yield CleanPass(self.judged, self.context, np.arange(len(self.context.images.labels)))
        for number, stage in enumerate(self.suite, 1):
            yield _Searching(self, number, stage)

    def fits(self, result: BatchResult) -> bool:
        """Say whether a result is of the clean pass, or has a distance for each point."""
        points = int(result.broken.sum()) if result.stage else 0
        counts = (len(result.witnesses), len(result.margins))
        return result.stage <= len(self.suite) and counts == (points, points)

    def take(self, result: BatchResult) -> None:
        """Take the points of a unit."""
        found = result.indices[result.broken]
        if result.stage == CLEAN:
            self.nearest.distances[found] = 0
        else:
            distances = result.margins.astype(np.float64)
            self.nearest.offer(result.stage - 1, found, result.witnesses, distances)
        self._results[result.stage].append(without_images(result))

    def survivors(self) -> int:
        """Return how many images each attack searches: all that are right when clean."""
        return len(self.nearest.right)

    @property
    def seconds(self) -> list[float]:
        """How long the clean pass and each attack took."""
        return [sum(result.seconds for result in stage) for stage in self._results]

    def costs(self) -> list[CurveAttack]:
        """Return the findings and the cost of each attack."""
        return [
            CurveAttack(
                stage.spec,
                sum(len(result.indices) for result in mine),
                sum(int(result.broken.sum()) for result in mine),
                self.nearest.credit(number),
                sum(result.forwards for result in mine),
                sum(result.backwards for result in mine),
                joint(result.search for result in mine),
            )
            for number, (stage, mine) in enumerate(zip(self.suite, self._results[1:], strict=True))
        ]


class _Searching:
    """One minimum-norm attack in progress."""

    def __init__(self, run: SearchRun, number: int, stage: Stage) -> None:
        self.number, self.stage, self.block = number, stage, stage.block
        self.title, self.under = stage.title, f"under {stage.title}"
        self.model, self.context, self.norm = run.judged, run.context, run.norm
        self.due = run.nearest.right
        self.passes, self.target = Passes(on_pass=run.context.progress.passed), run.target
        self.trial = Trial([run.target])
        self.counting = CountingModel(run.target, self.passes)

    def prepare(self) -> None:
        """Prepare the fast copy of the model."""
        self.target.get_ready()

    def run(self, batch: NDArray[np.int64]) -> BatchResult:
        """Look for the nearest points of one batch."""
        started, context, stage = time.perf_counter(), self.context, self.stage
        x, y = context.load(batch, device_of(self.model))
        block = int(batch[0]) // stage.block if stage.block else 0
        noise = Noise(context.seed, stage.purpose, tuple(batch.tolist()), block)
        attack = cast(MinimumNorm, stage.attack)
        search = partial(
            minimum_distances, self.model, self.counting, x, y, attack, self.norm, noise
        )
        points, sizes = self.trial.run(search, self.passes.mark())
        distances = sizes.cpu().numpy().astype(np.float64)
        found = np.isfinite(distances)
        return BatchResult(
            self.number,
            batch,
            found,
            points.cpu().numpy()[found],
            *self.passes.take(),
            time.perf_counter() - started,
            margins=distances[found],
            search=self.trial.kind,
        )


def without_images(result: BatchResult) -> BatchResult:
    """Return a result without its images."""
    nothing = np.empty(0, np.float32)
    return replace(result, witnesses=result.witnesses[:0], points=nothing)
