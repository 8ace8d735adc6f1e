"""AutoAttack and its parts, run by the package that defines them: pyautoattack 0.2.

Croce & Hein, 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks" (arXiv:2003.01690), FAB (Croce & Hein, 2020, arXiv:1907.02044) and Square
(Andriushchenko et al., 2020, arXiv:1912.00049).

The package draws its noise for the whole batch it is given, so what an image gets depends on its
neighbours.  Hence `block`: the data set is cut into blocks of that many images by index, each
block's survivors are attacked together, and the seed is a function of the block's number.  The
block is part of the spec and of the protocol; `--batch-size` does not touch it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pyautoattack import AutoAttack as Package
from torch import Tensor

from satbench.attacks.contract import Attack, Model, NoiseSource
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat

BLOCK = 250  # the package's own default batch size

_NORMS = {"linf": "Linf", "l2": "L2"}


@dataclass(frozen=True)
class APGDCE:
    """Auto-PGD on the cross-entropy (arXiv:2003.01690, algorithm 1)."""

    steps: int = 100
    restarts: int = 1
    block: int = BLOCK

    def __post_init__(self) -> None:
        _check_at_least_one("apgd-ce", steps=self.steps, restarts=self.restarts, block=self.block)

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat`.  (B, C, H, W) in [0, 1], (B,) labels -> (B, C, H, W)."""
        package = _package(model, x, threat)
        package.apgd.loss = "ce"
        _set_steps(package.apgd, self.steps)
        package.apgd.n_restarts = self.restarts
        return _perturb(package.apgd, x, y, noise)


@dataclass(frozen=True)
class APGDT:
    """Auto-PGD on the targeted DLR loss, one run a target (arXiv:2003.01690, section 4)."""

    steps: int = 100
    targets: int = 9
    block: int = BLOCK

    def __post_init__(self) -> None:
        _check_at_least_one("apgd-t", steps=self.steps, targets=self.targets, block=self.block)

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat`.  (B, C, H, W) in [0, 1], (B,) labels -> (B, C, H, W)."""
        package = _package(model, x, threat)
        attack = package.apgd_targeted
        _set_steps(attack, self.steps)
        attack.n_target_classes = _targets(self.targets, model, x, least_classes=4)
        return _perturb(attack, x, y, noise)


@dataclass(frozen=True)
class FABT:
    """Targeted FAB: the smallest perturbation along linearised boundaries (arXiv:1907.02044)."""

    steps: int = 100
    targets: int = 9
    block: int = BLOCK

    def __post_init__(self) -> None:
        _check_at_least_one("fab-t", steps=self.steps, targets=self.targets, block=self.block)

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat`.  (B, C, H, W) in [0, 1], (B,) labels -> (B, C, H, W)."""
        attack = _package(model, x, threat).fab
        attack.targeted, attack.n_restarts, attack.n_iter = True, 1, self.steps
        attack.n_target_classes = _targets(self.targets, model, x, least_classes=2)
        return _perturb(attack, x, y, noise)


@dataclass(frozen=True)
class Square:
    """Square: random search with squares, scores only, no gradient (arXiv:1912.00049)."""

    uses_gradients: ClassVar[bool] = False

    queries: int = 5000
    block: int = BLOCK

    def __post_init__(self) -> None:
        _check_at_least_one("square", queries=self.queries, block=self.block)

    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat`.  (B, C, H, W) in [0, 1], (B,) labels -> (B, C, H, W)."""
        attack = _package(model, x, threat).square
        attack.n_queries = self.queries
        return _perturb(attack, x, y, noise)


@dataclass(frozen=True)
class AutoAttack:
    """Standard AutoAttack: APGD-CE, APGD-T, FAB-T, Square, each on what the last one left."""

    version: Literal["standard"] = "standard"
    block: int = BLOCK

    def __post_init__(self) -> None:
        _check_at_least_one("autoattack", block=self.block)

    def parts(self) -> tuple[tuple[str, Attack], ...]:
        """Return the parts in order, named."""
        return (
            ("apgd-ce", APGDCE(block=self.block)),
            ("apgd-t", APGDT(block=self.block)),
            ("fab-t", FABT(block=self.block)),
            ("square", Square(block=self.block)),
        )


def _package(model: Model, x: Tensor, threat: Threat) -> Package:
    return Package(
        model,
        norm=_NORMS[threat.norm],
        eps=threat.radius,
        version="standard",
        device=x.device,
        seed=0,  # each part is given its own seed before it runs
    )


def _perturb(attack: object, x: Tensor, y: Tensor, noise: NoiseSource) -> Tensor:
    attack.seed = noise.block_seed()  # type: ignore[attr-defined]
    perturb: Callable[[Tensor, Tensor], Tensor] = attack.perturb  # type: ignore[attr-defined]
    with _global_generators_kept(x.device), torch.no_grad():
        return perturb(x.clone(), y.clone()).detach()


@contextmanager
def _global_generators_kept(device: torch.device) -> Iterator[None]:
    # The package seeds torch's global generators; the caller's are put back.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def _set_steps(attack: object, steps: int) -> None:
    """Set the number of iterations with the checkpoints that the package derives from it."""
    attack.n_iter = attack.n_iter_orig = steps  # type: ignore[attr-defined]
    attack.n_iter_2 = max(int(0.22 * steps), 1)  # type: ignore[attr-defined]
    attack.n_iter_min = max(int(0.06 * steps), 1)  # type: ignore[attr-defined]
    attack.size_decr = max(int(0.03 * steps), 1)  # type: ignore[attr-defined]


def _targets(wanted: int, model: Model, x: Tensor, least_classes: int) -> int:
    with torch.no_grad():
        classes = model(x[:1]).shape[1]
    if classes < least_classes:
        raise SatbenchError(
            f"autoattack's targeted DLR loss needs at least {least_classes} classes, "
            f"got {classes}; use apgd-ce and square instead"
        )
    return min(wanted, classes - 1)


def _check_at_least_one(name: str, **counts: int) -> None:
    for parameter, value in counts.items():
        if value < 1:
            raise SatbenchError(f"{name}: expected {parameter} of 1 or more, got {value}")
