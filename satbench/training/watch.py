"""Measurements during a run on held-out training images, never on the test set."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.attacks import parse_attack
from satbench.core.noise import Noise
from satbench.core.threat import Threat
from satbench.model_zoo.card import OVERFITTED
from satbench.recipes import TrainConfig
from satbench.training.images.batches import Batches
from satbench.training.ranks import Ranks
from satbench.training.saved.checkpoint import NotFiniteError
from satbench.training.update.inner import Inner

LOOKED_AT = 64
"""The number of held-out images that a check within an epoch uses."""
LEAST_STEPS = 10
"""Least number of steps between two checks."""
_AT_ONCE = 250
_FAR = 3.0  # standard errors from which a difference is not due to the choice of images
_SMALL_GAP = 0.1
_NEAR_CHANCE = 0.99


@dataclass(frozen=True)
class EpochMetrics:
    """The metrics of one epoch.  Accuracies are shares in [0, 1].

    `checks` are the checks within the epoch: `step`, and accuracies `attack` and `pgd10` on a few
    images.  `collapsed` says that single-step training has overfitted catastrophically.
    """

    epoch: int
    loss: float
    """Mean loss over the adversarial training batches."""
    train_accuracy: float
    """Accuracy on the same adversarial training images."""
    held_out_clean: float
    held_out_pgd10: float
    learning_rate: float
    images_per_second: float
    warning: str = ""
    held_out_attack: float | None = None
    """Accuracy under the training attack; None for standard training."""
    collapsed: bool = False
    checks: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Held:
    """The accuracies of a model on held-out images, shares in [0, 1].

    `attack` is the accuracy under the training attack, None for standard training; `pgd10` that
    under PGD-10, and `error` the standard error of their difference.  `trained` is the accuracy on
    the adversarial training images.
    """

    clean: float
    pgd10: float
    attack: float | None = None
    error: float = 0.0
    images: int = 0
    trained: float = 0.0

    @property
    def gap(self) -> float:
        """How many more images PGD-10 breaks than the training attack, as a share."""
        return 0.0 if self.attack is None else self.attack - self.pgd10

    def as_check(self, step: int, collapsed: bool) -> dict[str, float]:
        """Return a check within an epoch, in the form of the metrics file."""
        attack = {} if self.attack is None else {"attack": self.attack}
        check = {"step": step, "trained": self.trained, **attack, "pgd10": self.pgd10}
        return check | ({"collapsed": 1} if collapsed else {})


def held_out_accuracies(
    config: TrainConfig,
    inner: Inner | None,
    model: nn.Module,
    batches: Batches,
    rows: NDArray[np.int64],
    device: torch.device,
    ranks: Ranks,
) -> Held:
    """Measure a model on held-out images, in eval mode and float32; processes share the images.

    Raises NotFiniteError if an answer of the model is not finite.
    """
    model.eval()
    pgd10, threat = parse_attack("pgd-10"), Threat.parse(config.threat)
    counts = torch.zeros(6, dtype=torch.float64, device=device)
    pieces = [rows[first : first + _AT_ONCE] for first in range(0, len(rows), _AT_ONCE)]
    for piece in pieces[ranks.rank :: ranks.world]:
        x, y = batches.held_out(piece)
        indices = tuple(piece.tolist())
        right, finite = _right(model, x, y)
        x_adv = pgd10(model, x, y, threat, Noise(config.seed, "held-out pgd-10", indices))
        robust = right & _right(model, x_adv, y)[0]
        resists = right
        if inner:
            noise = Noise(config.seed, "held-out training attack", indices)
            resists = right & _right(model, inner.search(model, x, y, noise), y)[0]
        found, missed = (resists & ~robust).sum(), (robust & ~resists).sum()
        counts += torch.stack(
            [right.sum(), robust.sum(), resists.sum(), found, missed, (~finite).sum()]
        )
    clean, robust_ones, resisting, found_ones, missed_ones, bad = ranks.total(counts).tolist()
    if bad:
        raise NotFiniteError(f"the answer to {bad:.0f} of {len(rows)} held-out images")
    return Held(
        clean / len(rows),
        robust_ones / len(rows),
        resisting / len(rows) if inner else None,
        math.sqrt(found_ones + missed_ones) / len(rows),
        len(rows),
    )


def looks(config: TrainConfig, steps: int) -> frozenset[int]:
    """Return the steps of an epoch after which there is a check, without the last step."""
    parts = min(config.checks, steps // LEAST_STEPS)
    return frozenset(round(part * steps / parts) for part in range(1, parts))


def has_collapsed(config: TrainConfig, held: Held, classes: int) -> bool:
    """Return whether a model resists its training attack but no stronger one.

    That is catastrophic overfitting of single-step training (Wong et al., 2020, arXiv:2001.03994,
    section 5.4).  There are two signs; both must exceed three standard errors.  First: on held-out
    images the accuracies under the two attacks differ by `overfitting_drop`, or they differ by a
    tenth and PGD-10 accuracy is below half of the other.  Second: the model resists its attack only
    on training images, and held-out PGD-10 accuracy is below half of chance level, below a quarter
    of the accuracy on training images, and below a quarter of the held-out clean accuracy.
    """
    if held.attack is None:
        return False
    halved = held.gap >= _SMALL_GAP and held.pgd10 < held.attack / 2
    apart = held.gap > 0 and (held.gap >= config.overfitting_drop or halved)
    if apart and held.gap >= _FAR * held.error:
        return True
    right, error = min(held.trained, held.clean), 0.5 / math.sqrt(max(held.images, 1))
    nothing_left = held.pgd10 < min(1 / (2 * classes), right / 4)
    return nothing_left and right - held.pgd10 >= max(config.overfitting_drop, _FAR * error)


def overfitting(config: TrainConfig, history: Sequence[EpochMetrics], now: EpochMetrics) -> str:
    """Return a warning about an epoch that has overfitted, else nothing.

    Standard training has no robustness to lose.  If the accuracy under the training attack falls
    below the best epoch as well, it is not catastrophic overfitting but robust overfitting (Rice et
    al., 2020, arXiv:2002.11569).
    """
    if now.collapsed and now.held_out_attack is not None:
        resisted = _resisted(now.held_out_attack, now.train_accuracy)
        return (
            f"accuracy is {resisted}, and {now.held_out_pgd10:.1%} under PGD-10 (epoch "
            f"{now.epoch}): catastrophic overfitting"
        )
    best = best_of(history) if config.attack else None
    if best is None or best.held_out_pgd10 - now.held_out_pgd10 < config.overfitting_drop:
        return ""
    return (
        f"held-out PGD-10 accuracy fell from {best.held_out_pgd10:.1%} (epoch {best.epoch}) to "
        f"{now.held_out_pgd10:.1%} (epoch {now.epoch}), and so did that under the training attack: "
        "robust overfitting, or the learning rate is too high"
    )


def collapse(check: dict[str, float], epoch: int) -> str:
    """Return a warning about a collapse that a check within an epoch found."""
    return (
        f"accuracy was {_resisted(check['attack'], check['trained'])}, and {check['pgd10']:.1%} "
        f"under PGD-10, at step {check['step']:.0f} of epoch {epoch}: catastrophic overfitting"
    )


def _resisted(held: float, trained: float) -> str:
    return (
        f"{trained:.1%} on training images and {held:.1%} on held-out ones under the training "
        "attack"
    )


def collapse_within(metrics: EpochMetrics) -> str:
    """Return a warning about a collapse within an epoch, else nothing."""
    found = [collapse(check, metrics.epoch) for check in metrics.checks if "collapsed" in check]
    return found[0] if found else ""


def history_notes(
    history: Sequence[EpochMetrics], kept: EpochMetrics, chance: float
) -> Iterator[str]:
    """Yield notes on the epochs of a run for the card; `kept` is the chosen epoch."""
    seen = [m.epoch for m in history if m.collapsed or collapse_within(m)]
    if seen:
        which = "one of these" if kept.epoch in seen else "another epoch"
        yield f"{OVERFITTED} in epoch {_listed(seen)}; the weights are of {which}"
    idle = [m.epoch for m in history if no_better_than_chance(m, chance)]
    if idle:
        yield f"the loss was at chance level ({chance:.3g}) in epoch {_listed(idle)}"


def _listed(epochs: Sequence[int]) -> str:
    return ", ".join(str(epoch) for epoch in epochs)


def best_of(history: Sequence[EpochMetrics]) -> EpochMetrics | None:
    """Return the epoch with the greatest held-out PGD-10 accuracy, on a tie the first.

    An epoch without a collapse is better than any with one.
    """
    return max(history, key=lambda m: (not m.collapsed, m.held_out_pgd10), default=None)


def chance_level(config: TrainConfig, labels: NDArray[np.int64], classes: int) -> float:
    """Return the least mean loss, in nats, of a model that ignores the image."""
    shares = np.bincount(labels, minlength=classes) / len(labels)
    shares = shares * (1 - config.label_smoothing) + config.label_smoothing / classes
    positive = shares[shares > 0]
    entropy = float(-(positive * np.log(positive)).sum())
    # MART adds -log(1 - p) of the best other class.
    return entropy - (math.log(1 - 1 / classes) if config.objective == "mart" else 0.0)


def no_better_than_chance(metrics: EpochMetrics, chance: float) -> str:
    """Return a warning about an epoch whose loss is not below chance level, else nothing."""
    if metrics.loss < _NEAR_CHANCE * chance:
        return ""
    return (
        f"the mean loss of epoch {metrics.epoch} was {metrics.loss:.3g}, not below chance level "
        f"({chance:.3g}, one answer for all images): lower learning_rate, or train longer"
    )


def _right(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return which answers are right, and which are finite.  -> (B,), (B,)."""
    with torch.no_grad():
        logits = model(x)
    return logits.argmax(1) == y, torch.isfinite(logits).all(1)
