"""The run of a suite on the images that still survive."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.calling.borrow import borrowed
from satbench.calling.defaults import plain_defaults
from satbench.calling.devices import device_of
from satbench.calling.logits import ModelError, one_line
from satbench.calling.warm import warm_cpu
from satbench.core.errors import SatbenchError
from satbench.core.noise import Noise
from satbench.engine.contract import Attack, Found, Informed, Prepared, Selective
from satbench.engine.judge import OutsideBallError, broken, predict
from satbench.engine.machine.asked import InexactError
from satbench.engine.memory import CountingSurrogates, Memory
from satbench.engine.passes import CountingModel, Passes
from satbench.engine.runner import (
    CLEAN,
    SURVIVED,
    BatchResult,
    Context,
    StageWork,
    no_margins,
    run_stages,
)
from satbench.engine.searched import Searched, Trial, joint
from satbench.engine.stage import Stage


def run_suite(
    model: nn.Module, suite: Sequence[Stage], context: Context, span: slice = slice(None)
) -> NDArray[np.int16]:
    """Run `suite` on every image that survives, and return the verdicts, (N,) int16.

    A verdict is `SURVIVED` (-1), or the number of the stage that broke the image: 0 if it is wrong
    when clean, 1 for the first stage of the suite, and so on.  Images go to the device of the
    model's parameters.  Only the images in `span` are run, and they do not depend on the others.
    The model does not change.  Gradients are enabled, whatever the caller has set.  Raises
    SatbenchError from the judge, naming the attack, and for any error of the model or an attack,
    naming the image.
    """
    warm_cpu()
    shape = (len(context.images.labels), *context.images.pixels(np.empty(0, np.int64)).shape[1:])
    stand_ins = nn.ModuleList(context.replacements.values())
    with (
        plain_defaults(),
        torch.enable_grad(),
        Memory(shape, suite) as memory,
        borrowed(model) as judged,
        borrowed(stand_ins),
    ):
        run = SuiteRun(judged, suite, context, memory, span)
        run_stages(run, context)
    return run.verdicts


class SuiteRun:
    """A suite in progress on the images of `span`; `verdicts` (N,) are those so far."""

    def __init__(
        self,
        judged: nn.Module,
        suite: Sequence[Stage],
        context: Context,
        memory: Memory,
        span: slice,
    ) -> None:
        self.judged, self.suite, self.context, self.memory = judged, suite, context, memory
        self.target = Searched(judged, context.replacements, context.checkpointing, context.way)
        n = len(context.images.labels)
        self.verdicts = np.full(n, SURVIVED, np.int16)
        self._inside = np.zeros(n, bool)
        self._inside[span] = True

    def stages(self) -> Iterator[StageWork]:
        """Yield the clean pass, then each attack, with its images."""
        yield CleanPass(self.judged, self.context, np.flatnonzero(self._inside))
        for number in range(1, len(self.suite) + 1):
            yield _Attacking(self, number, self._due(number))

    def fits(self, result: BatchResult) -> bool:
        """Say whether a result is of a stage of the suite, with a witness for each break."""
        proofs = int(result.broken.sum()) if result.stage else 0
        margins = len(result.margins) in (0, len(result.indices))
        return result.stage <= len(self.suite) and len(result.witnesses) == proofs and margins

    def take(self, result: BatchResult) -> None:
        """Take the result of a unit."""
        self.verdicts[result.indices[result.broken]] = result.stage
        if self._inside[result.indices].all():
            self.memory.add(result)

    def survivors(self) -> int:
        """Return how many images still survive."""
        return int((self._inside & (self.verdicts == SURVIVED)).sum())

    def _due(self, number: int) -> NDArray[np.int64]:
        stage = self.suite[number - 1]
        standing = self._standing(number)
        if not isinstance(stage.attack, Selective):
            return np.flatnonzero(standing)
        history = self.memory.history(number, self._standing, self.context.seed)
        return np.flatnonzero(standing & stage.attack.selects(history))

    def _standing(self, number: int) -> NDArray[np.bool_]:
        """Return which images survived until stage `number` began.  -> (N,) bool."""
        standing: NDArray[np.bool_] = self._inside & (
            (self.verdicts == SURVIVED) | (self.verdicts >= number)
        )
        return standing


class CleanPass:
    """The clean pass: which images are wrong without an attack."""

    number, title, under, block = CLEAN, "clean", "under no attack", None

    def __init__(self, model: nn.Module, context: Context, due: NDArray[np.int64]) -> None:
        self.model, self.context, self.due = model, context, due

    def prepare(self) -> None:
        """Do nothing: a clean pass needs no preparation."""

    def run(self, batch: NDArray[np.int64]) -> BatchResult:
        """Classify one batch."""
        started, images = time.perf_counter(), self.context.images
        known = self.context.predictions
        found = np.empty(len(batch), np.int64)
        asked = batch >= (0 if known is None else len(known))
        if known is not None:
            found[~asked] = known[batch[~asked]]
        if asked.any():
            x, _ = self.context.load(batch[asked], device_of(self.model))
            found[asked] = predict(self.model, x).cpu().numpy()
        self.context.progress.passed(len(batch))
        seconds = time.perf_counter() - started
        nothing = images.pixels(np.empty(0, np.int64))
        return BatchResult(
            CLEAN, batch, found != images.labels[batch], nothing, len(batch), 0, seconds
        )


class _Attacking:
    """A stage of the suite in progress: the prepared attack, and the model for searching."""

    def __init__(self, run: SuiteRun, number: int, due: NDArray[np.int64]) -> None:
        self.number, self.due, self.stage = number, due, run.suite[number - 1]
        self.judged, self.target, self.context = run.judged, run.target, run.context
        self.known, target = run.memory.before(number), run.target
        self.trial = Trial([target])
        on_pass = run.context.progress.passed
        self.passes, self.surrogate_passes = Passes(on_pass=on_pass), Passes(on_pass=on_pass)
        self.searcher = CountingModel(target, self.passes)
        self.proper: Attack = self.stage.attack

    @property
    def title(self) -> str:
        """A short name for people."""
        return self.stage.title

    @property
    def under(self) -> str:
        """What is done to an image, for errors."""
        return f"under {self.title}"

    @property
    def model(self) -> nn.Module:
        """The model that the stage calls."""
        return self.judged

    @property
    def block(self) -> int | None:
        """The number of images that must be seen together."""
        return self.stage.block

    def narrow(self, images: int) -> int:
        """Halve the images of one model call; return how many, 0 if it cannot be fewer."""
        return self.target.narrow(images)

    def prepare(self) -> BatchResult | None:
        """Prepare the attack, and return the cost; None if there is nothing to do."""
        stage, context = self.stage, self.context
        if not isinstance(stage.attack, Prepared):
            return None
        if context.surrogates is None:
            raise SatbenchError(f"{stage.title} needs surrogates, and there are none here")
        started = time.perf_counter()
        device, prepare = device_of(self.judged), stage.attack.prepare
        surrogates = CountingSurrogates(
            context.surrogates, self.surrogate_passes, device, self.trial
        )
        self._get_ready()
        try:
            self.proper = self.trial.run(
                lambda: prepare(self.searcher, surrogates, context.threat, context.seed),
                self._forget,
            )
        except ModelError as error:
            raise type(error)(f"{error} (while preparing {stage.title})", error.x) from error
        except SatbenchError:  # it already says what to do
            raise
        except Exception as error:  # from a user's backward or a plug-in
            raise SatbenchError(f"{one_line(error)} (while preparing {stage.title})") from error
        nothing = np.empty(0, np.int64)
        shape = context.images.pixels(nothing).shape
        return BatchResult(
            self.number,
            nothing,
            np.empty(0, bool),
            np.empty((0, *shape[1:]), np.float32),
            *self.passes.take(),
            time.perf_counter() - started,
            *self.surrogate_passes.take(),
            search=self.trial.kind,
        )

    def run(self, batch: NDArray[np.int64]) -> BatchResult:
        """Attack one batch, and let the judge decide."""
        context, started = self.context, time.perf_counter()
        x, y = context.load(batch, device_of(self.judged))
        self._forget()  # drop the passes of an attempt that ran out of memory
        self._get_ready()
        found, fooled = self._judged(x, y, batch)
        kinds = [self.trial.kind]
        if kinds[0] == context.way.precision != "float32":
            rows = self._taken_for_broken(found.x_adv, fooled, y)
            if len(rows):
                with self.target.exact():
                    again, fell = self._judged(x[rows], y[rows], batch[rows.cpu().numpy()])
                found.x_adv[rows], fooled[rows] = again.x_adv, fell
                if len(found.margins):
                    found.margins[rows] = again.margins
                kinds.append(self.trial.kind)
        if context.found:
            context.found(batch, found.x_adv)
        margins = found.margins.cpu().numpy()
        survivors = (
            found.x_adv[~fooled].cpu().contiguous().numpy() if len(margins) else no_margins()
        )
        return BatchResult(
            self.number,
            batch,
            fooled.cpu().numpy(),
            found.x_adv[fooled].cpu().contiguous().numpy(),
            *self.passes.take(),
            time.perf_counter() - started,
            *self.surrogate_passes.take(),
            margins=margins,
            points=survivors,
            search=joint(kinds),
        )

    def _judged(self, x: Tensor, y: Tensor, batch: NDArray[np.int64]) -> tuple[Found, Tensor]:
        """Search on images, and return what was found and which images the judge finds broken."""
        stage, context = self.stage, self.context
        block = int(batch[0]) // stage.block if stage.block else 0
        noise = Noise(context.seed, stage.purpose, tuple(batch.tolist()), block)
        resets = self.passes.mark(), self.surrogate_passes.mark()
        try:
            found = self.trial.run(
                lambda: self._search(x, y, noise, batch), lambda: [reset() for reset in resets]
            )
            fooled = broken(self.judged, x, found.x_adv.contiguous(), y, context.threat)
        except OutsideBallError as error:
            raise OutsideBallError(f"attack {stage.title}: {error}") from None
        return found, fooled

    def _taken_for_broken(self, x_adv: Tensor, fooled: Tensor, y: Tensor) -> Tensor:
        """Return the rows that are broken for the search but not for the judge.

        There the search stopped too early because of its lower precision.  If the attack must see
        its images together, all rows are returned.
        """
        try:
            with torch.no_grad():
                taken: Tensor = self.searcher(x_adv).argmax(1) != y
        except InexactError:
            taken = torch.ones_like(fooled)
        early = taken & ~fooled
        if self.stage.block and bool(early.any()):
            early = torch.ones_like(early)
        return early.nonzero().flatten()

    def _search(self, x: Tensor, y: Tensor, noise: Noise, batch: NDArray[np.int64]) -> Found:
        if not isinstance(self.proper, Informed):
            x_adv = self.proper(self.searcher, x, y, self.context.threat, noise)
            return Found(x_adv, x.new_empty(0))
        hints = self.known.hints(batch, x)
        return self.proper.follow(self.searcher, x, y, self.context.threat, noise, hints)

    def _get_ready(self) -> None:
        if not self.stage.traits.surrogates:  # else the target may never be called
            self.target.get_ready()

    def _forget(self) -> None:
        self.passes.take()
        self.surrogate_passes.take()
