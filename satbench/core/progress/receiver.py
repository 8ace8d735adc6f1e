"""Receivers of the progress of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from satbench.core.progress.course import StageCost


class Progress(Protocol):
    """A receiver of the progress of a run."""

    def expect(self, costs: Sequence[StageCost]) -> None:
        """The stages of a run begin, the clean pass first, each with its cost.

        The list is empty if the costs are not known.
        """
        ...

    def stage(self, title: str, total: int, done: int) -> None:
        """A stage begins, of `total` images, `done` of them from an earlier start."""
        ...

    def passed(self, passes: int) -> None:
        """A number of images have gone through a model, forward or backward."""
        ...

    def advance(self, images: int, survivors: int) -> None:
        """A batch is finished; `survivors` images of the whole run still survive."""
        ...

    def note(self, text: str) -> None:
        """A message for the user about the run."""
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
        """A message for the user."""
