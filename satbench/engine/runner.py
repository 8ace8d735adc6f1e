"""The runner: it runs the stages of a run in order, batch by batch, and stores each batch.

A unit of work is one stage of a run on one batch of images.  A unit that the journal already holds
is not run again.  An evaluation, a challenge, a curve and a matrix of transfer attacks are runs of
this one runner.  It does not read or write files: finished units go to a `Journal`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.calling.blame import Batch
from satbench.core.heap import release_freed_memory
from satbench.core.progress.course import StageCost
from satbench.core.progress.receiver import NoProgress, Progress
from satbench.core.progress.words import duration
from satbench.core.threat import Threat
from satbench.engine.contract import Surrogates
from satbench.engine.machine.room import Room
from satbench.engine.machine.ways import WAYS, Way
from satbench.engine.searched import Kind

CLEAN = 0
"""The number of the clean pass; the suite's stages are 1, 2, …"""
SURVIVED = -1
"""The verdict of an image that no stage broke; any other verdict is the stage that broke it."""
_NAP = 0.05  # seconds between two checks of what other processes have finished
_REPORTED_LOSS = 10.0  # a stop that loses more seconds of work than this is reported
_QUIET_NAPS = 40  # pauses before the message that names the process that this one waits for


class Images(Protocol):
    """Ordered images with labels; `satbench.data.Dataset` is one."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Labels, (N,)."""
        ...

    def pixels(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return images.  (B,) indices -> (B, C, H, W) float32 in [0, 1]."""
        ...


def no_margins() -> NDArray[np.float32]:
    """Return the margins of a batch whose attack reported none."""
    return np.empty(0, np.float32)


@dataclass(frozen=True)
class BatchResult:
    """The result of one unit: one stage on one batch.

    `stage` is 0 for the clean pass; `indices` (B,) are indices in the data set; `broken` (B,) is
    the judge's verdict; `witnesses` (broken.sum(), C, H, W) float32 prove it, empty when clean.
    Passes of models other than the target are `source_forwards` and `source_backwards`.  A result
    without images is the preparation of its stage.  `margins` (B,) and `points` of the surviving
    images, (B - broken.sum(), C, H, W), come from an informed attack, else they are empty.  A curve
    keeps the distances of its points as margins, in float64.  `search` says what was searched (see
    `satbench.engine.searched`); it is empty if nothing was.
    """

    stage: int
    indices: NDArray[np.int64]
    broken: NDArray[np.bool_]
    witnesses: NDArray[np.float32]
    forwards: int
    backwards: int
    seconds: float
    source_forwards: int = 0
    source_backwards: int = 0
    margins: NDArray[np.floating[Any]] = field(default_factory=no_margins)
    points: NDArray[np.float32] = field(default_factory=no_margins)
    search: Kind = ""


class Journal(Protocol):
    """The place where finished batches are written down."""

    def finished(self) -> Iterable[BatchResult]:
        """Return the batches written so far, in any order."""
        ...

    def write(self, result: BatchResult) -> None:
        """Write one batch atomically."""
        ...


class SharedJournal(Journal, Protocol):
    """A journal that several processes write to."""

    def news(self) -> Iterable[BatchResult]:
        """Return the batches that others have written since the last call."""
        ...


class Sharing(Protocol):
    """Which process does which unit; `satbench.engine.claims.Claims` is one."""

    def held(self, name: str) -> AbstractContextManager[bool]:
        """Try to claim a unit for a context, which says whether this process got it."""
        ...

    def holder(self, name: str) -> str:
        """Return which process has claimed a unit, `process 4711`; empty for none."""
        ...


class NoJournal:
    """A journal that keeps nothing, for a run of a few seconds."""

    def finished(self) -> list[BatchResult]:
        """Return nothing: nothing was kept."""
        return []

    def write(self, result: BatchResult) -> None:
        """Keep nothing."""


@dataclass(frozen=True)
class Context:
    """The settings that every unit of a run uses.

    `images` go through the models in batches of `batch_size`; no verdict depends on it.  `seed`
    keys all noise.  Finished units go to `journal`.  `surrogates` is where attacks find theirs.
    With `sharing`, other processes work on the same run, and the journal is a `SharedJournal`.
    `replacements` give named layers another backward in searches (BPDA, `satbench.engine.bpda`);
    the judge does not use them.  A unit may take `timeout` seconds; None is no limit.  `found` gets
    the result of each attack, broken or not: places (B,) and images (B, C, H, W).  `costs` are
    those of the stages, the clean pass first, for the progress; empty if unknown.  With
    `checkpointing`, searches keep fewer activations for the gradient and recompute them.  `units`
    are the images per unit, by stage, if they are fewer than `batch_size`.  `predictions` (M,) are
    those of the first images without an attack, if the judge computed them before the run.  `way`
    is how searches compute; only an evaluation may use another way than float32.
    """

    images: Images
    threat: Threat
    journal: Journal
    progress: Progress = field(default_factory=NoProgress)
    seed: int = 0
    batch_size: int = 250
    surrogates: Surrogates | None = None
    replacements: Mapping[str, nn.Module] = field(default_factory=dict)
    timeout: float | None = None
    sharing: Sharing | None = None
    found: Callable[[NDArray[np.int64], Tensor], None] | None = None
    costs: Sequence[StageCost] = ()
    checkpointing: bool = False
    units: Sequence[int] = ()
    predictions: NDArray[np.int64] | None = None
    way: Way = WAYS[0]

    def unit(self, number: int) -> int:
        """Return how many images a unit of a stage has."""
        return self.units[number] if number < len(self.units) else self.batch_size

    def load(self, batch: NDArray[np.int64], device: torch.device | str) -> tuple[Tensor, Tensor]:
        """Return images and labels on a device.  (B,) indices -> (B, C, H, W), (B,)."""
        x = torch.from_numpy(self.images.pixels(batch)).to(device)
        return x, torch.from_numpy(self.images.labels[batch]).to(device)


class StageWork(Protocol):
    """One stage of a run in progress.

    `model` is the model that the stage calls, None if it calls several; `under` names the stage in
    errors.  `block` is the number of images that must be seen together, None if it does not matter.
    """

    @property
    def number(self) -> int:
        """The stage's number, which its results have."""
        ...

    @property
    def title(self) -> str:
        """A short name for people."""
        ...

    @property
    def under(self) -> str:
        """What is done to an image, for errors: `under pgd-20`."""
        ...

    @property
    def model(self) -> nn.Module | None:
        """The model that the stage calls."""
        ...

    @property
    def block(self) -> int | None:
        """The number of images that must be seen together."""
        ...

    @property
    def due(self) -> NDArray[np.int64]:
        """The images of the stage, fixed when it begins."""
        ...

    def prepare(self) -> BatchResult | None:
        """Prepare for the first batch; return its cost if it is to be written down."""
        ...

    def run(self, batch: NDArray[np.int64]) -> BatchResult:
        """Run one unit. (B,) indices in the data set."""
        ...


class StagedRun(Protocol):
    """A run: its stages, and what it does with their results."""

    def stages(self) -> Iterable[StageWork]:
        """Yield the stages in order, each when all before it are done."""
        ...

    def fits(self, result: BatchResult) -> bool:
        """Say whether a result from a file can be of this run; one that cannot runs again."""
        ...

    def take(self, result: BatchResult) -> None:
        """Take the result of a unit, from this process or an earlier one."""
        ...

    def survivors(self) -> int:
        """Return how many images still survive."""
        ...


def run_stages(run: StagedRun, context: Context) -> None:
    """Run every unit of `run` that the journal does not have, and store each at once.

    If other processes share the run, each runs the units that no other has claimed, and waits at
    the end of a stage for the others.  Raises SatbenchError from the judge, naming the attack, and
    for any error of a model or an attack, naming the image.
    """
    running = _RunInProgress(run, context)
    context.progress.expect(context.costs)
    for result in context.journal.finished():
        if run.fits(result):
            running.take(result)
    with context.way.applied():
        for stage in run.stages():
            running.finish(stage)


class _RunInProgress:
    """A run in progress: it knows which units are done."""

    def __init__(self, run: StagedRun, context: Context) -> None:
        self.run, self.context = run, context
        self.room = Room(context.progress.note)
        self._done: dict[int, NDArray[np.bool_]] = {}
        self._prepared: set[int] = set()

    def take(self, result: BatchResult) -> None:
        """Take the result of a unit."""
        if not len(result.indices):
            self._prepared.add(result.stage)
        self._of(result.stage)[result.indices] = True
        self.run.take(result)

    def finish(self, stage: StageWork) -> None:
        """Run all units of a stage that are not done yet."""
        # The images of a stage were fixed when it began, so that a resumed stage and other
        # processes cut the same batches as one process without a stop.
        due, context = stage.due, self.context
        done = self._of(stage.number)
        context.progress.stage(stage.title, total=len(due), done=int(done[due].sum()))
        if not done[due].all():
            made = stage.prepare()
            if made and stage.number not in self._prepared:
                context.journal.write(made)
                self.take(made)
        units = list(cut(due, stage.block, context.unit(stage.number)))
        # Each round keeps the images that are not done, because another process can finish a unit
        # at any time.  A process can also stop and leave its unit undone: its claim then ends, and
        # a later round takes the unit.  So the loop ends only when every image is done.
        naps = 0
        while units := [left for unit in units if len(left := unit[~done[unit]])]:
            busy = True
            for unit in units:
                with self._claimed(stage, unit) as mine:
                    # The journal is read after the claim: the last owner may have written the unit
                    # just before it gave the claim up, and the unit must not be done twice.
                    self._take_news(stage)
                    if mine and len(left := unit[~done[unit]]):
                        self.room.do(stage, left, partial(self._do, stage))
                        busy = False
            if busy:  # other processes have claimed all remaining units
                naps += 1
                if naps == _QUIET_NAPS:
                    self._report_wait(stage, units)
                time.sleep(_NAP)
                self._take_news(stage)

    def _of(self, number: int) -> NDArray[np.bool_]:
        return self._done.setdefault(number, np.zeros(len(self.context.images.labels), bool))

    def _do(self, stage: StageWork, batch: NDArray[np.int64]) -> None:
        context = self.context
        with Batch(
            stage.model, context.images, batch, stage.under, context.timeout
        ).naming_images():
            begun = time.monotonic()
            try:
                result = stage.run(batch)
            except KeyboardInterrupt:
                self._report_loss(stage, batch, time.monotonic() - begun)
                raise
        context.journal.write(result)
        self.take(result)
        release_freed_memory()
        context.progress.advance(len(batch), self.run.survivors())

    def _report_loss(self, stage: StageWork, batch: NDArray[np.int64], seconds: float) -> None:
        if seconds >= _REPORTED_LOSS:
            why = f", which must be attacked {stage.block} at a time" if stage.block else ""
            self.context.progress.note(
                f"{duration(seconds)} of {stage.title} on {len(batch)} images{why}, will be "
                "repeated; all earlier work is kept"
            )

    def _claimed(self, stage: StageWork, unit: NDArray[np.int64]) -> AbstractContextManager[bool]:
        if self.context.sharing is None:
            return nullcontext(True)
        return self.context.sharing.held(_name(stage, unit))

    def _report_wait(self, stage: StageWork, units: Sequence[NDArray[np.int64]]) -> None:
        if self.context.sharing is None:
            return
        holders = {self.context.sharing.holder(_name(stage, unit)) for unit in units} - {""}
        images = sum(map(len, units))
        for holder in sorted(holders):
            self.context.progress.note(
                f"waiting for {holder}, which does the last {images} images of {stage.title}"
            )

    def _take_news(self, stage: StageWork) -> None:
        """Take the results of other processes."""
        if self.context.sharing is None:
            return
        for result in cast(SharedJournal, self.context.journal).news():
            if not self.run.fits(result):
                continue
            self.take(result)
            self.context.progress.passed(passes_of(result))
            if result.stage == stage.number and len(result.indices):
                self.context.progress.advance(len(result.indices), self.run.survivors())


def _name(stage: StageWork, unit: NDArray[np.int64]) -> str:
    return f"{stage.number:03d}-{int(unit[0]):09d}"


def passes_of(result: BatchResult) -> int:
    """Return all passes of a unit, of the target and of surrogates."""
    target, others = result.forwards + result.backwards, result.source_forwards
    return target + others + result.source_backwards


def cut(left: NDArray[np.int64], block: int | None, batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Cut the remaining images into batches of `batch_size`, or by their indices into blocks.

    A block is written down as a whole, so it is never cut.
    """
    if block is None:
        for start in range(0, len(left), batch_size):
            yield left[start : start + batch_size]
        return
    numbers = left // block
    for number in np.unique(numbers):
        yield left[numbers == number]
