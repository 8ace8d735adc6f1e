"""The runner: goes through the stages of a run, batch by batch, and writes each batch down at once.

A unit of work is one stage of a run on one batch of images.  What a journal already holds is not
run again.  An evaluation, a challenge, a curve and a matrix of transfer attacks are runs of this
one runner.  It does not know what a file is: finished units go to a `Journal`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.calling.blame import Batch
from satbench.core.heap import release_freed_memory
from satbench.core.threat import Threat
from satbench.engine.contract import Lender
from satbench.engine.searched import Kind

CLEAN = 0
"""The number of the clean pass; the suite's stages are 1, 2, …"""
SURVIVED = -1
"""The verdict of an image that nothing broke; any other verdict is the stage that did."""


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
    """Return the margins of a batch whose attack told none."""
    return np.empty(0, np.float32)


@dataclass(frozen=True)
class BatchResult:
    """The result of one unit: one stage on one batch.

    `stage` is 0 for the clean pass; `indices` (B,) are places in the data set; `broken` (B,) is
    the judge's word; `witnesses` (broken.sum(), C, H, W) float32 prove it, empty when clean.
    Passes of other models than the target are `source_forwards` and `source_backwards`.  A result
    without images is the preparation of its stage.  `margins` (B,) and `points`, those of the
    images that survive, (B - broken.sum(), C, H, W), are what an informed attack told, else empty.
    A curve keeps the distances of its points as margins, in float64.
    `search` says what was searched, see `satbench.engine.searched`; empty where nothing was.
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
    """Where finished batches are written down."""

    def finished(self) -> Iterable[BatchResult]:
        """Return the batches written so far, in any order."""
        ...

    def write(self, result: BatchResult) -> None:
        """Write one batch down, whole or not at all."""
        ...


class Progress(Protocol):
    """Who is told how far a run is."""

    def stage(self, title: str, total: int, done: int) -> None:
        """A stage begins, of `total` images, `done` of them from an earlier start."""
        ...

    def advance(self, images: int, survivors: int) -> None:
        """A batch is finished; so many images of the whole run still survive."""
        ...


class NoProgress:
    """Progress that nobody is told of."""

    def stage(self, title: str, total: int, done: int) -> None:
        """A stage begins."""

    def advance(self, images: int, survivors: int) -> None:
        """A batch is finished."""


@dataclass(frozen=True)
class Context:
    """What every unit of a run is done with.

    `images` go through the models in batches of `batch_size`; no verdict depends on it.  `seed`
    keys all noise.  Finished units go to `journal`.  `lent` is what attacks may borrow.
    `replacements` give named layers another backward in searches (BPDA, `satbench.engine.bpda`);
    the judge knows nothing of them.  A unit may take `timeout` seconds, None for as many as it
    needs.
    """

    images: Images
    threat: Threat
    journal: Journal
    progress: Progress = field(default_factory=NoProgress)
    seed: int = 0
    batch_size: int = 250
    lent: Lender | None = None
    replacements: Mapping[str, nn.Module] = field(default_factory=dict)
    timeout: float | None = None

    def load(self, batch: NDArray[np.int64], device: torch.device | str) -> tuple[Tensor, Tensor]:
        """Return images and labels on a device.  (B,) places -> (B, C, H, W), (B,)."""
        x = torch.from_numpy(self.images.pixels(batch)).to(device)
        return x, torch.from_numpy(self.images.labels[batch]).to(device)


class StageWork(Protocol):
    """One stage of a run at work.

    `model` is the one that is asked, None where several are; `under` says what for, in an error's
    sentence.  `block` is the number of images that must be seen together, None where it does not
    matter.
    """

    @property
    def number(self) -> int:
        """The stage's number, by which its results are known."""
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
        """The model that is asked."""
        ...

    @property
    def block(self) -> int | None:
        """The number of images that must be seen together."""
        ...

    @property
    def due(self) -> NDArray[np.int64]:
        """The images that the stage takes on, as it was fixed when it began."""
        ...

    def prepare(self) -> BatchResult | None:
        """Get ready for the first batch; return what that cost if it is to be written down."""
        ...

    def run(self, batch: NDArray[np.int64]) -> BatchResult:
        """Do one unit.  (B,) places in the data set."""
        ...


class StagedRun(Protocol):
    """A run: its stages, and what their results mean for it."""

    def stages(self) -> Iterable[StageWork]:
        """Yield the stages in order, each when all before it are done."""
        ...

    def take(self, result: BatchResult) -> None:
        """Take in the result of a unit, of this start or an earlier one."""
        ...

    def survivors(self) -> int:
        """Return how many images still survive."""
        ...


def run_stages(run: StagedRun, context: Context) -> None:
    """Do every unit of `run` that the journal does not hold, and write each down at once.

    Raises SatbenchError from the judge, naming the attack, and for any error of a model or an
    attack, naming the image.
    """
    n = len(context.images.labels)
    done: dict[int, NDArray[np.bool_]] = {}
    prepared: set[int] = set()

    def take(result: BatchResult) -> None:
        done.setdefault(result.stage, np.zeros(n, bool))[result.indices] = True
        if not len(result.indices):
            prepared.add(result.stage)
        run.take(result)

    for result in context.journal.finished():
        take(result)
    for stage in run.stages():
        # What is due was fixed when the stage began, so that a resumed stage cuts the batches that
        # the uninterrupted one would have cut.
        due = stage.due
        left = due[~done[stage.number][due]] if stage.number in done else due
        context.progress.stage(stage.title, total=len(due), done=len(due) - len(left))
        if len(left) and (made := stage.prepare()) and stage.number not in prepared:
            context.journal.write(made)
            take(made)
        for batch in cut(left, stage.block, context.batch_size):
            with Batch(
                stage.model, context.images, batch, stage.under, context.timeout
            ).in_a_sentence():
                result = stage.run(batch)
            context.journal.write(result)
            take(result)
            release_freed_memory()
            context.progress.advance(len(batch), run.survivors())


def cut(left: NDArray[np.int64], block: int | None, batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Cut the images that are left into batches, by `batch_size`, or by their places into blocks.

    A block is written down whole, so it is left whole.
    """
    if block is None:
        for start in range(0, len(left), batch_size):
            yield left[start : start + batch_size]
        return
    numbers = left // block
    for number in np.unique(numbers):
        yield left[numbers == number]


def device_of(model: nn.Module) -> torch.device:
    """Return where the model lives: the device of its first parameter or buffer, else the CPU."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")
