"""What is watched from epoch to epoch, on held-out training images: never on the test set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from satbench.attacks import parse_attack
from satbench.core.noise import Noise
from satbench.core.threat import Threat
from satbench.recipes import TrainConfig
from satbench.training.batches import Batches
from satbench.training.ranks import Ranks


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
    warning: str = ""


def held_out_accuracies(
    config: TrainConfig,
    model: nn.Module,
    batches: Batches,
    n: int,
    device: torch.device,
    ranks: Ranks,
) -> tuple[float, float]:
    """Return clean and PGD-10 accuracy on the last images of n, in eval mode and float32.

    The processes of a distributed run share the images.
    """
    model.eval()
    attack, threat = parse_attack("pgd-10"), Threat.parse(config.threat)
    right_ones = torch.zeros(2, dtype=torch.float64, device=device)
    for rows in list(_held_out_rows(n, config.held_out))[ranks.rank :: ranks.world]:
        x, y = batches.held_out(rows)
        noise = Noise(config.seed, "held-out pgd-10", tuple(rows.tolist()))
        with torch.no_grad():
            right = model(x).argmax(1) == y
        x_adv = attack(model, x, y, threat, noise)
        with torch.no_grad():
            robust = right & (model(x_adv).argmax(1) == y)
        right_ones += torch.stack([right.sum(), robust.sum()])
    clean, pgd10 = (ranks.total(right_ones) / config.held_out).tolist()
    return clean, pgd10


def overfitting(config: TrainConfig, history: Sequence[EpochMetrics], now: EpochMetrics) -> str:
    """Return what to say when robustness has collapsed, else nothing.

    Single-step training can lose its robustness within an epoch (catastrophic overfitting: Wong
    et al., 2020, arXiv:2001.03994, section 5.4), which shows under PGD alone.  Standard training
    has none to lose.
    """
    best = best_of(history) if config.attack else None
    if best is None or best.held_out_pgd10 - now.held_out_pgd10 < config.overfitting_drop:
        return ""
    return (
        f"held-out PGD-10 accuracy fell from {best.held_out_pgd10:.1%} (epoch {best.epoch}) to "
        f"{now.held_out_pgd10:.1%} (epoch {now.epoch}): catastrophic overfitting"
    )


def best_of(history: Sequence[EpochMetrics]) -> EpochMetrics | None:
    """Return the epoch of greatest held-out PGD-10 accuracy, the first of equals."""
    return max(history, key=lambda metrics: metrics.held_out_pgd10, default=None)


def _held_out_rows(n: int, held_out: int, batch: int = 250) -> Iterator[NDArray[np.int64]]:
    for start in range(n - held_out, n, batch):
        yield np.arange(start, min(start + batch, n))
