"""The parts of a suite file as attacks, and the choice of the images that each attacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

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
    CountedSurrogates,
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

OTHERS = "others"
"""The part of this name within a gated part attacks the images outside the gate."""


def parts_of(
    name: str, suite: SuiteFile, values: Mapping[str, object]
) -> tuple[tuple[str, Attack], ...]:
    """Return the parts of a suite in order, named, for these values of its parameters.

    A part that consists of others, such as `transfer`, gives one part for each, `NAME/THEIRS`.
    After the last gated part come the parts for the images outside the gate, `NAME/others`.  Raises
    SatbenchError, naming the part, for an attack that is unknown or given wrong values.
    """
    made: list[tuple[str, Attack]] = []
    others: list[tuple[str, Attack]] = []
    closes, end = "", 0
    reach = max((part.weakest for part in suite.parts if part.escalate), default=1.0)
    for part in suite.parts:
        if part.is_left_out(values):
            continue
        for title, attack in _inner(name, part, values):
            closes = closes or (title if part.escalate else "")
            choice = _choice_of(part, closes, reach)
            made.append((title, _chosen(attack, choice, part.name)))
            if choice.gate:
                outside = replace(choice, gate=replace(choice.gate, outside=True))
                others.append((f"{title}/{OTHERS}", _chosen(attack, outside, part.name)))
                end = len(made)
    return (*made[:end], *others, *made[end:])


def noise_name(part: str, attack: Attack) -> str:
    """Return the key of a part's noise, so that an image draws the same on both sides of a gate."""
    is_outside = isinstance(attack, Chosen) and attack.choice.gate and attack.choice.gate.outside
    return part.removesuffix(f"/{OTHERS}") if is_outside else part


def is_for_doubt(attack: object) -> bool:
    """Return whether a record is flagged if a part attacked images."""
    return isinstance(attack, Chosen) and attack.choice.is_for_doubt


@dataclass(frozen=True)
class Gate:
    """A gate that closed when the part `closes` began: see `SuitePart`.

    `reach` is the greatest share `weakest` of its parts.  A part with `outside` attacks the images
    outside the gate, if the gate opened.
    """

    closes: str
    escalate: float
    late: float = 0.0
    reach: float = 1.0
    outside: bool = False

    def opens(self, places: NDArray[np.float64], survivors: NDArray[np.bool_]) -> bool:
        """Say whether the gate opens: by places in its ranking, (N,), and who survives now, (N,).

        It opens if more than the share `late` of the ranking fell beyond its share `escalate`, or
        if an image beyond `reach` fell.  Gated parts attack only a sample there, so that image
        stands for many.
        """
        ranked = np.isfinite(places)
        fell = ranked & ~survivors
        beyond = (fell & (places >= _count(places, self.escalate))).sum()
        is_far = bool((fell & (places >= _count(places, self.reach))).any())
        return is_far or bool(beyond > self.late * ranked.sum())


@dataclass(frozen=True)
class Selection:
    """Which survivors a part attacks: see `satbench.attacks.suites.suite_file.SuitePart`."""

    weakest: float = 0.0
    sample: float = 0.0
    after: tuple[str, ...] = ()
    above: float = 0.0
    gate: Gate | None = None
    flag: bool = False

    @property
    def share(self) -> float:
        """The share of the survivors that the part attacks if it runs."""
        if self.gate and self.gate.outside:
            return 1 - min(1.0, self.weakest + self.sample)
        return min(1.0, self.weakest + self.sample) or 1.0

    @property
    def is_uncertain(self) -> bool:
        """Whether earlier parts decide if the part runs."""
        return bool(self.after) or bool(self.gate and self.gate.outside)

    @property
    def is_for_doubt(self) -> bool:
        """Whether a record is flagged if the part ran."""
        return self.flag and self.is_uncertain

    def within(self, prefix: str) -> Selection:
        """Return the same choice for a part of a suite that is itself a part of another."""
        gate = self.gate and replace(self.gate, closes=prefix + self.gate.closes)
        return replace(self, after=tuple(prefix + name for name in self.after), gate=gate)

    def selects(self, history: History) -> NDArray[np.bool_]:
        """Return which images to attack, (N,) bool."""
        nobody = np.zeros(len(history.survivors), bool)
        if self.after and not self._was_called_for(history):
            return nobody
        if not (self.weakest or self.sample):
            return history.survivors
        drawn = history.survivors & (history.share < self.sample)
        if self.gate is None:
            return drawn | weakest(history, self.weakest)
        places = history.ranking(self.gate.closes)
        inside = drawn | (history.survivors & (places < _count(places, self.weakest)))
        if not self.gate.outside:
            return inside
        is_open = self.gate.opens(places, history.survivors)
        return history.survivors & ~inside if is_open else nobody

    def _was_called_for(self, history: History) -> bool:
        """Say whether one of the parts of `after` broke enough images."""
        return any(
            broken > self.above * history.attacked[part]
            for part, broken in history.broken.items()
            if any(fnmatchcase(part, f"{name}*") for name in self.after)
        )


@dataclass(frozen=True)
class Chosen:
    """An attack on some of the survivors."""

    attack: Attack
    choice: Selection

    @property
    def block(self) -> int | None:
        """The number of images that share a stream of noise."""
        return traits_of(self.attack).block

    @property
    def uses_gradients(self) -> bool:
        """Whether the attack follows gradients."""
        return traits_of(self.attack).uses_gradients

    @property
    def surrogates(self) -> tuple[str, ...]:
        """The names of the surrogates of the attack."""
        return traits_of(self.attack).surrogates

    @of_any_batch
    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat`.  (B, C, H, W) in [0, 1], (B,) labels -> (B, C, H, W).

        If the model has fewer classes than the attack needs, `x` is returned unchanged.
        """
        if self._lacks_classes(model, x):
            return x
        return self.attack(model, x, y, threat, noise)

    def selects(self, history: History) -> NDArray[np.bool_]:
        """Return which images to attack, (N,) bool."""
        return self.choice.selects(history)

    def _lacks_classes(self, model: Model, x: Tensor) -> bool:
        least = traits_of(self.attack).least_classes
        if least <= traits_of(self).least_classes:
            return False
        with torch.no_grad():
            return model(x[:1]).shape[1] < least


@dataclass(frozen=True)
class ChosenInformed(Chosen, Informed):
    """An informed attack on some of the survivors."""

    @of_any_batch
    def __call__(
        self, model: Model, x: Tensor, y: Tensor, threat: Threat, noise: NoiseSource
    ) -> Tensor:
        """Perturb `x` within `threat` without hints; shapes as for `Attack`."""
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
        """Perturb `x` within `threat` with `hints`; shapes as for `Attack`."""
        assert isinstance(self.attack, Informed)  # noqa: S101 (made so by `parts_of`)
        if self._lacks_classes(model, x):
            return Found(hints.points, hints.margins)
        return self.attack.follow(model, x, y, threat, noise, hints)


@dataclass(frozen=True)
class ChosenPrepared(Chosen):
    """A prepared attack, such as a transfer, on some of the survivors."""

    def prepare(
        self, target: Model, surrogates: CountedSurrogates, threat: Threat, seed: int
    ) -> Attack:
        """Return the attack that is ready to run on them; arguments as for `Prepared`."""
        assert isinstance(self.attack, Prepared)  # noqa: S101 (made so by `parts_of`)
        ready = self.attack.prepare(target, surrogates, threat, seed)
        return _on_some(ready, self.choice)


def _inner(name: str, part: SuitePart, values: Mapping[str, object]) -> list[tuple[str, Attack]]:
    """Return the attacks of a part of the suite `name`, named; usually one."""
    try:
        attack = parse_attack(part.spec(values))
        if not isinstance(attack, Composite):
            return [(part.name, attack)]
        inner = [(f"{part.name}/{title}", _nested(one, part)) for title, one in attack.parts()]
    except SatbenchError as error:
        raise SatbenchError(f"{name}, part {part.name}: {error}") from None
    return inner


def _nested(attack: Attack, part: SuitePart) -> Attack:
    """Return a part of a suite as a part of the suite that has `part`."""
    if isinstance(attack, Chosen):
        return replace(attack, choice=attack.choice.within(f"{part.name}/"))
    if isinstance(attack, Selective):
        raise SatbenchError(
            "expected an attack that can be a part of a suite, got one that chooses among the "
            "images that it begins with: give it next to the suite"
        )
    return attack


def _choice_of(part: SuitePart, closes: str, reach: float) -> Selection:
    gate = Gate(closes, part.escalate, part.late, reach) if part.escalate else None
    return Selection(part.weakest, part.sample, tuple(part.after), part.above, gate, part.flag)


def _chosen(attack: Attack, choice: Selection, part: str) -> Attack:
    if choice == Selection():
        return attack
    if isinstance(attack, Selective):
        raise SatbenchError(
            f"{part}: expected an attack that attacks every image it is given, got one that "
            "chooses images itself: weakest, sample and after are not for it"
        )
    return _on_some(attack, choice)


def _on_some(attack: Attack, choice: Selection) -> Chosen:
    """Return an attack on the images of a choice; it is informed or prepared if `attack` is."""
    if isinstance(attack, Prepared):
        return ChosenPrepared(attack, choice)
    return (ChosenInformed if isinstance(attack, Informed) else Chosen)(attack, choice)


def _count(places: NDArray[np.float64], share: float) -> int:
    """Return the number of images in a share of a ranking, rounded up."""
    return int(np.ceil(share * np.isfinite(places).sum()))


def weakest(history: History, share: float) -> NDArray[np.bool_]:
    """Return the share of the survivors, rounded up, with the least margins. -> (N,) bool."""
    count = int(np.ceil(share * history.survivors.sum()))
    return weakest_of(history.survivors, history.margins, count)


def weakest_of(
    among: NDArray[np.bool_], values: NDArray[np.floating], count: int
) -> NDArray[np.bool_]:
    """Return the `count` images with least values, (N,), among some, (N,) bool. -> (N,) bool."""
    rows = np.flatnonzero(among)
    chosen = np.zeros(len(among), bool)
    chosen[rows[np.argsort(values[rows], kind="stable")[:count]]] = True
    return chosen
