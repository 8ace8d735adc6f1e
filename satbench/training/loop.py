"""Adversarial training as min-max (Madry et al., 2018, arXiv:1706.06083): one loop.

The inner maximum is an ordinary attack; the outer minimum is SGD.  What a run does is fixed by
its `TrainConfig`; initial weights, the order of the data, augmentation and the noise of the
attacker are functions of the seed and of the place in the run, so a stopped run goes on to the
very same weights, and runs that differ in the activation alone start and go through the data alike.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from satbench.attacks.warm import warm_cpu
from satbench.core.errors import SatbenchError
from satbench.core.files import write_text
from satbench.core.noise import generator_for
from satbench.data import Dataset
from satbench.model_zoo.build import build_network
from satbench.model_zoo.weights import load_weights, save_weights
from satbench.recipes import TrainConfig
from satbench.training.batches import Batches, batches_of
from satbench.training.checkpoint import Checkpoint, load_checkpoint, open_run, save_checkpoint
from satbench.training.noise import StepNoise
from satbench.training.ranks import ALONE, Ranks
from satbench.training.run_card import run_card
from satbench.training.schedule import learning_rate
from satbench.training.step import Stepper
from satbench.training.watch import EpochMetrics, best_of, held_out_accuracies, overfitting

SAVE_EVERY_SECONDS = 30.0
BEST, METRICS = "best.safetensors", "metrics.jsonl"


@dataclass(frozen=True)
class Trained:
    """What a run came to: the model that is handed on, in eval mode, and why it is this one."""

    model: nn.Module
    history: list[EpochMetrics]
    kept_epoch: int
    kept: str


def train(
    config: TrainConfig,
    data: Dataset,
    folder: Path,
    device: torch.device,
    on_step: Callable[[int, int, int], None] = lambda epoch, step, steps: None,
    on_epoch: Callable[[EpochMetrics], None] = lambda metrics: None,
    ranks: Ranks = ALONE,
) -> Trained:
    """Train what `config` says on the training split `data`; go on where `folder` stopped.

    The last `config.held_out` images are held out for the metrics of each epoch.  Checkpoints, the
    best weights so far and a line of metrics an epoch go to `folder`.  `on_epoch(metrics)` and
    `on_step(epoch, step, steps)` are told of progress.  In a run of several processes (`ranks`)
    the first alone writes.  torch's global generators are left as they were.

    Raises SatbenchError for a bad config, a folder that holds another run, and a loss that is no
    longer finite.
    """
    warm_cpu()
    n = len(data) - config.held_out
    if n < config.batch_size:
        raise SatbenchError(
            f"expected more than {config.batch_size} training images (one batch) beside the "
            f"{config.held_out} held out, got {len(data)} in all"
        )
    stepper = Stepper(config, fresh_model(config, data.classes), device, ranks)
    batches = batches_of(data, config, device)
    run = _Run(config, data, batches, n, folder, device, ranks, stepper)
    if ranks.leads:
        open_run(folder, config)
    ranks.wait()
    state = load_checkpoint(folder, stepper.network, stepper.optimiser, stepper.average)
    if state.history:
        run.write_metrics(state)  # the line of an epoch may be what a kill kept from the disk
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        while state.epoch < config.epochs and not state.stopped:
            at_end, speed = run.steps_of_epoch(state, on_step)
            state, metrics = run.end_epoch(at_end, speed)
            on_epoch(metrics)
    return run.handed_on(state)


def fresh_model(config: TrainConfig, classes: int) -> nn.Module:
    """Build the untrained model of a run: its weights are a function of the seed.

    torch's global generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_network(config.architecture, config.activation, classes)


@dataclass(frozen=True)
class _Run:
    """A run under way; its place is a `Checkpoint` that goes in and comes out."""

    config: TrainConfig
    data: Dataset
    batches: Batches
    n: int
    folder: Path
    device: torch.device
    ranks: Ranks
    stepper: Stepper

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return self.n // self.config.batch_size

    def steps_of_epoch(
        self, state: Checkpoint, on_step: Callable[[int, int, int], None]
    ) -> tuple[Checkpoint, float]:
        """Train to the end of an epoch.  Returns the place there, and images per second."""
        config, epoch, size = self.config, state.epoch, self.config.batch_size
        order = generator_for(config.seed, "order", epoch).permutation(self.n)
        sums = torch.tensor([state.loss_sum, state.accuracy_sum], dtype=torch.float64)
        sums = sums.to(self.device)
        here = self.ranks.share(size, config.accumulate)
        started = saved = time.monotonic()
        rows = [order[step * size :][here] for step in range(state.step, self.steps)]
        for step, (x, y) in enumerate(self.batches.train(epoch, rows), start=state.step):
            rate = learning_rate(config, epoch * self.steps + step, config.epochs * self.steps)
            sums += self.stepper(x, y, epoch, step, rate)
            on_step(epoch, step + 1, self.steps)
            if time.monotonic() - saved > SAVE_EVERY_SECONDS:
                self.save(state.at(step + 1, sums))
                saved = time.monotonic()
        at_end = state.at(self.steps, sums)  # waits for a GPU to come to the end, too
        seconds = max(time.monotonic() - started, 1e-9)
        return at_end, (self.steps - state.step) * size / seconds

    def end_epoch(self, state: Checkpoint, speed: float) -> tuple[Checkpoint, EpochMetrics]:
        """Measure on the held-out images, and write down the epoch and the weights if best."""
        config, stepper = self.config, self.stepper
        if not math.isfinite(state.loss_sum):
            raise SatbenchError(
                f"the loss was {state.loss_sum} in epoch {state.epoch + 1}: training diverged; "
                "lower learning_rate, or set warm_up or gradient_clip"
            )
        stepper.end_epoch(state.epoch + 1)
        clean, robust = held_out_accuracies(
            config, stepper.result, self.batches, self.n + config.held_out, self.device, self.ranks
        )
        metrics = EpochMetrics(
            epoch=state.epoch + 1,
            loss=state.loss_sum / self.steps,
            train_accuracy=state.accuracy_sum / self.steps,
            held_out_clean=clean,
            held_out_pgd10=robust,
            learning_rate=stepper.optimiser.param_groups[0]["lr"],
            images_per_second=speed,
        )
        history = _history(state)
        metrics = replace(metrics, warning=overfitting(config, history, metrics))
        if best_of([*history, metrics]) == metrics and self.ranks.leads:
            self.save_best(metrics)
        state = Checkpoint(
            epoch=metrics.epoch,
            history=(*state.history, asdict(metrics)),
            stopped=metrics.warning if config.on_overfitting != "warn" else "",
        )
        self.save(state)
        self.write_metrics(state)
        return state, metrics

    def save(self, state: Checkpoint) -> None:
        """Write the place and all that goes with it."""
        if self.ranks.leads:
            stepper = self.stepper
            save_checkpoint(self.folder, stepper.network, stepper.optimiser, stepper.average, state)

    def save_best(self, metrics: EpochMetrics) -> None:
        """Write the weights of an epoch that is the best so far, with their card in the file."""
        model, name = self.stepper.result, f"{self.folder.name}-best"
        kept = (f"epoch {metrics.epoch}, best so far by held-out PGD-10 accuracy", metrics)
        card = run_card(name, BEST, model, self.config, self.data, kept)
        save_weights(model, self.folder / BEST, card)

    def write_metrics(self, state: Checkpoint) -> None:
        """Write a line for each epoch done; the file is whole at any time."""
        if self.ranks.leads:
            lines = (json.dumps(epoch) + "\n" for epoch in state.history)
            write_text(self.folder / METRICS, "".join(lines))

    def handed_on(self, state: Checkpoint) -> Trained:
        """Choose the epoch that is handed on, and say why."""
        config, history = self.config, _history(state)
        model, last, best = self.stepper.result, history[-1], best_of(history)
        rolled_back = bool(state.stopped) and config.on_overfitting == "rollback"
        if best is None or not (rolled_back or config.keep == "best"):
            kept, why = last, "last epoch"
            if state.stopped:
                why += f", {last.epoch} of {config.epochs}"
        else:
            self.ranks.wait()
            load_weights(model, self.folder / BEST)
            kept, why = best, f"epoch {best.epoch}, best by held-out PGD-10 accuracy"
        if config.ema_decay:
            why += f"; moving average of the weights, decay {config.ema_decay:g}"
        if config.swa_from:
            why += f"; even average of the weights from epoch {config.swa_from} on"
        if state.stopped:
            why += f"; {'rolled back' if rolled_back else 'stopped'}: {state.stopped}"
        return Trained(model.eval(), history, kept.epoch, why)


def _history(state: Checkpoint) -> list[EpochMetrics]:
    return [EpochMetrics(**past) for past in state.history]


__all__ = [
    "EpochMetrics",
    "StepNoise",
    "Trained",
    "fresh_model",
    "learning_rate",
    "train",
]
