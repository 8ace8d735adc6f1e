"""The epochs of a run: training steps, checks on held-out images, checkpoints."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from satbench.core.errors import SatbenchError
from satbench.core.files import write_text
from satbench.core.noise import generator_for
from satbench.data import Dataset
from satbench.recipes import TrainConfig
from satbench.training.images.batches import Batches
from satbench.training.interrupts import uninterrupted
from satbench.training.progress import Step
from satbench.training.ranks import Ranks
from satbench.training.saved.best import BEST, Best, find_best, keep_best
from satbench.training.saved.checkpoint import (
    Checkpoint,
    Checkpoints,
    NotFiniteError,
    check_finite,
    last_good,
    where,
)
from satbench.training.saved.facts import Facts
from satbench.training.saved.run_card import run_card
from satbench.training.update.inner import Inner
from satbench.training.update.schedule import learning_rate
from satbench.training.update.step import Stepper
from satbench.training.watch import (
    LOOKED_AT,
    EpochMetrics,
    Held,
    best_of,
    collapse,
    collapse_within,
    has_collapsed,
    held_out_accuracies,
    looks,
    no_better_than_chance,
    overfitting,
)

SAVE_EVERY_SECONDS = 30.0
GPU_LOOKS_EVERY = 50
"""Steps between two reads of the loss on a GPU; a read waits for the GPU to finish."""
METRICS = "metrics.jsonl"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn an OSError of writing to the folder into one sentence."""
    try:
        yield
    except OSError as error:
        raise SatbenchError(
            f"cannot write to {folder} ({error.strerror or error}): free some space, then give the "
            "same command to continue"
        ) from None


@dataclass(frozen=True)
class Run:
    """A run in progress; methods take its position, a `Checkpoint`, and return the next one.

    `facts` are from the start of the run, and only the leading process has them.  The first `n`
    images are trained on, and the others are held out.  `chance` is the mean loss of a model that
    ignores the image.
    """

    config: TrainConfig
    data: Dataset
    facts: Facts | None
    batches: Batches
    n: int
    chance: float
    folder: Path
    device: torch.device
    ranks: Ranks
    stepper: Stepper
    checkpoints: Checkpoints
    on_step: Callable[[int, int, int], None]
    on_note: Callable[[str], None]
    after_step: Callable[[Step], None] | None = None
    own_network: bool = False

    @property
    def steps(self) -> int:
        """The number of steps of an epoch."""
        return self.n // self.config.batch_size

    def is_over(self, state: Checkpoint) -> bool:
        """Whether there is nothing left to train."""
        return state.epoch >= self.config.epochs or bool(state.stopped)

    def resumed(self) -> Checkpoint:
        """Restore the run to where it stopped, if it had started; check its best weights."""
        state = self.checkpoints.load()
        best = best_of(history_of(state))
        if best and not state.best:  # of an older satbench, without digests
            state = replace(state, best=({"epoch": best.epoch, "digest": ""},))
        whole = tuple(kept for kept in state.best if find_best(self.folder, kept))
        lost = state.best[: state.best.index(whole[0])] if whole else state.best
        if len(whole) < len(state.best):
            state = replace(state, best=whole)
        if lost:  # missing second best weights do not matter: the best ones replaced them
            epochs = " and ".join(str(kept["epoch"]) for kept in lost)
            state = state.noting(
                f"the best weights, of epoch {epochs}, were corrupt or missing and are not used"
            )
        if state.history:
            self.write_metrics(state)  # a kill may have prevented the write of an epoch's line
        return state

    def steps_of_epoch(self, state: Checkpoint) -> tuple[Checkpoint, float]:
        """Train to the end of an epoch.  Returns the position there, and images per second."""
        first, started = state.step, time.monotonic()
        at_end = state if state.ended else _Epoch(self, state).go()
        seconds = max(time.monotonic() - started, 1e-9)
        return at_end, (at_end.step - first) * self.config.batch_size / seconds

    def end_epoch(self, state: Checkpoint, speed: float) -> tuple[Checkpoint, EpochMetrics]:
        """Measure on the held-out images, write down the epoch, and save the weights if best."""
        stepper, before = self.stepper, self.stepper.averaged()
        try:
            stepper.end_epoch(state.epoch + 1)
            for network in (stepper.network, stepper.result):
                check_finite(network.state_dict())
            held = self.look(stepper.result, self.config.held_out)
        except KeyboardInterrupt:
            stepper.go_back(before)
            self.save(state)
            raise
        except NotFiniteError as error:
            raise self.diverged(f"{error} held NaN or infinity", where(state)) from None
        metrics = self._metrics(state, held, speed)
        state = self._after(state, metrics)
        self.save(state)
        self.write_metrics(state)
        return state, metrics

    def look(self, network: nn.Module, images: int) -> Held:
        """Measure a network on the first `images` held-out images.  Raises NotFiniteError."""
        rows = np.arange(self.n, self.n + images)
        inner = Inner.of(self.config)
        return held_out_accuracies(
            self.config, inner, network, self.batches, rows, self.device, self.ranks
        )

    def ends_by(self, history: Sequence[EpochMetrics]) -> bool:
        """Return whether overfitting ends the run, after the epochs of `history`."""
        if self.config.on_overfitting == "rollback":
            best = best_of(history)  # without a good epoch, training continues and may recover
            return best is not None and not best.collapsed
        return self.config.on_overfitting == "stop"

    def save(self, state: Checkpoint) -> None:
        """Write a checkpoint, unless the state is not finite."""
        if self.ranks.leads:
            try:
                with writing(self.folder):
                    self.checkpoints.save(state)
            except NotFiniteError as error:
                raise self.diverged(f"{error} held NaN or infinity", where(state)) from None

    def write_metrics(self, state: Checkpoint) -> None:
        """Write a line for each finished epoch, atomically."""
        if self.ranks.leads:
            lines = (json.dumps(epoch) + "\n" for epoch in state.history)
            with writing(self.folder):
                write_text(self.folder / METRICS, "".join(lines))

    def diverged(self, what: str, at: str) -> SatbenchError:
        """Return the error for a training that diverged: what is kept, and how to continue."""
        good, rate = last_good(self.folder), self.config.learning_rate / 10
        if good is None:
            return SatbenchError(
                f"{what} at {at}: training diverged before anything was saved; lower "
                "learning_rate, or set warm_up or gradient_clip"
            )
        return SatbenchError(
            f"{what} at {at}: training diverged; the last good checkpoint is {good[0]} "
            f"({good[1]}): start another run from it with --from {good[0]} "
            f"--set learning_rate={rate:g} --name NEW, or train again with warm_up or gradient_clip"
        )

    def _metrics(self, state: Checkpoint, held: Held, speed: float) -> EpochMetrics:
        held = replace(held, trained=state.accuracy_sum / state.step)
        metrics = EpochMetrics(
            epoch=state.epoch + 1,
            loss=state.loss_sum / state.step,
            train_accuracy=held.trained,
            held_out_clean=held.clean,
            held_out_pgd10=held.pgd10,
            learning_rate=self.stepper.optimiser.param_groups[0]["lr"],
            images_per_second=speed,
            held_out_attack=held.attack,
            collapsed=has_collapsed(self.config, held, self.data.classes),
            checks=list(state.checks),
        )
        warnings = (
            overfitting(self.config, history_of(state), metrics) or collapse_within(metrics),
            no_better_than_chance(metrics, self.chance),
        )
        return replace(metrics, warning="; ".join(filter(None, warnings)))

    def _after(self, state: Checkpoint, metrics: EpochMetrics) -> Checkpoint:
        """Return the position after an epoch, and save its weights if they are the best."""
        history = history_of(state)
        kept = [history[best["epoch"] - 1] for best in state.best]
        best = state.best
        if best_of([*kept, metrics]) is metrics:
            best = self._keep_best(metrics, state.best)
        overfitted = bool(overfitting(self.config, history, metrics)) or state.ended
        return Checkpoint(
            epoch=metrics.epoch,
            history=(*state.history, asdict(metrics)),
            stopped=metrics.warning if overfitted and self.ends_by(history) else "",
            best=best,
            notes=state.notes,
        )

    def _keep_best(self, metrics: EpochMetrics, kept: tuple[Best, ...]) -> tuple[Best, ...]:
        """Save the weights of an epoch as the best so far, with their card in the file."""
        if self.facts is None:  # only the leading process writes
            return ({"epoch": metrics.epoch, "digest": ""},)
        why = f"epoch {metrics.epoch}, best so far by held-out PGD-10 accuracy"
        name, model = f"{self.folder.name}-best", self.stepper.result
        described = run_card(name, BEST, model, self.config, self.data, self.facts, (why, metrics))
        card = None if self.own_network else described
        with writing(self.folder):
            return keep_best(model, card, self.folder, metrics.epoch, kept)


class _Epoch:
    """The state of an epoch that changes from step to step."""

    def __init__(self, run: Run, state: Checkpoint) -> None:
        self._run, self._state, self._done = run, state, state.step
        sums = torch.tensor([state.loss_sum, state.accuracy_sum], dtype=torch.float64)
        self._sums = sums.to(run.device)
        self._looks = looks(run.config, run.steps)
        self._torn = False  # in the middle of a step
        self._started, self._taken = time.monotonic(), 0

    def go(self) -> Checkpoint:
        """Do the remaining steps; return the position at the end."""
        run, saved = self._run, time.monotonic()
        try:
            for x, y in self._batches():
                self._step(x, y)
                run.on_step(self._state.epoch, self._done, run.steps)
                if self._done in self._looks and self._look():
                    break
                if time.monotonic() - saved > SAVE_EVERY_SECONDS:
                    run.save(self._place())
                    saved = time.monotonic()
        except KeyboardInterrupt:
            if not self._torn:
                run.save(self._place())
            raise
        self._check_loss()
        return self._place()  # this also waits for the GPU

    def _place(self) -> Checkpoint:
        return self._state.at(self._done, self._sums)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        run, size, epoch = self._run, self._run.config.batch_size, self._state.epoch
        order = generator_for(run.config.seed, "order", epoch).permutation(run.n)
        here = run.ranks.share(size, run.config.accumulate)
        rows = [order[step * size :][here] for step in range(self._done, run.steps)]
        return run.batches.train(epoch, rows)

    def _step(self, x: Tensor, y: Tensor) -> None:
        run, epoch = self._run, self._state.epoch
        config, steps = run.config, run.steps
        rate = learning_rate(config, epoch * steps + self._done, config.epochs * steps)
        if not run.stepper.by_recipe:
            rate = run.stepper.optimiser.param_groups[0]["lr"]
        self._torn = True
        with uninterrupted(patient=run.ranks.world > 1):
            sums = run.stepper(x, y, epoch, self._done, rate)
            self._sums += sums
            self._done += 1
            self._torn = False
        if run.after_step:
            run.after_step(self._report(sums, rate))
        if run.device.type == "cpu" or self._done % GPU_LOOKS_EVERY == 0:
            self._check_loss()

    def _report(self, sums: Tensor, rate: float) -> Step:
        run, epoch = self._run, self._state.epoch
        self._taken += 1
        left = (run.config.epochs - epoch) * run.steps - self._done
        each = (time.monotonic() - self._started) / self._taken
        return Step(epoch + 1, self._done, run.steps, rate, left * each, sums)

    def _check_loss(self) -> None:
        if not bool(torch.isfinite(self._sums).all()):
            at = where(replace(self._state, step=self._done))
            raise self._run.diverged(f"the loss was {float(self._sums[0])}", at)

    def _look(self) -> bool:
        """Check on a few held-out images, and on all if these show a collapse.

        Returns whether the run ends here.
        """
        run, state = self._run, self._state
        if any("collapsed" in check for check in state.checks):
            return False  # this epoch has already been reported
        # The even average is updated only at the ends of epochs.
        network = run.stepper.network if run.config.swa_from else run.stepper.result
        try:
            held = run.look(network, min(LOOKED_AT, run.config.held_out))
            if self._collapsed(held):
                held = run.look(network, run.config.held_out)
        except NotFiniteError as error:
            at = where(replace(state, step=self._done))
            raise run.diverged(f"{error} held NaN or infinity", at) from None
        check = replace(held, trained=self._accuracy).as_check(self._done, self._collapsed(held))
        ends = "collapsed" in check and run.ends_by(history_of(state))
        self._state = replace(state, checks=(*state.checks, check), ended=ends)
        if "collapsed" in check:
            run.on_note(collapse(check, state.epoch + 1))
        return ends

    @property
    def _accuracy(self) -> float:
        return float(self._sums[1]) / self._done

    def _collapsed(self, held: Held) -> bool:
        run = self._run
        return has_collapsed(run.config, replace(held, trained=self._accuracy), run.data.classes)


def history_of(state: Checkpoint) -> list[EpochMetrics]:
    """Return the metrics of the finished epochs."""
    return [EpochMetrics(**past) for past in state.history]
