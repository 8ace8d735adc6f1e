"""The reference: AutoAttack and its parts, run by the package that defines them, pyautoattack 0.2.

Croce & Hein, 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks" (arXiv:2003.01690), FAB (Croce & Hein, 2020, arXiv:1907.02044) and Square
(Andriushchenko et al., 2020, arXiv:1912.00049).

The package draws its noise for the whole batch, so the noise of an image depends on the other
images.  Therefore `block`: the data set is cut into blocks of consecutive images, each block's
survivors are attacked together, and the seed is a function of the block's number.  The block is
part of the spec and of the protocol; `--batch-size` does not change it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pyautoattack import AutoAttack as Package
from torch import Tensor

from satbench.attacks.gradient.apgd import (
    BLOCK,
    larger_radii,
    restarts_in,
    targets_in,
)
from satbench.calling.pixel_gradients import pixels_only
from satbench.core.errors import SatbenchError
from satbench.core.limits import check_at_least_one
from satbench.core.threat import Threat
from satbench.engine.contract import Attack, Model, NoiseSource, of_any_batch

_NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


@dataclass(frozen=True)
class ReferenceAPGDCE:
    """The package's Auto-PGD on the cross-entropy; the fields are those of our own."""

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
        return _untargeted(self, "ce", model, x, y, threat, noise)


@dataclass(frozen=True)
class ReferenceAPGDDLR:
    """The package's Auto-PGD on the difference of logits ratio."""

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
        _targets(1, model, x, least_classes=3, loss="DLR loss")
        return _untargeted(self, "dlr", model, x, y, threat, noise)


@dataclass(frozen=True)
class ReferenceAPGDT:
    """The package's Auto-PGD on the targeted DLR loss; the fields are those of our own."""

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
        attack = _package(model, x, threat).apgd_targeted
        _set_steps(attack, self.steps)
        attack.eot_iter, attack.use_largereps = self.eot, larger_radii(threat, self.eot)
        targets = targets_in(threat, self.targets, self.eot)
        attack.n_target_classes = _targets(targets, model, x, least_classes=4)
        return _perturb(attack, x, y, noise)


@dataclass(frozen=True)
class ReferenceFABT:
    """The package's targeted FAB."""

    steps: int = 100
    targets: int = 9
    block: int = BLOCK

    def __post_init__(self) -> None:
        check_at_least_one("fab-t", self)

    @of_any_batch
    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat`.  (B, C, H, W) in [0, 1], (B,) labels -> (B, C, H, W)."""
        attack = _package(model, x, threat).fab
        attack.targeted, attack.n_restarts, attack.n_iter = True, 1, self.steps
        attack.n_target_classes = _targets(self.targets, model, x, least_classes=2)
        return _perturb(attack, x, y, noise)


@dataclass(frozen=True)
class ReferenceSquare:
    """The package's Square."""

    uses_gradients: ClassVar[bool] = False

    queries: int = 5000
    block: int = BLOCK

    def __post_init__(self) -> None:
        check_at_least_one("square", self)

    @of_any_batch
    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat`.  (B, C, H, W) in [0, 1], (B,) labels -> (B, C, H, W)."""
        attack = _package(model, x, threat).square
        attack.n_queries = self.queries
        return _perturb(attack, x, y, noise)


@dataclass(frozen=True)
class AutoAttackReference:
    """AutoAttack by the package itself.

    `standard` is APGD-CE, APGD-T, FAB-T and Square, each on the survivors of the one before; `rand`
    is APGD-CE and APGD-DLR with 20 samples per step, for randomised models.
    """

    version: Literal["standard", "rand"] = "standard"
    block: int = BLOCK

    def __post_init__(self) -> None:
        check_at_least_one("autoattack-reference", self)

    def parts(self) -> tuple[tuple[str, Attack], ...]:
        """Return the parts in order, named."""
        if self.version == "rand":
            return (
                ("apgd-ce", ReferenceAPGDCE(block=self.block, eot=20)),
                ("apgd-dlr", ReferenceAPGDDLR(block=self.block, eot=20)),
            )
        return (
            ("apgd-ce", ReferenceAPGDCE(block=self.block)),
            ("apgd-t", ReferenceAPGDT(block=self.block)),
            ("fab-t", ReferenceFABT(block=self.block)),
            ("square", ReferenceSquare(block=self.block)),
        )


def _package(model: Model, x: Tensor, threat: Threat) -> Package:
    return Package(
        pixels_only(model),
        norm=_NORMS[threat.norm],
        eps=threat.radius,
        version="standard",
        device=x.device,
        seed=0,  # each part gets its own seed before it runs
    )


def _untargeted(
    attack: ReferenceAPGDCE | ReferenceAPGDDLR,
    loss: str,
    model: Model,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    noise: NoiseSource,
) -> Tensor:
    package = _package(model, x, threat).apgd
    package.loss = loss
    _set_steps(package, attack.steps)
    package.n_restarts = restarts_in(threat, attack.restarts, attack.eot)
    package.eot_iter, package.use_largereps = attack.eot, larger_radii(threat, attack.eot)
    return _perturb(package, x, y, noise)


def _perturb(attack: object, x: Tensor, y: Tensor, noise: NoiseSource) -> Tensor:
    attack.seed = noise.block_seed()  # type: ignore[attr-defined]
    perturb: Callable[[Tensor, Tensor], Tensor] = attack.perturb  # type: ignore[attr-defined]
    with _global_generators_kept(x.device), torch.no_grad():
        # In L1 its last projection rounds pixels to just outside the box.
        return perturb(x.clone(), y.clone()).detach().clamp(0, 1)


@contextmanager
def _global_generators_kept(device: torch.device) -> Iterator[None]:
    # The package seeds torch's global generators; their state is restored.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def _set_steps(attack: object, steps: int) -> None:
    """Set the number of iterations with the checkpoints that the package derives from it."""
    attack.n_iter = attack.n_iter_orig = steps  # type: ignore[attr-defined]
    attack.n_iter_2 = max(int(0.22 * steps), 1)  # type: ignore[attr-defined]
    attack.n_iter_min = max(int(0.06 * steps), 1)  # type: ignore[attr-defined]
    attack.size_decr = max(int(0.03 * steps), 1)  # type: ignore[attr-defined]


def _targets(
    wanted: int, model: Model, x: Tensor, least_classes: int, loss: str = "targeted DLR loss"
) -> int:
    with torch.no_grad():
        classes: int = model(x[:1]).shape[1]
    if classes < least_classes:
        raise SatbenchError(
            f"autoattack's {loss} needs at least {least_classes} classes, "
            f"got {classes}; run apgd-ce, fab-t and square instead"
        )
    return min(wanted, classes - 1)
