"""The loop of adversarial training, a min-max problem (Madry et al., 2018, arXiv:1706.06083).

The inner maximum is an ordinary attack; the outer minimum is SGD.  A `TrainConfig` determines the
run.  Initial weights, the order of the data, augmentation and the noise of the attack are functions
of the seed and of the position in the run.  So a resumed run ends in the same weights, and runs
that differ only in the activation have the same initial weights and see the same data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from satbench.calling.warm import warm_cpu
from satbench.core.errors import SatbenchError
from satbench.core.lock import lock_or_refuse
from satbench.data import Dataset
from satbench.preflight.preflight import ASKED
from satbench.recipes import TrainConfig
from satbench.training.epochs import METRICS, Run, history_of, writing
from satbench.training.images.batches import Batches, batches_of
from satbench.training.images.training_set import TrainingSet
from satbench.training.kept_epoch import Kept, choose_kept
from satbench.training.own import NOTHING, Own, check_network, own_copy, put_state
from satbench.training.progress import Step
from satbench.training.ranks import ALONE, Ranks
from satbench.training.saved.best import BEST, BEST_BEFORE
from satbench.training.saved.checkpoint import Checkpoints, has_checkpoint
from satbench.training.saved.facts import Facts, difference, facts_of, open_run, other_start
from satbench.training.start import fresh_model, load_start
from satbench.training.update.noise import StepNoise
from satbench.training.update.schedule import learning_rate
from satbench.training.update.step import Stepper
from satbench.training.update.sync_norm import statistics_note
from satbench.training.watch import EpochMetrics, chance_level

LOCK = "lock"


@dataclass(frozen=True)
class Trained:
    """The result of a run: the model of the chosen epoch, in eval mode, and why it was chosen.

    In the leading process, `epochs` has the best and the last epoch by name, and `facts` are those
    at the start of the run.
    """

    model: nn.Module
    history: list[EpochMetrics]
    chosen: Kept
    epochs: Mapping[str, Kept]
    facts: Facts | None

    @property
    def kept_epoch(self) -> int:
        """The chosen epoch; the first is 1."""
        return self.chosen.metrics.epoch

    @property
    def kept(self) -> str:
        """Why this epoch was chosen."""
        return self.chosen.why

    @property
    def notes(self) -> tuple[str, ...]:
        """Other notes on the run."""
        return self.chosen.notes


def train(
    config: TrainConfig,
    data: Dataset | TrainingSet,
    folder: Path,
    device: torch.device,
    on_step: Callable[[int, int, int], None] = lambda epoch, step, steps: None,
    on_epoch: Callable[[EpochMetrics], None] = lambda metrics: None,
    ranks: Ranks = ALONE,
    on_note: Callable[[str], None] = lambda note: None,
    own: Own = NOTHING,
    after_step: Callable[[Step], None] | None = None,
) -> Trained:
    """Train as `config` says on the training split `data`, or continue the run in `folder`.

    The last `config.held_out` images are held out for the metrics of each epoch.  Checkpoints, the
    best weights so far and one line of metrics per epoch go to `folder`.  `on_step(epoch, step,
    steps)` and `on_epoch(metrics)` report progress, `on_note` gets notes for the user, `after_step`
    the result of each step.  The parts in `own` replace those of the recipe.  In a run of several
    processes (`ranks`) only the first writes.  torch's global generators do not change.  A Ctrl-C
    takes effect at the end of a step, and leaves a checkpoint there.

    Raises SatbenchError for a bad config, a folder with another run, with a run on other data or
    with a run in progress, numbers that are not finite, and a full disk.
    """
    warm_cpu()
    opened = data if isinstance(data, TrainingSet) else TrainingSet(data, data.digest)
    data, n = opened.data, len(opened.data) - config.held_out
    if n < config.batch_size:
        raise SatbenchError(
            f"expected more than {config.batch_size} training images (one batch) besides the "
            f"{config.held_out} held out, got {len(data)} in all"
        )
    batches = batches_of(data, config, device)
    model = _network(config, data, device, batches, own)
    with _claimed(folder, ranks):
        now = facts_of(opened, device, ranks, own) if ranks.leads else None
        with writing(folder):
            began = open_run(folder, config, now, (BEST, BEST_BEFORE, METRICS)) if now else None
        ranks.wait()
        fresh = not has_checkpoint(folder)
        started = load_start(model, config.init) if config.init and fresh else ""
        if own.state is not None and fresh:
            put_state(model, own.state)
        steps = n // config.batch_size * config.epochs
        stepper = Stepper(config, model, device, ranks, own, steps)
        chance = chance_level(config, data.labels[:n], data.classes)
        run = Run(
            config,
            data,
            began,
            batches,
            n,
            math.inf if own.loss else chance,
            folder,
            device,
            ranks,
            stepper,
            Checkpoints(
                folder, stepper.network, stepper.optimiser, stepper.average, stepper.scheduler
            ),
            on_step,
            on_note,
            after_step,
            own.network is not None,
        )
        said = (*own.notes(), statistics_note(config, model, ranks.world))
        state = run.resumed().noting(*opened.notes, started, *said)
        if began and now and not fresh:
            state = state.noting(other_start(began, now))
        if began and now and not fresh and not run.is_over(state):
            state = state.noting(difference(began, now))
        for note in state.notes:
            on_note(note)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            while not run.is_over(state):
                state, speed = run.steps_of_epoch(state)
                state, metrics = run.end_epoch(state, speed)
                on_epoch(metrics)
        kept, epochs = choose_kept(run, state)
        return Trained(stepper.result.eval(), history_of(state), kept, epochs, began)


def _network(
    config: TrainConfig, data: Dataset, device: torch.device, batches: Batches, own: Own
) -> nn.Module:
    """Return the network to train: a new one, or a checked copy of a user's own."""
    if own.network is None:
        return fresh_model(config, data.classes)
    network = own_copy(own.network).to(device)
    x, y = batches.held_out(np.arange(min(ASKED, len(data))))
    check_network(network, x, y, data.classes, config.threat)
    return network


@contextmanager
def _claimed(folder: Path, ranks: Ranks) -> Iterator[None]:
    """Lock the folder of a run, so that no other process trains it."""
    if not ranks.leads:
        yield
        return
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    doing = f"is running the same training ({folder})"
    with lock_or_refuse(folder / LOCK, doing, "wait for it, or give another --name or --out"):
        yield


__all__ = [
    "EpochMetrics",
    "StepNoise",
    "Trained",
    "fresh_model",
    "learning_rate",
    "train",
]
