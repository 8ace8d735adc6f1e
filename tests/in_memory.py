"""A journal and progress of a run in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from satbench.core.progress.receiver import NoProgress, Progress
from satbench.core.threat import Threat
from satbench.engine import suite_run
from satbench.engine.runner import BatchResult, Context, Images
from satbench.engine.stage import Stage


class Journal(list[BatchResult]):
    """The batches that a run has written, in order."""

    def finished(self) -> list[BatchResult]:
        return list(self)

    def write(self, result: BatchResult) -> None:
        self.append(result)

    def of_stage(self, number: int) -> list[BatchResult]:
        return [result for result in self if result.stage == number]


class Quiet(NoProgress):
    """Progress without output; it may stop the run after some batches."""

    def __init__(self, stop_after: int = -1) -> None:
        self._left = stop_after

    def advance(self, images: int, survivors: int) -> None:
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt


def run_suite(
    model: nn.Module,
    images: Images,
    threat: Threat,
    suite: Sequence[Stage],
    seed: int,
    batch_size: int,
    journal: Journal,
    progress: Progress,
    surrogates: Any = None,
    replacements: Any = None,
    span: slice = slice(None),
    timeout: float | None = None,
) -> NDArray[np.int16]:
    """Run a suite with all settings of its context, in one call."""
    context = Context(
        images, threat, journal, progress, seed, batch_size, surrogates, replacements or {}, timeout
    )
    return suite_run.run_suite(model, suite, context, span)
