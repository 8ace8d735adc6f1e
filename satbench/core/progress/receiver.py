"""Who is told of the progress of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from satbench.core.progress.course import StageCost


class Progress(Protocol):
    """A receiver of the progress of a run."""

    def expect(self, costs: Sequence[StageCost]) -> None:
        """The stages of a run are about to begin, the clean pass first, each with what it costs.

        Nothing is expected where the costs are not known.
        """
        ...

    def stage(self, title: str, total: int, done: int) -> None:
        """A stage begins, of `total` images, `done` of them from an earlier start."""
        ...

    def passed(self, passes: int) -> None:
        """So many images have gone through a model, forward or backward."""
        ...

    def advance(self, images: int, survivors: int) -> None:
        """A batch is finished; so many images of the whole run still survive."""
        ...

    def note(self, text: str) -> None:
        """Something that a user should know of the run."""
        ...


class NoProgress:
    """Progress that is not shown."""

    def expect(self, costs: Sequence[StageCost]) -> None:
        """A run begins."""

    def stage(self, title: str, total: int, done: int) -> None:
        """A stage begins."""

    def passed(self, passes: int) -> None:
        """Images have gone through a model."""

    def advance(self, images: int, survivors: int) -> None:
        """A batch is finished."""

    def note(self, text: str) -> None:
        """Something that a user should know."""
