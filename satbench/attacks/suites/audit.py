"""An audit: full AutoAttack on some survivors, for a bound on how many more it would break.

The survivors of least margin are audited first, then a random sample of the others.  What the audit
breaks counts as broken.  The broken part of the random sample bounds how many of the other
survivors AutoAttack would break (`satbench.records.audit`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from satbench.attacks.registry import parse_attack
from satbench.attacks.suites.suite_parts import weakest_of
from satbench.core.errors import SatbenchError
from satbench.core.specs import later
from satbench.core.threat import Threat
from satbench.engine.contract import Attack, History, Model, NoiseSource, of_any_batch
from satbench.engine.traits import Composite, traits_of

WEAKEST, SAMPLE = "weakest", "sample"


@dataclass(frozen=True)
class Audit:
    """Standard AutoAttack on the `weakest` survivors by margin and on a `sample` of the others.

    `draw` numbers the random draw.  Audits with the same draw prefer the same images for every
    model; audits that are counted together need different draws.
    """

    sample: int = 100
    weakest: int = 50
    draw: int = later(0)

    def __post_init__(self) -> None:
        if self.sample < 1 or self.weakest < 0 or self.draw < 0:
            raise SatbenchError(
                "audit: expected a sample of 1 or more, 0 weakest or more and a draw of 0 or more, "
                f"got {self.sample}, {self.weakest} and {self.draw}"
            )

    def parts(self) -> tuple[tuple[str, Attack], ...]:
        """Return the parts in order, named: AutoAttack's on the weakest, then on the sample."""
        chosen = {WEAKEST: self._weakest, SAMPLE: self._sample}
        return tuple(
            (f"{stratum}/{name}", AuditPart(part, rule))
            for stratum, rule in chosen.items()
            for name, part in _autoattack()
        )

    def _weakest(self, history: History) -> NDArray[np.bool_]:
        return weakest_of(history.entered, history.margins, self.weakest)

    def _sample(self, history: History) -> NDArray[np.bool_]:
        others = history.entered & ~self._weakest(history)
        return weakest_of(others, history.share, self.sample)


def _autoattack() -> tuple[tuple[str, Attack], ...]:
    suite = parse_attack("autoattack")
    assert isinstance(suite, Composite)  # noqa: S101 (attacks/autoattack.toml)
    return suite.parts()


@dataclass(frozen=True)
class AuditPart:
    """One part of AutoAttack on the images that `chosen` returns when the audit begins."""

    attack: Attack
    chosen: Callable[[History], NDArray[np.bool_]]

    @property
    def block(self) -> int | None:
        """The number of images that share a stream of noise."""
        return traits_of(self.attack).block

    @property
    def uses_gradients(self) -> bool:
        """Whether the part follows gradients."""
        return traits_of(self.attack).uses_gradients

    @property
    def least_classes(self) -> int:
        """The number of classes that the part needs."""
        return traits_of(self.attack).least_classes

    @of_any_batch
    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat`.  (B, C, H, W) in [0, 1], (B,) labels -> (B, C, H, W)."""
        return self.attack(model, x, y, threat, noise)

    def selects(self, history: History) -> NDArray[np.bool_]:
        """Return which images to attack, (N,) bool."""
        return self.chosen(history)
