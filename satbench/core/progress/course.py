"""The course of a run in passes: how many are done, how many are left, and the remaining time.

The rest is estimated from the cost of each stage on a surviving image, and from the run so far: the
passes that an image of the current stage took, and how many images survive it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_FEW = 2.0  # seconds of a stage after which only its own rate counts
_NEARLY = 0.05
_LATELY = 20.0  # the last seconds, whose rate has a larger weight


@dataclass(frozen=True)
class StageCost:
    """The cost of a stage: passes on a surviving image, 0 if unknown.

    `share` is the approximate part of the survivors that the stage attacks.
    """

    passes: float
    share: float = 1.0


class Course:
    """The course of a run, updated by its events; `clock` returns seconds.

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
        self._before = 0.0  # passes per second of the stage before
        self._marks = [(self._started, 0)]  # times, with the passes that were done then
        self._told_at = 0  # passes at the end of the last batch
        self._begun_at = 0  # passes at the beginning of the stage
        self._images = self._broken = 0  # images of this stage in batches that have ended
        self._survivors: int | None = None
        self.title, self.total, self.taken = "", 0, 0
        self.done = 0

    def expect(self, costs: Sequence[StageCost]) -> None:
        """The stages of a run begin, the clean pass first."""
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
        """A number of images have gone through a model, forward or backward."""
        self.done += passes
        now = self._clock()
        if now - self._marks[-1][0] >= 1.0:
            self._marks.append((now, self.done))
            while len(self._marks) > 2 and now - self._marks[1][0] > _LATELY:
                del self._marks[0]

    def advance(self, images: int, survivors: int) -> None:
        """A batch is finished; `survivors` images of the whole run still survive."""
        self.taken += images
        self._images += images
        self._broken += max(0, (self._survivors or 0) - survivors)
        self._survivors, self._told_at = survivors, self.done

    @property
    def survivors(self) -> int | None:
        """The number of surviving images; None while no batch is finished."""
        return self._survivors if self._number > 0 or self._images else None

    @property
    def known(self) -> bool:
        """Whether the next stages are known, so that the rest can be estimated."""
        return bool(self._costs)

    @property
    def place(self) -> str:
        """The number of the stage, ` (2 of 5)`; empty for the clean pass."""
        last = len(self._costs) - 1
        return f" ({self._number} of {last})" if 1 <= self._number <= last else ""

    @property
    def left(self) -> float:
        """The estimated number of passes left in this stage and those after it."""
        to_go = max(0, self.total - self.taken)
        under_way = self.done - self._told_at
        # A batch that takes more than estimated counts as nearly done.
        here = max(_NEARLY * under_way, self._an_image() * to_go - under_way)
        survivors = float(self._survivors or 0)
        if self._images:
            survivors = max(0.0, survivors - to_go * self._broken / self._images)
        later = self._costs[max(0, self._number) + 1 :]
        return here + survivors * sum(self._of(one) * one.share for one in later)

    @property
    def share(self) -> float:
        """The share of all passes that is done, in [0, 1]; of images if no cost is known."""
        if not self.known:
            return self._share_of_images()
        whole = self.done + self.left
        return self.done / whole if whole else 0.0

    @property
    def rate(self) -> float:
        """Recent passes per second; 0 before there are any."""
        begun, before = self._marks[0]
        seconds, passes = self._clock() - begun, self.done - before
        if seconds < _FEW and self._before:  # the stage before counts for the missing seconds
            return (passes + self._before * (_FEW - seconds)) / _FEW
        return passes / seconds if seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """The estimated seconds for the rest; None if nothing is known."""
        rate = self.rate
        if not rate or (not self.known and not self._images):
            return None
        return self.left / rate

    def _an_image(self) -> float:
        """Return the passes per image of this stage: measured so far, else the known cost."""
        if self._images:
            return (self._told_at - self._begun_at) / self._images
        if self._number < len(self._costs) and self._number >= 0:
            return self._of(self._costs[self._number])
        return 0.0

    def _share_of_images(self) -> float:
        """Return the finished share of the stage's images; others count by their passes."""
        each = self._an_image()
        under_way = (self.done - self._told_at) / each if each else 0.0
        taken = min(self.total, self.taken + under_way)
        return taken / self.total if self.total else 0.0

    def _of(self, cost: StageCost) -> float:
        """Return the passes of a stage; if unknown, the mean of the others."""
        if cost.passes:
            return cost.passes
        known = [one.passes for one in self._costs[1:] if one.passes]
        return sum(known) / len(known) if known else 0.0
