"""The engine: runs a suite on the survivors, batch by batch, and writes each batch down at once.

It does not know what a file is: finished batches go to a `Journal`, and what a journal already
holds is not run again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.calling.blame import Batch
from satbench.calling.borrow import borrowed
from satbench.calling.defaults import plain_defaults
from satbench.calling.logits import ModelError, said
from satbench.calling.warm import warm_cpu
from satbench.core.errors import SatbenchError
from satbench.core.heap import release_freed_memory
from satbench.core.noise import Noise
from satbench.core.threat import Threat
from satbench.engine.contract import (
    Attack,
    Found,
    Informed,
    Lender,
    Prepared,
    Selective,
)
from satbench.engine.judge import OutsideBallError, broken, predict
from satbench.engine.memory import CountedLent, Known, Memory
from satbench.engine.passes import CountingModel, Passes
from satbench.engine.searched import Kind, Searched, Trial
from satbench.engine.stage import Stage

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


def _no_margins() -> NDArray[np.float32]:
    return np.empty(0, np.float32)


@dataclass(frozen=True)
class BatchResult:
    """What one batch of one stage came to.

    `stage` is 0 for the clean pass; `indices` (B,) are places in the data set; `broken` (B,) is
    the judge's word; `witnesses` (broken.sum(), C, H, W) float32 prove it, empty when clean.
    Passes of other models than the target are `source_forwards` and `source_backwards`.  A result
    without images is the preparation of its stage.  `margins` (B,) and `points`, those of the
    images that survive, (B - broken.sum(), C, H, W), are what an informed attack told, else empty.
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
    margins: NDArray[np.float32] = field(default_factory=_no_margins)
    points: NDArray[np.float32] = field(default_factory=_no_margins)
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


def run_suite(
    model: nn.Module,
    images: Images,
    threat: Threat,
    suite: Sequence[Stage],
    seed: int,
    batch_size: int,
    journal: Journal,
    progress: Progress,
    lent: Lender | None = None,
    replacements: Mapping[str, nn.Module] | None = None,
    span: slice = slice(None),
    timeout: float | None = None,
) -> NDArray[np.int16]:
    """Run `suite` on every image that survives, and return the verdicts, (N,) int16.

    A verdict is `SURVIVED` (-1), or the number of the stage that broke the image: 0 when it is
    wrong when clean, 1 for the first stage of the suite, and so on.  Images go to the device
    of the model's parameters.  `lent` is what attacks may borrow.  `replacements` give named
    layers another backward in searches (BPDA, `satbench.engine.bpda`); the judge knows nothing of
    them.  Of the images only those in `span` are run, and what others came to tells them nothing.
    The model comes back as it was.  Gradients are on meanwhile, whatever the caller has set.
    A batch may take `timeout` seconds.  Raises SatbenchError from the judge, naming the attack, and
    for any error of the model or an attack, naming the image.
    """
    warm_cpu()
    n = len(images.labels)
    verdicts = np.full(n, SURVIVED, np.int16)
    done = np.zeros((len(suite) + 1, n), bool)
    shape = (n, *images.pixels(np.empty(0, np.int64)).shape[1:])
    inside = np.zeros(n, bool)
    inside[span] = True
    stand_ins = nn.ModuleList((replacements or {}).values())
    with (
        plain_defaults(),
        torch.enable_grad(),
        Memory(shape, suite) as memory,
        borrowed(model) as judged,
        borrowed(stand_ins),
    ):
        target = Searched(judged, replacements)
        for result in journal.finished():
            done[result.stage, result.indices] = True
            verdicts[result.indices[result.broken]] = result.stage
            if inside[result.indices].all():
                memory.add(result)
        for number, stage in enumerate([None, *suite]):
            # What is due was fixed when the stage began, so that a resumed stage cuts the
            # batches that the uninterrupted one would have cut.
            standing = inside & _standing(verdicts, number)
            due = np.flatnonzero(standing)
            if stage and isinstance(stage.attack, Selective):
                first = 1 + next(k for k, one in enumerate(suite) if one.spec == stage.spec)
                entered = inside & _standing(verdicts, first)
                history = memory.history(number, standing, entered, seed)
                due = np.flatnonzero(standing & stage.attack.selects(history))
            left = due[~done[number, due]]
            title = stage.title if stage else "clean"
            under = f"under {title}" if stage else "under no attack"
            progress.stage(title, total=len(due), done=len(due) - len(left))
            if stage is None:
                run: Callable[[NDArray[np.int64]], BatchResult] = partial(_clean, judged, images)
            elif len(left):
                job = _Job(number, stage, images, threat, seed, lent)
                search = _Search(judged, target, job, memory.before(number))
                run = search.attack
                if (made := search.prepare()) and not memory.prepared(number):
                    journal.write(made)
                    memory.add(made)
            for batch in _cut(left, stage, batch_size):
                with Batch(judged, images, batch, under, timeout).in_a_sentence():
                    result = run(batch)
                journal.write(result)
                memory.add(result)
                verdicts[result.indices[result.broken]] = number
                release_freed_memory()
                progress.advance(len(batch), int((inside & (verdicts == SURVIVED)).sum()))
    return verdicts


def _standing(verdicts: NDArray[np.int16], number: int) -> NDArray[np.bool_]:
    """Return who survived until stage `number` began.  (N,) -> (N,) bool."""
    standing: NDArray[np.bool_] = (verdicts == SURVIVED) | (verdicts >= number)
    return standing


def _cut(
    left: NDArray[np.int64], stage: Stage | None, batch_size: int
) -> Iterator[NDArray[np.int64]]:
    if stage is None or stage.block is None:
        for start in range(0, len(left), batch_size):
            yield left[start : start + batch_size]
        return
    numbers = left // stage.block
    for number in np.unique(numbers):
        block = left[numbers == number]
        # A block is written whole, so it is left whole.
        yield block


def _clean(model: nn.Module, images: Images, batch: NDArray[np.int64]) -> BatchResult:
    started = time.perf_counter()
    x, y = _load(model, images, batch)
    wrong = (predict(model, x) != y).cpu().numpy()
    seconds = time.perf_counter() - started
    nothing = np.empty((0, *x.shape[1:]), np.float32)
    return BatchResult(CLEAN, batch, wrong, nothing, len(batch), 0, seconds)


@dataclass(frozen=True)
class _Job:
    """One stage of a run."""

    number: int
    stage: Stage
    images: Images
    threat: Threat
    seed: int
    lent: Lender | None


class _Search:
    """One stage at work: the attack, made ready, on the model as searches ask it."""

    def __init__(self, judged: nn.Module, target: Searched, job: _Job, known: Known) -> None:
        self.judged, self.target, self.job, self.known = judged, target, job, known
        self.trial = Trial([target])
        self.passes, self.source_passes = Passes(), Passes()
        self.searcher = CountingModel(target, self.passes)
        self.proper: Attack = job.stage.attack

    def prepare(self) -> BatchResult | None:
        """Make the attack ready, and return what that cost; None where there is nothing to do."""
        stage = self.job.stage
        if not isinstance(stage.attack, Prepared):
            return None
        if self.job.lent is None:
            raise SatbenchError(f"{stage.title} borrows other models, and none are lent here")
        started = time.perf_counter()
        device, prepare = device_of(self.judged), stage.attack.prepare
        lent = CountedLent(self.job.lent, self.source_passes, device, self.trial)
        self._get_ready()
        try:
            self.proper = self.trial.run(
                lambda: prepare(self.searcher, lent, self.job.threat, self.job.seed), self._forget
            )
        except ModelError as error:
            raise type(error)(f"{error} (while {stage.title} was made ready)", error.x) from error
        except SatbenchError:  # says already what to do
            raise
        except Exception as error:  # of a user's backward, of a plug-in
            raise SatbenchError(f"{said(error)} (while {stage.title} was made ready)") from error
        nothing, shape = np.empty(0, np.int64), self.job.images.pixels(np.empty(0, np.int64)).shape
        return BatchResult(
            self.job.number,
            nothing,
            np.empty(0, bool),
            np.empty((0, *shape[1:]), np.float32),
            *self.passes.take(),
            time.perf_counter() - started,
            *self.source_passes.take(),
            search=self.trial.kind,
        )

    def attack(self, batch: NDArray[np.int64]) -> BatchResult:
        """Attack one batch, and let the judge decide."""
        stage, started = self.job.stage, time.perf_counter()
        x, y = _load(self.judged, self.job.images, batch)
        block = int(batch[0]) // stage.block if stage.block else 0
        noise = Noise(self.job.seed, stage.purpose, tuple(batch.tolist()), block)
        self._get_ready()
        try:
            found = self.trial.run(lambda: self._search(x, y, noise, batch), self._forget)
            fooled = broken(self.judged, x, found.x_adv.contiguous(), y, self.job.threat)
        except OutsideBallError as error:
            raise OutsideBallError(f"attack {stage.title}: {error}") from None
        told = found.margins.cpu().numpy()
        return BatchResult(
            self.job.number,
            batch,
            fooled.cpu().numpy(),
            found.x_adv[fooled].cpu().contiguous().numpy(),
            *self.passes.take(),
            time.perf_counter() - started,
            *self.source_passes.take(),
            margins=told,
            points=found.x_adv[~fooled].cpu().contiguous().numpy() if len(told) else _no_margins(),
            search=self.trial.kind,
        )

    def _search(self, x: Tensor, y: Tensor, noise: Noise, batch: NDArray[np.int64]) -> Found:
        if not isinstance(self.proper, Informed):
            x_adv = self.proper(self.searcher, x, y, self.job.threat, noise)
            return Found(x_adv, x.new_empty(0))
        hints = self.known.hints(batch, x)
        return self.proper.follow(self.searcher, x, y, self.job.threat, noise, hints)

    def _get_ready(self) -> None:
        if not self.job.stage.traits.sources:  # else the target may never be asked
            self.target.get_ready()

    def _forget(self) -> None:
        self.passes.take()
        self.source_passes.take()


def _load(model: nn.Module, images: Images, batch: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    device = device_of(model)
    x = torch.from_numpy(images.pixels(batch)).to(device)
    return x, torch.from_numpy(images.labels[batch]).to(device)


def device_of(model: nn.Module) -> torch.device:
    """Return where the model lives: the device of its first parameter or buffer, else the CPU."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")
