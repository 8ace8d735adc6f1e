"""The check of a record's verdicts, as a run: the clean pass, then the witnesses."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.calling.devices import device_of
from satbench.calling.logits import ask
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.engine.judge import answered, check_allowed, in_full_precision, predict
from satbench.engine.runner import CLEAN, BatchResult, Context, NoJournal, StageWork, run_stages
from satbench.engine.suite_run import CleanPass
from satbench.records.record import WRONG_CLEAN, Record
from satbench.records.witnesses import Witnesses

DRAWS = 100
"""How often a randomised model is run on an image before its verdict counts as false.

An attack on such a model keeps an image that fools one of its many answers.  If a witness fools
one answer in ten, 100 answers miss it with a probability of 3e-5.
"""


def check_verdicts(
    record: Record, dataset: Dataset, witnesses: Witnesses, model: nn.Module
) -> list[str]:
    """Return a sentence for each verdict that does not hold, in the order of the images.

    Each image goes through `model` once without an attack, and each witness once.  A randomised
    model is asked up to `DRAWS` times more where it contradicts a verdict: one answer that agrees
    is enough.  Nothing is written to a journal, because the check takes seconds.  Raises
    SatbenchError for an error of the model, naming the image.
    """
    context = Context(dataset, Threat.of(record.norm, record.eps), NoJournal())
    run = _CheckRun(model, record, witnesses, context)
    run_stages(run, context)
    return run.faults()


class _CheckRun:
    """A check in progress."""

    def __init__(
        self, model: nn.Module, record: Record, witnesses: Witnesses, context: Context
    ) -> None:
        self.model, self.record, self.witnesses, self.context = model, record, witnesses, context
        self._wrong = np.zeros(record.n, bool)
        self._right: list[int] = []
        self.refused: dict[int, str] = {}

    def stages(self) -> Iterator[StageWork]:
        """Yield the clean pass, then the witnesses."""
        yield CleanPass(self.model, self.context, np.arange(self.record.n))
        yield _Witnesses(self)

    def fits(self, result: BatchResult) -> bool:
        """Say that every result is of this check, which keeps none in files."""
        return True

    def take(self, result: BatchResult) -> None:
        """Take which images are wrong, or which witnesses fool the model."""
        if result.stage == CLEAN:
            self._wrong[result.indices] = result.broken
        else:
            self._right += result.indices[~result.broken].tolist()

    def survivors(self) -> int:
        """Return how many images are right when clean."""
        return int((~self._wrong).sum())

    def faults(self) -> list[str]:
        """Return a sentence for each verdict that does not hold."""
        said = np.array(self.record.verdicts) == WRONG_CLEAN
        found = []
        for index in self._contradicted(said):
            word = "wrong" if said[index] else "right"
            found.append(
                f"image {index}: the record says {word} when clean, the model says otherwise"
            )
        for index in self._right:
            why = self.refused.get(index)
            found.append(
                f"image {index}: its witness is not allowed: {why}"
                if why
                else f"image {index}: the model is right about its witness, so it is not broken"
            )
        return found

    def _contradicted(self, said: NDArray[np.bool_]) -> list[int]:
        """Return the images about which no answer of the model agrees with the record."""
        doubtful = np.flatnonzero(self._wrong != said)
        if not len(doubtful):
            return []
        found: list[int] = []
        for start in range(0, len(doubtful), self.context.batch_size):
            batch = doubtful[start : start + self.context.batch_size]
            x, y = self.context.load(batch, "cpu")
            agreed = _ever(self.model, x, y, torch.from_numpy(said[batch]))
            found += batch[~agreed.numpy()].tolist()
        return found


class _Witnesses:
    """The witnesses: each must be allowed, and fool the model."""

    number, title, under, block = 1, "witnesses", "at its witness", None

    def __init__(self, run: _CheckRun) -> None:
        self._run, self.model = run, run.model
        self.due = run.witnesses.indices
        self._row = {index: row for row, index in enumerate(self.due.tolist())}

    def prepare(self) -> None:
        """Do nothing: a pass needs no preparation."""

    def run(self, batch: NDArray[np.int64]) -> BatchResult:
        """Judge the witnesses of one batch."""
        started, context = time.perf_counter(), self._run.context
        x, y = context.load(batch, "cpu")
        rows = [self._row[index] for index in batch.tolist()]
        x_adv = torch.from_numpy(self._run.witnesses.images[rows])
        for one, index in enumerate(batch.tolist()):
            try:
                check_allowed(x[one : one + 1], x_adv[one : one + 1], context.threat)
            except SatbenchError as error:
                self._run.refused[index] = str(error)
        allowed = np.array([index not in self._run.refused for index in batch.tolist()], bool)
        fooled = np.zeros(len(batch), bool)
        if allowed.any():
            keep = torch.from_numpy(allowed)
            seen = predict(self.model, x_adv[keep].to(device_of(self.model))).cpu()
            fooled[allowed] = (seen != y[keep]).numpy()
            right = torch.from_numpy(allowed & ~fooled)
            if bool(right.any()):
                wrong = torch.ones(int(right.sum()), dtype=torch.bool)
                fooled[right.numpy()] = _ever(self.model, x_adv[right], y[right], wrong).numpy()
        nothing = np.empty((0, *x.shape[1:]), np.float32)
        passes, seconds = int(allowed.sum()), time.perf_counter() - started
        return BatchResult(self.number, batch, fooled, nothing, passes, 0, seconds)


def _ever(model: nn.Module, x: Tensor, y: Tensor, wrong: Tensor) -> Tensor:
    """Return for which images a randomised model is at least once as `wrong` says.

    (B, C, H, W), (B,) labels, (B,) bool -> (B,) bool.  All are False unless two passes differ: a
    model that is not randomised has given its answer already.
    """
    device = device_of(model)

    def logits() -> Tensor:
        return answered(ask(model, x.to(device)), x).cpu()

    with torch.no_grad(), in_full_precision():
        if torch.equal(logits(), logits()):
            return torch.zeros(len(x), dtype=torch.bool)
        seen = torch.zeros(len(x), dtype=torch.bool)
        for _ in range(DRAWS):
            seen |= (logits().argmax(1) != y) == wrong
            if bool(seen.all()):
                break
    return seen
