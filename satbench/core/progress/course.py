"""The course of a run in passes: how many are done, how many are left, and how long that takes.

What is left is estimated from the cost of each stage on an image that holds out, and from what the
run has shown so far: the passes that an image of the current stage took, and how many survive it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_FEW = 2.0  # seconds of a stage after which its own rate counts
_NEARLY = 0.05
_LATELY = 20.0  # seconds whose rate counts more than that of the time before


@dataclass(frozen=True)
class StageCost:
    """What a stage costs: passes on an image that holds out, 0 where nobody knows.

    `share` is the part of the survivors that the stage takes on, about.
    """

    passes: float
    share: float = 1.0


class Course:
    """The course of a run, told of what happens; `clock` returns seconds.

    >>> now = iter(range(100))
    >>> course = Course(lambda: next(now))
    >>> course.expect([StageCost(1), StageCost(100)])
    >>> course.stage("clean", total=10, done=0)
    >>> course.passed(10)
    >>> course.advance(10, survivors=8)
    >>> course.stage("pgd-50", total=8, done=0)
    >>> course.done, course.left
    (10, 800.0)
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._started = clock, clock()
        self._costs: Sequence[StageCost] = ()
        self._number = -1
        self._before = 0.0  # passes a second of the stage before
        self._marks = [(self._started, 0)]  # times, with the passes that were done by then
        self._told_at = 0  # passes at the end of the last batch
        self._begun_at = 0  # passes at the beginning of the stage
        self._images = self._broken = 0  # of this stage, that batches of this start have ended
        self._survivors: int | None = None
        self.title, self.total, self.taken = "", 0, 0
        self.done = 0

    def expect(self, costs: Sequence[StageCost]) -> None:
        """The stages of a run are about to begin, the clean pass first."""
        self._costs, self._number = costs, -1

    def stage(self, title: str, total: int, done: int) -> None:
        """A stage begins, of `total` images, `done` of them from an earlier start."""
        self._number += 1
        self._before, self._marks = self.rate, [(self._clock(), self.done)]
        self.title, self.total, self.taken = title, total, done
        self._images = self._broken = 0
        self._told_at = self._begun_at = self.done
        if self._survivors is None:
            self._survivors = total

    def passed(self, passes: int) -> None:
        """So many images have gone through a model, forward or backward."""
        self.done += passes
        now = self._clock()
        if now - self._marks[-1][0] >= 1.0:
            self._marks.append((now, self.done))
            while len(self._marks) > 2 and now - self._marks[1][0] > _LATELY:
                del self._marks[0]

    def advance(self, images: int, survivors: int) -> None:
        """A batch is finished; so many images of the whole run still survive."""
        self.taken += images
        self._images += images
        self._broken += max(0, (self._survivors or 0) - survivors)
        self._survivors, self._told_at = survivors, self.done

    @property
    def survivors(self) -> int | None:
        """How many images survive; None while no batch is finished."""
        return self._survivors if self._number > 0 or self._images else None

    @property
    def known(self) -> bool:
        """Whether the stages to come are known, so that what is left can be estimated."""
        return bool(self._costs)

    @property
    def place(self) -> str:
        """Which stage of how many it is, ` (2 of 5)`; empty for the clean pass."""
        last = len(self._costs) - 1
        return f" ({self._number} of {last})" if 1 <= self._number <= last else ""

    @property
    def left(self) -> float:
        """About how many passes are left, of this stage and of those after it."""
        to_go = max(0, self.total - self.taken)
        under_way = self.done - self._told_at
        # A batch that takes more than was thought is taken to be nearly done.
        here = max(_NEARLY * under_way, self._an_image() * to_go - under_way)
        survivors = float(self._survivors or 0)
        if self._images:
            survivors = max(0.0, survivors - to_go * self._broken / self._images)
        later = self._costs[max(0, self._number) + 1 :]
        return here + survivors * sum(self._of(one) * one.share for one in later)

    @property
    def share(self) -> float:
        """The share of all passes that is done, in [0, 1]; of the images where no cost is known."""
        if not self.known:
            return self._share_of_images()
        whole = self.done + self.left
        return self.done / whole if whole else 0.0

    @property
    def rate(self) -> float:
        """Passes a second lately; 0 before there are any."""
        begun, done = self._marks[0]
        seconds = self._clock() - begun
        if seconds < _FEW and self._before:
            return self._before
        return (self.done - done) / seconds if seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """About how many seconds the rest takes; None where nothing is known."""
        rate = self.rate
        if not rate or (not self.known and not self._images):
            return None
        return self.left / rate

    def _an_image(self) -> float:
        """Return the passes of an image of this stage: those so far, else those that are known."""
        if self._images:
            return (self._told_at - self._begun_at) / self._images
        if self._number < len(self._costs) and self._number >= 0:
            return self._of(self._costs[self._number])
        return 0.0

    def _share_of_images(self) -> float:
        """Return the share of the stage's images, those under way counted by their passes."""
        each = self._an_image()
        under_way = (self.done - self._told_at) / each if each else 0.0
        taken = min(self.total, self.taken + under_way)
        return taken / self.total if self.total else 0.0

    def _of(self, cost: StageCost) -> float:
        """Return the passes of a stage; where nobody knows, the mean of the others."""
        if cost.passes:
            return cost.passes
        known = [one.passes for one in self._costs[1:] if one.passes]
        return sum(known) / len(known) if known else 0.0
