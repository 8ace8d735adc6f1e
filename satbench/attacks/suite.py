"""A suite: an ordered list of attacks, cut into stages that run one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from satbench.attacks._registry import attack_spec, parse_attack, short_spec
from satbench.attacks.contract import Attack
from satbench.attacks.traits import Composite, Traits, check_fit, traits_of
from satbench.core.errors import SatbenchError
from satbench.core.specs import split_spec
from satbench.core.threat import Threat


@dataclass(frozen=True)
class Stage:
    """One attack of a suite, ready to run.

    `spec` is the canonical text of the suite's attack; `part` names this stage among the parts of
    a composite attack, else it is empty.  `purpose` keys the noise: the plain attack's name, so
    that PGD-20 and PGD-50 start alike.  `block` is the number of images that the attack must see
    together (cut by index), or None where it does not matter.
    """

    spec: str
    part: str
    purpose: str
    attack: Attack

    @property
    def traits(self) -> Traits:
        """What the attack declares about itself."""
        return traits_of(self.attack, self.title)

    @property
    def block(self) -> int | None:
        """The number of images that the attack must see together."""
        return self.traits.block

    @property
    def uses_gradients(self) -> bool:
        """Whether the attack follows gradients; one that says nothing does."""
        return self.traits.uses_gradients

    @property
    def title(self) -> str:
        """A short name for people."""
        short = short_spec(self.spec)
        return f"{short}/{self.part}" if self.part else short


def check_suite(suite: Sequence[Stage], threat: Threat) -> None:
    """Raise SatbenchError where an attack of the suite, or a part of one, does not suit `threat`.

    Reasons are a norm that it is not made for, and a step that leaves the ball from anywhere.
    """
    for spec in dict.fromkeys(stage.spec for stage in suite):
        check_fit(spec, parse_attack(spec), threat)
    for stage in suite:
        check_fit(stage.title, stage.attack, threat)


def parse_suite(attacks: Sequence[str]) -> tuple[Stage, ...]:
    """Read the attacks of a suite, in order.  Raises SatbenchError for an unknown or double one."""
    if not attacks:
        raise SatbenchError("expected at least one attack, such as --attack pgd-50, got none")
    stages: list[Stage] = []
    for text in attacks:
        spec = attack_spec(text)
        if any(stage.spec == spec for stage in stages):
            raise SatbenchError(f"the attack {spec} is given twice")
        attack = parse_attack(text)
        if isinstance(attack, Composite):
            stages += [Stage(spec, part, part, inner) for part, inner in attack.parts()]
        else:
            stages.append(Stage(spec, "", split_spec(spec)[0], attack))
    return tuple(stages)
