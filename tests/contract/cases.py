"""Every attack with cheap settings under every norm: the cases of the contract tests.

A new attack of the registry is picked up automatically.  Parts without a name, and attacks that a
run prepares first, are listed here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from satbench.attacks import ATTACKS, parse_attack
from satbench.attacks.gradient.apgd import APGDT
from satbench.attacks.gradient.trades import TradesAttack
from satbench.attacks.packages import pyautoattack_attacks as reference
from satbench.attacks.score.square_from_best import SquareFromBest
from satbench.attacks.suites.audit import AuditPart
from satbench.attacks.suites.suite_parts import Chosen, ChosenInformed, Selection
from satbench.attacks.transfer.distilled import Distilled
from satbench.attacks.transfer.gradients import Method
from satbench.attacks.transfer.surrogates import FromSurrogates, Transfer
from satbench.core.noise import Noise
from satbench.core.threat import Threat
from satbench.engine.contract import Attack, Prepared
from satbench.engine.traits import Composite, traits_of

# Spelled out where the defaults would take long; an attack without a line runs with its defaults.
CHEAP = {
    "pgd": "pgd(steps=3,restarts=2)",
    "apgd-ce": "apgd-ce(steps=4,restarts=2)",
    "apgd-dlr": "apgd-dlr(steps=4,eot=2)",
    "apgd-t": "apgd-t(steps=3,targets=2)",
    "fab-t": "fab-t(steps=2,targets=2)",
    "square": "square(queries=20)",
    "square-from-best": "square-from-best(queries=20)",
    "square-flagged": "square-flagged(queries=20)",
    "cosine-pgd": "cosine-pgd(steps=5)",
    "malt": "malt(steps=4,targets=2)",
    "malt-apgd": "malt-apgd(steps=3,targets=2)",
    "pma": "pma(steps=4)",
    "a3": "a3(rounds=3)",
    "foolbox.fmn": "foolbox.fmn(steps=20)",
    "foolbox.ddn": "foolbox.ddn(steps=5)",
    "foolbox.deepfool": "foolbox.deepfool(steps=10,candidates=3)",
    "foolbox.cw": "foolbox.cw(steps=5,binary_search_steps=2,stepsize=0.1)",
    "foolbox.boundary": "foolbox.boundary(steps=60,spherical_step=0.2)",
    "foolbox.hopskipjump": "foolbox.hopskipjump(steps=1,initial_gradient_eval_steps=4)",
}
SPECS = [CHEAP.get(name, name) for name in ATTACKS.names()]

# Large, so that attacks which hand failures back as they came have successes to show.
THREATS = ("linf:0.3", "l2:3", "l1:12")

MakeNet = Callable[..., nn.Module]


def has_surrogates(spec: str) -> bool:
    """Whether an attack, or a part of it, needs surrogates."""
    attack = parse_attack(spec)
    parts = [part for _, part in attack.parts()] if isinstance(attack, Composite) else [attack]
    return any(isinstance(part, Prepared) for part in parts)


ALONE = [spec for spec in SPECS if not has_surrogates(spec)]
SIMPLE = [spec for spec in ALONE if not isinstance(parse_attack(spec), Composite)]

_TRANSFER = Transfer(steps=3, kernel=3, step=Transfer().step)
_FAST = ("linf", "l2")  # the suite's own parts are made for these
PARTS: dict[str, tuple[Attack, Sequence[str]]] = {
    "reference/apgd-ce": (reference.ReferenceAPGDCE(steps=4), ("linf", "l2", "l1")),
    "reference/apgd-t": (reference.ReferenceAPGDT(steps=3, targets=2), ("linf", "l2", "l1")),
    "reference/fab-t": (reference.ReferenceFABT(steps=2, targets=2), ("linf", "l2", "l1")),
    "reference/square": (reference.ReferenceSquare(queries=20), ("linf", "l2", "l1")),
    "square-rescaled": (parse_attack("square(queries=20,schedule=rescaled)"), ("linf", "l2", "l1")),
    "chosen": (Chosen(APGDT(steps=3, targets=2), Selection(1.0)), _FAST),
    "chosen-informed": (ChosenInformed(SquareFromBest(queries=20), Selection(1.0, 1.0)), _FAST),
    "audited": (AuditPart(parse_attack("pgd-3"), lambda history: history.survivors), ("linf",)),
    "transfer": (
        FromSurrogates(("a",), replace(_TRANSFER, method=Method(("mi", "di", "ti")))),
        ("linf", "l2", "l1"),
    ),
    "transfer-vmi": (
        FromSurrogates(("a",), replace(_TRANSFER, method=Method(("si", "vmi")), neighbours=2)),
        ("linf",),
    ),
    "distilled": (Distilled(20, 10, 1, training=2, width=2, steps=3), ("linf", "l2", "l1")),
    "trades": (TradesAttack(steps=3), ("linf", "l2", "l1")),
}


@dataclass(frozen=True)
class Case:
    """An attack under a threat model."""

    name: str
    threat: Threat

    def __str__(self) -> str:
        return f"{self.name}-{self.threat}"

    def attack(self, net: nn.Module, shape: tuple[int, ...] = (1, 8, 8)) -> Attack:
        """Return the attack, prepared with `net` as the source and images of `shape`."""
        attack = PARTS[self.name][0] if self.name in PARTS else parse_attack(self.name)
        if not isinstance(attack, Prepared):
            return attack
        key = (self, shape)
        if key not in _READY:  # training a student takes longer than all else
            _READY[key] = attack.prepare(net, _Lent(net, shape), self.threat, seed=0)
        return _READY[key]

    def run(self, net: nn.Module, x: Tensor, y: Tensor, seed: int = 0) -> Tensor:
        """Perturb `x` with the noise of its rows."""
        return self.attack(net, tuple(x.shape[1:]))(net, x, y, self.threat, noise_of(len(x), seed))


_READY: dict[tuple[Case, tuple[int, ...]], Attack] = {}


@dataclass(frozen=True)
class _Lent:
    """Gives one model, and noise as images."""

    net: nn.Module
    shape: tuple[int, ...]

    def surrogate(self, name: str) -> nn.Module:
        return self.net

    def pool(self, n: int) -> NDArray[np.float32]:
        return np.random.default_rng(0).random((min(n, 30), *self.shape), np.float32)

    def spent(self, forwards: int, backwards: int) -> None:
        pass


def _cases() -> list[Case]:
    threats = [Threat.parse(text) for text in THREATS]
    simple = [
        Case(spec, threat)
        for spec in SIMPLE
        for threat in threats
        if threat.norm in traits_of(parse_attack(spec)).norms
    ]
    parts = [
        Case(name, threat)
        for name, (_, norms) in PARTS.items()
        for threat in threats
        if threat.norm in norms
    ]
    return simple + parts


CASES = _cases()
# The others run the same code as a registered attack, but for what a single norm shows.
CASES_OF_THE_DAY = [c for c in CASES if c.name not in PARTS or c.threat.norm == "linf"]
on_every_attack_under_every_threat = pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=str(case), marks=[pytest.mark.slow][case in CASES_OF_THE_DAY :])
        for case in CASES
    ],
)


def a_batch(net: nn.Module, shape: tuple[int, ...], n: int = 5) -> tuple[Tensor, Tensor]:
    """Return images, some pixels of which are at 0 and 1, that the net gets right."""
    x = (torch.rand(n, *shape, generator=torch.Generator().manual_seed(1)) * 1.4 - 0.2).clamp(0, 1)
    with torch.no_grad():
        return x, net(x).argmax(1)


def noise_of(n: int = 5, seed: int = 0) -> Noise:
    """Return the noise of the first `n` images."""
    return Noise(seed, "contract", tuple(range(n)))
