"""Adversarial training as min-max (Madry et al., 2018, arXiv:1706.06083): one loop.

The inner maximum is an ordinary attack; the outer minimum is SGD.  What a run does is fixed by
its `TrainConfig`; initial weights, the order of the data and the noise of the attacker are
functions of the seed and of the place in the run, so a stopped run goes on to the very same
weights, and runs that differ in the activation alone start and go through the data alike.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.attacks import parse_attack
from satbench.attacks.contract import Attack, NoiseSource
from satbench.checkpoint import Checkpoint, load_checkpoint, open_run, save_checkpoint
from satbench.core.errors import SatbenchError
from satbench.core.noise import Noise, generator_for
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.model_zoo.build import build_network
from satbench.recipes import TrainConfig

SAVE_EVERY_SECONDS = 30.0


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch came to.  Accuracies are shares in [0, 1]."""

    epoch: int
    loss: float
    """Mean loss over the training batches as they were trained on (adversarial)."""
    train_accuracy: float
    """Accuracy on those same adversarial training images."""
    held_out_clean: float
    held_out_pgd10: float
    learning_rate: float
    images_per_second: float


@dataclass(frozen=True)
class StepNoise:
    """The attacker's noise in one training step: one stream a step, drawn for the whole batch."""

    seed: int
    epoch: int
    step: int
    batch: int

    def uniform(self, shape: tuple[int, ...], restart: int = 0) -> NDArray[np.float32]:
        """Draw from U(-1, 1).  (C, H, W) -> (B, C, H, W)."""
        generator = generator_for(*self._key(restart))
        return 2 * generator.random((self.batch, *shape), np.float32) - 1

    def normal(self, shape: tuple[int, ...], restart: int = 0) -> NDArray[np.float32]:
        """Draw from N(0, 1).  (C, H, W) -> (B, C, H, W)."""
        generator = generator_for(*self._key(restart), "normal")
        return generator.standard_normal((self.batch, *shape), np.float32)

    def block_seed(self, restart: int = 0) -> int:
        """Return a 31-bit seed."""
        return int(generator_for(*self._key(restart), "block").integers(2**31))

    def _key(self, restart: int) -> tuple[int | str, ...]:
        return (self.seed, "training attack", self.epoch, self.step, restart)


def train(
    config: TrainConfig,
    data: Dataset,
    folder: Path,
    device: torch.device,
    on_step: Callable[[int, int, int], None] = lambda epoch, step, steps: None,
    on_epoch: Callable[[EpochMetrics], None] = lambda metrics: None,
) -> tuple[nn.Module, list[EpochMetrics]]:
    """Train what `config` says on the training split `data`; go on where `folder` stopped.

    The last `config.held_out` images are held out for the metrics of each epoch.  Checkpoints go
    to `folder`.  `on_step(epoch, step, steps)` and `on_epoch(metrics)` are told of progress.
    Returns the model, in eval mode, and the metrics of every epoch.  Raises SatbenchError for
    a bad config and for a folder that holds another run.
    """
    model = fresh_model(config, data.classes).to(device).to(memory_format=torch.channels_last)
    optimiser = _optimiser(config, model)
    attack = parse_attack(config.attack) if config.attack else None
    threat = Threat.parse(config.threat)
    n = len(data) - config.held_out
    steps = n // config.batch_size
    if n < config.batch_size:
        raise SatbenchError(
            f"expected more than {config.batch_size} training images (one batch) beside the "
            f"{config.held_out} held out, got {len(data)} in all"
        )
    open_run(folder, config)
    state = load_checkpoint(folder, model, optimiser)
    saved_at = time.monotonic()

    for epoch in range(state.epoch, config.epochs):
        order = generator_for(config.seed, "order", epoch).permutation(n)
        started, first = time.monotonic(), state.step
        for step in range(first, steps):
            rows = order[step * config.batch_size : (step + 1) * config.batch_size]
            x, y = _batch(data, rows, device)
            if attack:
                noise = StepNoise(config.seed, epoch, step, len(x))
                x = _perturb(attack, config, model, x, y, threat, noise)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(config, epoch * steps + step, config.epochs * steps)
            logits = model.train()(x)
            loss = F.cross_entropy(logits, y, label_smoothing=config.label_smoothing)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            state = state.after_step(loss.item(), (logits.argmax(1) == y).float().mean().item())
            on_step(epoch, state.step, steps)
            if time.monotonic() - saved_at > SAVE_EVERY_SECONDS:
                save_checkpoint(folder, model, optimiser, state)
                saved_at = time.monotonic()
        seconds = time.monotonic() - started
        clean, robust = _held_out_accuracies(config, model, data, threat, device)
        metrics = EpochMetrics(
            epoch=epoch + 1,
            loss=state.loss_sum / steps,
            train_accuracy=state.accuracy_sum / steps,
            held_out_clean=clean,
            held_out_pgd10=robust,
            learning_rate=optimiser.param_groups[0]["lr"],
            images_per_second=(steps - first) * config.batch_size / max(seconds, 1e-9),
        )
        state = Checkpoint(epoch=epoch + 1, history=(*state.history, asdict(metrics)))
        save_checkpoint(folder, model, optimiser, state)
        on_epoch(metrics)
    return model.eval(), [EpochMetrics(**cast(dict[str, Any], past)) for past in state.history]


def fresh_model(config: TrainConfig, classes: int) -> nn.Module:
    """Build the untrained model of a run: its weights are a function of the seed.

    torch's global generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_network(config.architecture, config.activation, classes)


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Return the rate at `step` of `steps`: linear warm-up, then half a cosine down to 0."""
    warm = config.warm_up * steps
    if step < warm:
        return config.learning_rate * (step + 1) / max(warm, 1)
    return config.learning_rate * (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2


def _optimiser(config: TrainConfig, model: nn.Module) -> torch.optim.SGD:
    # Biases, batch-norm and an activation's own parameters do not decay.
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        groups, lr=config.learning_rate, momentum=config.momentum, nesterov=config.momentum > 0
    )


def _perturb(
    attack: Attack,
    config: TrainConfig,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    noise: NoiseSource,
) -> Tensor:
    model.train(config.attack_mode == "train")
    return attack(model, x, y, threat, noise).detach()


def _held_out_accuracies(
    config: TrainConfig, model: nn.Module, data: Dataset, threat: Threat, device: torch.device
) -> tuple[float, float]:
    """Return clean and PGD-10 accuracy on the held-out images, in eval mode."""
    model.eval()
    attack = parse_attack("pgd-10")
    clean = robust = 0
    for rows in _held_out_rows(len(data), config.held_out):
        x, y = _batch(data, rows, device)
        noise = Noise(config.seed, "held-out pgd-10", tuple(rows.tolist()))
        with torch.no_grad():
            right = model(x).argmax(1) == y
            clean += int(right.sum())
        x_adv = attack(model, x, y, threat, noise)
        with torch.no_grad():
            robust += int((right & (model(x_adv).argmax(1) == y)).sum())
    return clean / max(config.held_out, 1), robust / max(config.held_out, 1)


def _held_out_rows(n: int, held_out: int, batch: int = 250) -> Iterator[NDArray[np.int64]]:
    for start in range(n - held_out, n, batch):
        yield np.arange(start, min(start + batch, n))


def _batch(data: Dataset, rows: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
    x = torch.from_numpy(data.pixels(rows)).to(device)
    return x, torch.from_numpy(data.labels[rows]).to(device)
