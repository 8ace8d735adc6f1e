"""The engine: runs a suite on the survivors, batch by batch, and writes each batch down at once.

It does not know what a file is: finished batches go to a `Journal`, and what a journal already
holds is not run again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.attacks.borrow import borrowed, searching_copy
from satbench.attacks.judge import OutsideBallError, broken, predict
from satbench.attacks.passes import CountingModel, Passes
from satbench.attacks.suite import Stage
from satbench.core.errors import SatbenchError
from satbench.core.noise import Noise
from satbench.core.threat import Threat

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


@dataclass(frozen=True)
class BatchResult:
    """What one batch of one stage came to.

    `stage` is 0 for the clean pass; `indices` (B,) are places in the data set; `broken` (B,) is
    the judge's word; `witnesses` (broken.sum(), C, H, W) float32 prove it, empty when clean.
    """

    stage: int
    indices: NDArray[np.int64]
    broken: NDArray[np.bool_]
    witnesses: NDArray[np.float32]
    forwards: int
    backwards: int
    seconds: float


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
) -> NDArray[np.int16]:
    """Run `suite` on every image that survives, and return the verdicts, (N,) int16.

    A verdict is `SURVIVED` (-1), or the number of the stage that broke the image: 0 when it is
    wrong when clean, 1 for the first stage of the suite, and so on.  Images go to the device
    of the model's parameters.  The model comes back as it was.  Raises SatbenchError from the
    judge, naming the attack.
    """
    n = len(images.labels)
    verdicts = np.full(n, SURVIVED, np.int16)
    done = np.zeros((len(suite) + 1, n), bool)
    for result in journal.finished():
        done[result.stage, result.indices] = True
        verdicts[result.indices[result.broken]] = result.stage

    with borrowed(model) as judged:
        for number, stage in enumerate([None, *suite]):
            # What is due was fixed when the stage began, so that a resumed stage cuts the
            # batches that the uninterrupted one would have cut.
            due = np.flatnonzero((verdicts == SURVIVED) | (verdicts >= number))
            left = due[~done[number, due]]
            title = stage.title if stage else "clean"
            progress.stage(title, total=len(due), done=len(due) - len(left))
            searcher = searching_copy(judged) if stage else judged
            for batch in _cut(due, left, stage, batch_size):
                if stage:
                    result = _attack(judged, searcher, images, batch, threat, number, stage, seed)
                else:
                    result = _clean(judged, images, batch)
                journal.write(result)
                verdicts[result.indices[result.broken]] = number
                progress.advance(len(batch), int((verdicts == SURVIVED).sum()))
    return verdicts


def _cut(
    due: NDArray[np.int64], left: NDArray[np.int64], stage: Stage | None, batch_size: int
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


def _attack(
    judged: nn.Module,
    searcher: nn.Module,
    images: Images,
    batch: NDArray[np.int64],
    threat: Threat,
    number: int,
    stage: Stage,
    seed: int,
) -> BatchResult:
    started = time.perf_counter()
    x, y = _load(judged, images, batch)
    passes = Passes()
    block = int(batch[0]) // stage.block if stage.block else 0
    noise = Noise(seed, stage.purpose, tuple(batch.tolist()), block)
    x_adv = stage.attack(CountingModel(searcher, passes), x, y, threat, noise)
    try:
        fooled = broken(judged, x, x_adv.contiguous(), y, threat)
    except OutsideBallError as error:
        raise OutsideBallError(f"attack {stage.title}: {error}") from None
    except SatbenchError as error:
        raise type(error)(f"{error} (image {batch[0]} and on, under {stage.title})") from None
    return BatchResult(
        number,
        batch,
        fooled.cpu().numpy(),
        x_adv[fooled].cpu().contiguous().numpy(),
        passes.forwards,
        passes.backwards,
        time.perf_counter() - started,
    )


def _load(model: nn.Module, images: Images, batch: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    device = device_of(model)
    x = torch.from_numpy(images.pixels(batch)).to(device)
    return x, torch.from_numpy(images.labels[batch]).to(device)


def device_of(model: nn.Module) -> torch.device:
    """Return where the model lives: the device of its first parameter or buffer, else the CPU."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")
