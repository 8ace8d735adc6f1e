"""The run of a matrix of transfer attacks: adversarial images are made, then judged."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.attacks.transfer.surrogates import FromSurrogates, Transfer
from satbench.calling.borrow import borrowed
from satbench.core.noise import Noise
from satbench.engine.judge import broken, predict
from satbench.engine.memory import CountingSurrogates
from satbench.engine.passes import Passes
from satbench.engine.runner import BatchResult, Context, StageWork
from satbench.engine.searched import Kind, Trial, joint
from satbench.models import LoadedModel
from satbench.records.answers import difference
from satbench.records.record import ModelInfo
from satbench.records.transfers import TransferSource, TransferTarget


class MatrixRun:
    """A matrix in progress.

    Stages 1 … S make the images of the S sources.  Then each target has 1 + S stages: the clean
    pass, and the judge on the images of each source.  All images are kept in memory.
    """

    def __init__(
        self,
        attack: Transfer,
        infos: Mapping[str, ModelInfo],
        targets: Sequence[LoadedModel],
        context: Context,
        device: torch.device,
    ) -> None:
        self.parts = [(name, cast(FromSurrogates, part)) for name, part in attack.parts()]
        self.infos, self.targets, self.context, self.device = infos, targets, context, device
        n, shape = len(context.images.labels), _shape(context)
        self.images = np.empty((len(self.parts), n, *shape), np.float32)
        self.right = np.zeros((len(targets), 1 + len(self.parts), n), bool)
        self._forwards: dict[int, int] = defaultdict(int)
        self._backwards: dict[int, int] = defaultdict(int)
        self._seconds: dict[int, float] = defaultdict(float)
        self._kinds: dict[int, list[Kind]] = defaultdict(list)

    def stages(self) -> Iterator[StageWork]:
        """Yield the stages that make images, then those of each target on the device."""
        for row in range(len(self.parts)):
            yield _Making(self, row)
        for column, loaded in enumerate(self.targets):
            module = loaded.module.to(self.device)
            with borrowed(module) as judged:
                for row in range(1 + len(self.parts)):
                    yield _Judging(self, column, row, judged)
            module.cpu()

    def fits(self, result: BatchResult) -> bool:
        """Say whether a result is of a stage of the matrix, with its images if it makes some."""
        made = len(self.parts)
        is_making = 1 <= result.stage <= made
        images = len(result.indices) if is_making else 0
        last = made + len(self.targets) * (1 + made)
        return 1 <= result.stage <= last and len(result.witnesses) == images

    def take(self, result: BatchResult) -> None:
        """Take the images or the verdicts of a unit."""
        column, row = self._place(result.stage)
        if column is None:
            self.images[row, result.indices] = result.witnesses
        else:
            self.right[column, row, result.indices] = ~result.broken
        self._forwards[result.stage] += result.forwards
        self._backwards[result.stage] += result.backwards
        self._seconds[result.stage] += result.seconds
        self._kinds[result.stage].append(result.search)

    def survivors(self) -> int:
        """Return how many images the current target still gets right."""
        return int(self.right.all(1).sum(1).max(initial=0))

    def _place(self, number: int) -> tuple[int | None, int]:
        """Return the target and the source of a stage; no target while images are made."""
        made = len(self.parts)
        if number <= made:
            return None, number - 1
        return divmod(number - made - 1, 1 + made)

    @property
    def making_seconds(self) -> list[float]:
        """How long the images of each source took."""
        return [self._seconds[number] for number in range(1, len(self.parts) + 1)]

    @property
    def judging_seconds(self) -> float:
        """How long all targets took."""
        return sum(self._seconds.values()) - sum(self.making_seconds)

    def sources(self) -> list[TransferSource]:
        """Return the results for each source."""
        return [
            TransferSource(
                name,
                {each: self.infos[each].weights_digest for each in part.surrogates},
                self._forwards[number],
                self._backwards[number],
                joint(self._kinds[number]),
            )
            for number, (name, part) in enumerate(self.parts, 1)
        ]

    def judged(self) -> list[TransferTarget]:
        """Return the results for each target."""
        return [
            self._target(loaded, right)
            for loaded, right in zip(self.targets, self.right, strict=True)
        ]

    def _target(self, loaded: LoadedModel, judged: NDArray[np.bool_]) -> TransferTarget:
        clean, right = judged[0], judged[1:] & judged[0]
        white_box = [
            any(_is_itself(loaded.info, self.infos[name]) for name in part.surrogates)
            for _, part in self.parts
        ]
        others = right[~np.array(white_box)]
        broken_by = np.bincount((clean & ~others).sum(0)[clean], minlength=len(others) + 1)
        return TransferTarget(
            model=loaded.info,
            clean_correct=int(clean.sum()),
            correct=right.sum(1).tolist(),
            white_box=white_box,
            worst=int(others.all(0).sum()) if len(others) else None,
            broken_by=broken_by.tolist(),
            forwards=judged.size,
        )


class _Making:
    """The images of one source: one for every image of the data set."""

    model, block = None, None

    def __init__(self, run: MatrixRun, row: int) -> None:
        name, part = run.parts[row]
        self.number, self.part, self.name = row + 1, part, name
        self.title, self.under = f"images made on {name}", f"on {name}"
        self.context, self.device, self.trial = run.context, run.device, Trial()
        self.passes = Passes(on_pass=run.context.progress.passed)
        self.due = np.arange(len(run.context.images.labels))

    def prepare(self) -> BatchResult:
        """Load the models that the images are made on."""
        started, context = time.perf_counter(), self.context
        assert context.surrogates is not None  # noqa: S101 - the matrix has its own
        surrogates = CountingSurrogates(context.surrogates, self.passes, self.device, self.trial)
        self.ready = self.part.prepare(_nobody, surrogates, context.threat, context.seed)
        nothing = np.empty(0, np.int64)
        return BatchResult(
            self.number,
            nothing,
            np.empty(0, bool),
            np.empty((0, *_shape(context)), np.float32),
            *self.passes.take(),
            time.perf_counter() - started,
        )

    def run(self, batch: NDArray[np.int64]) -> BatchResult:
        """Make the images of one batch."""
        started, context = time.perf_counter(), self.context
        x, y = context.load(batch, self.device)
        noise = Noise(context.seed, self.name, tuple(batch.tolist()))
        search = partial(self.ready, _nobody, x, y, context.threat, noise)
        made = self.trial.run(search, self.passes.mark()).cpu().numpy()
        return BatchResult(
            self.number,
            batch,
            np.ones(len(batch), bool),
            made,
            *self.passes.take(),
            time.perf_counter() - started,
            search=self.trial.kind,
        )


class _Judging:
    """The judge on one target: row 0 is the clean pass, row k the images of source k."""

    block = None

    def __init__(self, run: MatrixRun, column: int, row: int, judged: nn.Module) -> None:
        self.matrix, self.row, self.model, self.context = run, row, judged, run.context
        made, name = len(run.parts), run.targets[column].info.name
        self.number = made + 1 + column * (1 + made) + row
        self.title = f"judged on {name}/{run.parts[row - 1][0] if row else 'clean'}"
        self.under = f"of {name}"
        self.due = np.arange(len(run.context.images.labels))

    def prepare(self) -> None:
        """Do nothing: a pass needs no preparation."""

    def run(self, batch: NDArray[np.int64]) -> BatchResult:
        """Judge one batch."""
        started = time.perf_counter()
        x, y = self.context.load(batch, self.matrix.device)
        if self.row:
            x_adv = torch.from_numpy(self.matrix.images[self.row - 1, batch]).to(x.device)
            fooled = broken(self.model, x, x_adv, y, self.context.threat)
        else:
            fooled = predict(self.model, x) != y
        self.context.progress.passed(len(batch))
        nothing = np.empty((0, *x.shape[1:]), np.float32)
        wrong, seconds = fooled.cpu().numpy(), time.perf_counter() - started
        return BatchResult(self.number, batch, wrong, nothing, len(batch), 0, seconds)


def _is_itself(target: ModelInfo, source: ModelInfo) -> bool:
    """Whether a source is the target; two models of a user's own are compared by their code."""
    answered = bool(target.answers and source.answers)
    same = target.weights_digest == source.weights_digest
    return same and not (answered and difference(target.answers, source.answers))


def _nobody(x: Tensor) -> Tensor:
    raise AssertionError("no target is called while images are made")


def _shape(context: Context) -> tuple[int, ...]:
    return context.images.pixels(np.empty(0, np.int64)).shape[1:]
