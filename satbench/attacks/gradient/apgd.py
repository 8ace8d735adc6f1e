"""Auto-PGD: projected gradient ascent with momentum that halves its own step.

Croce & Hein, 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks" (arXiv:2003.01690, algorithm 1 and section 4); in L1 Croce & Hein, 2021,
"Mind the box" (arXiv:2103.01208, section 3).  The package pyautoattack 0.2 defines the verdict.
Noise is drawn in its order, for the same images of the block, and every iterate is computed in the
same way.  Passes that change no verdict are left out: an image leaves the batch at its first
misclassified iterate, the clean logits are computed once, and the gradient of the last iterate is
not computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from satbench.attacks.gradient import losses
from satbench.attacks.gradient.apgd_run import Problem, Search, normalised
from satbench.core.errors import SatbenchError
from satbench.core.limits import check_at_least_one
from satbench.core.threat import Norm, Threat
from satbench.engine.ball import l1_correction
from satbench.engine.contract import Model, NoiseSource, of_any_batch

BLOCK = 250  # images that share a stream of noise: the package's default batch size

L1_RESTARTS, L1_TARGETS = 5, 5  # of the package's standard version in L1


@dataclass(frozen=True)
class APGDCE:
    """Auto-PGD on the cross-entropy: `steps` steps from each of `restarts` random points.

    The default fields give the standard version for the norm: in L1 it has 5 restarts, each through
    the radii 3 eps, 2 eps and eps (30, 30 and 40 % of the steps).  More than one sample (`eot`) per
    step is for a randomised model: gradients are averaged, and the last sample gives the label.  L1
    then has no larger radii and as many restarts as given, as in the package's version 'rand'.
    `block` images share a stream of noise.
    """

    steps: int = 100
    restarts: int = 1
    block: int = BLOCK
    eot: int = 1

    def __post_init__(self) -> None:
        check_at_least_one("apgd-ce", self)

    @of_any_batch
    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat`.  (B, C, H, W) in [0, 1], (B,) labels -> (B, C, H, W)."""
        clean = clean_logits(model, x, least_classes=2, loss="cross-entropy")
        runs = [y] * restarts_in(threat, self.restarts, self.eot)
        search = Search(model, lambda z, y, _: losses.cross_entropy(z, y), self.steps, self.eot)
        return in_runs(search, x, y, clean, runs, threat, noise)


@dataclass(frozen=True)
class APGDDLR:
    """Auto-PGD on the difference of logits ratio, which does not change if the logits are scaled.

    The fields are those of apgd-ce.  Raises SatbenchError for fewer than 3 classes.
    """

    least_classes: ClassVar[int] = 3

    steps: int = 100
    restarts: int = 1
    block: int = BLOCK
    eot: int = 1

    def __post_init__(self) -> None:
        check_at_least_one("apgd-dlr", self)

    @of_any_batch
    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat`.  (B, C, H, W) in [0, 1], (B,) labels -> (B, C, H, W)."""
        clean = clean_logits(model, x, least_classes=3, loss="DLR loss")
        runs = [y] * restarts_in(threat, self.restarts, self.eot)
        search = Search(model, lambda z, y, _: losses.dlr(z, y), self.steps, self.eot)
        return in_runs(search, x, y, clean, runs, threat, noise)


@dataclass(frozen=True)
class APGDT:
    """Auto-PGD on the targeted DLR loss, one run for each of the most likely wrong classes.

    Classes are in the order of the clean logits.  The default of 9 `targets` means the number of
    the standard version for the norm: 5 in L1, where each run goes through larger radii.  The other
    fields are those of apgd-ce.  Raises SatbenchError for fewer than 4 classes.
    """

    least_classes: ClassVar[int] = 4

    steps: int = 100
    targets: int = 9
    block: int = BLOCK
    eot: int = 1

    def __post_init__(self) -> None:
        check_at_least_one("apgd-t", self)

    @of_any_batch
    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat`.  (B, C, H, W) in [0, 1], (B,) labels -> (B, C, H, W)."""
        clean = clean_logits(model, x, least_classes=4, loss="targeted DLR loss")
        count = min(targets_in(threat, self.targets, self.eot), clean.shape[1] - 1)
        order = clean.sort(1).indices
        runs = [order[:, -rank] for rank in range(2, count + 2)]
        search = Search(model, losses.dlr_targeted, self.steps, self.eot)
        return in_runs(search, x, y, clean, runs, threat, noise)


def clean_logits(model: Model, x: Tensor, least_classes: int, loss: str) -> Tensor:
    """Return the logits of `x`, (B, K).  Raises SatbenchError for fewer classes than a loss needs.

    `loss` is its name in the message.
    """
    with torch.no_grad():
        logits = model(x)
    if logits.shape[1] < least_classes:
        raise SatbenchError(
            f"autoattack's {loss} needs at least {least_classes} classes, "
            f"got {logits.shape[1]}; run apgd-ce, fab-t and square instead"
        )
    return logits


def in_runs(
    search: Search,
    x: Tensor,
    y: Tensor,
    clean: Tensor,
    runs: Sequence[Tensor],
    threat: Threat,
    noise: NoiseSource,
) -> Tensor:
    """Run one after the other, each on the images that are left.

    `runs` has the targets of each run, (B,).  An image that is wrong without an attack is returned
    unchanged.
    """
    result = x.clone()
    left = (clean.max(1).indices == y).nonzero().squeeze(1)
    with torch.no_grad(), _seeded(noise.block_seed(), x.device):
        for target in runs:
            if not len(left):
                break
            fooled, found = _one_run(search, x[left], y[left], target[left], threat)
            result[left[fooled]] = found[fooled].clamp(0, 1)
            left = left[~fooled]
    return result


def larger_radii(threat: Threat, eot: int) -> bool:
    """Say whether a run starts at larger radii: in L1, in the package's standard version."""
    return threat.norm == "l1" and eot == 1


def restarts_in(threat: Threat, restarts: int, eot: int) -> int:
    """Return the number of restarts under `threat`."""
    return L1_RESTARTS if larger_radii(threat, eot) and restarts == 1 else restarts


def targets_in(threat: Threat, targets: int, eot: int) -> int:
    """Return the number of targets under `threat`."""
    return L1_TARGETS if larger_radii(threat, eot) and targets == 9 else targets


def _one_run(
    search: Search, x: Tensor, y: Tensor, target: Tensor, threat: Threat
) -> tuple[Tensor, Tensor]:
    """Return which images were broken, (B,) bool, and the adversarial images."""
    eps = threat.radius
    if not larger_radii(threat, search.eot):
        start = _random_start(x, threat.norm, eps)
        outcome = search.run(
            Problem(x, y, target, threat.norm, eps, last=True), start, search.steps
        )
        return outcome.fooled, outcome.found
    start = x + torch.randn(x.shape).to(x.device)
    start = start + l1_correction(start - x, x, 3 * eps)
    for radius, steps in zip((3 * eps, 2 * eps, eps), _thirds(search.steps), strict=True):
        start = start + l1_correction(start - x, x, radius)
        torch.randn(x.shape)  # the package draws a start that it does not use
        problem = Problem(x, y, target, threat.norm, radius, last=radius == eps)
        outcome = search.run(problem, start.clamp(0, 1), steps, sparse_start=True)
        start = outcome.best
    return outcome.fooled, outcome.found


def _thirds(steps: int) -> tuple[int, int, int]:
    part = math.ceil(0.3 * steps)
    return part, part, max(steps - 2 * part, 0)


def _random_start(x: Tensor, norm: Norm, eps: float) -> Tensor:
    """Draw a start on the ball, clipped to [0, 1]: in Linf scaled so that a pixel touches it."""
    drawn = 2 * torch.rand(x.shape) - 1 if norm == "linf" else torch.randn(x.shape)
    delta = drawn.to(x.device)
    if norm == "l1":
        return (x + delta + l1_correction(delta, x, eps)).clamp(0, 1)
    return (x + eps * normalised(delta, norm)).clamp(0, 1)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators, as the package does, and restore their state afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.random.manual_seed(seed)
        yield
