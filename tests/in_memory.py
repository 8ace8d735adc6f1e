"""A journal and progress of a run that lie in memory."""

from __future__ import annotations

from satbench.engine.runner import BatchResult


class Journal(list[BatchResult]):
    """The batches that a run has written, in order."""

    def finished(self) -> list[BatchResult]:
        return list(self)

    def write(self, result: BatchResult) -> None:
        self.append(result)

    def of_stage(self, number: int) -> list[BatchResult]:
        return [result for result in self if result.stage == number]


class Quiet:
    """Progress that nobody is told of; it may stop the run after so many batches."""

    def __init__(self, stop_after: int = -1) -> None:
        self._left = stop_after

    def stage(self, title: str, total: int, done: int) -> None: ...

    def advance(self, images: int, survivors: int) -> None:
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt
