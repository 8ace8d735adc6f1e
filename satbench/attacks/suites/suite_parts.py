"""The parts of a suite file as attacks, and the choice of the images that each takes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from satbench.attacks.registry import parse_attack
from satbench.attacks.suites.suite_file import SuiteFile, SuitePart
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.engine.contract import (
    Attack,
    Found,
    Hints,
    History,
    Informed,
    Model,
    NoiseSource,
    Prepared,
    Selective,
    of_any_batch,
)
from satbench.engine.traits import Composite, traits_of


def parts_of(
    name: str, suite: SuiteFile, values: Mapping[str, object]
) -> tuple[tuple[str, Attack], ...]:
    """Return the parts of a suite in order, named, for these values of its parameters.

    A part that is made of others, such as `transfer`, gives one part each, `NAME/THEIRS`.  Raises
    SatbenchError, naming the part, for an attack that is unknown or given wrong values.
    """
    made: list[tuple[str, Attack]] = []
    for part in suite.parts:
        if part.is_left_out(values):
            continue
        try:
            attack = parse_attack(part.spec(values))
            inner = attack.parts() if isinstance(attack, Composite) else (("", attack),)
        except SatbenchError as error:
            raise SatbenchError(f"{name}, part {part.name}: {error}") from None
        made += [
            (f"{part.name}/{sub}" if sub else part.name, _chosen(one, part)) for sub, one in inner
        ]
    return tuple(made)


def _chosen(attack: Attack, part: SuitePart) -> Attack:
    if not (part.weakest or part.sample or part.after):
        return attack
    if isinstance(attack, Prepared | Selective):
        raise SatbenchError(
            f"{part.name}: expected an attack that takes on what it is given; weakest, sample and "
            "after are not for one that chooses images or is prepared itself"
        )
    choice = (attack, part.weakest, part.sample, tuple(part.after))
    return ChosenInformed(*choice) if isinstance(attack, Informed) else Chosen(*choice)


@dataclass(frozen=True)
class Chosen:
    """An attack on some of the survivors: see `satbench.attacks.suites.suite_file.SuitePart`."""

    attack: Attack
    weakest: float
    sample: float
    after: tuple[str, ...]

    @property
    def block(self) -> int | None:
        """The number of images that draw their noise together."""
        return traits_of(self.attack).block

    @property
    def uses_gradients(self) -> bool:
        """Whether the attack follows gradients."""
        return traits_of(self.attack).uses_gradients

    @of_any_batch
    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat`.  (B, C, H, W) in [0, 1], (B,) labels -> (B, C, H, W).

        Where the model has fewer classes than the attack needs, `x` comes back as it is.
        """
        least = traits_of(self.attack).least_classes
        if least > traits_of(self).least_classes:
            with torch.no_grad():
                classes = model(x[:1]).shape[1]
            if classes < least:
                return x
        return self.attack(model, x, y, threat, noise)

    def selects(self, history: History) -> NDArray[np.bool_]:
        """Return which images to take on, (N,) bool."""
        if self.after and not any(
            broken and part.startswith(self.after) for part, broken in history.broken.items()
        ):
            return np.zeros(len(history.survivors), bool)
        if not (self.weakest or self.sample):
            return history.survivors
        drawn = history.survivors & (history.share < self.sample)
        return drawn | weakest(history, self.weakest)


@dataclass(frozen=True)
class ChosenInformed(Chosen, Informed):
    """An informed attack on some of the survivors."""

    @of_any_batch
    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat`, knowing nothing; shapes as for `Attack`."""
        return self.follow(model, x, y, threat, noise, Hints.none(x)).x_adv

    def follow(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        noise: NoiseSource,
        hints: Hints,
    ) -> Found:
        """Perturb `x` within `threat`, knowing `hints`; shapes as for `Attack`."""
        assert isinstance(self.attack, Informed)  # noqa: S101 (made so by `parts_of`)
        return self.attack.follow(model, x, y, threat, noise, hints)


def weakest(history: History, share: float) -> NDArray[np.bool_]:
    """Return that share of the survivors, rounded up, whose margins are least.  -> (N,) bool."""
    count = int(np.ceil(share * history.survivors.sum()))
    return weakest_of(history.survivors, history.margins, count)


def weakest_of(
    among: NDArray[np.bool_], values: NDArray[np.floating], count: int
) -> NDArray[np.bool_]:
    """Return the `count` images of least value, (N,), among some, (N,) bool.  -> (N,) bool."""
    rows = np.flatnonzero(among)
    chosen = np.zeros(len(among), bool)
    chosen[rows[np.argsort(values[rows], kind="stable")[:count]]] = True
    return chosen
