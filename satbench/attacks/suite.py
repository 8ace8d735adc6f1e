"""A suite: an ordered list of attacks, cut into stages that run one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

from satbench.attacks._registry import attack_spec, expand, parse_attack, short_spec
from satbench.attacks.contract import Attack
from satbench.core.errors import SatbenchError
from satbench.core.specs import split_spec


@runtime_checkable
class Composite(Protocol):
    """An attack that is made of others, each run on what the last one left."""

    def parts(self) -> tuple[tuple[str, Attack], ...]:
        """Return the parts in order, named."""
        ...


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
    def block(self) -> int | None:
        """The number of images that the attack must see together."""
        return cast("int | None", getattr(self.attack, "block", None))

    @property
    def uses_gradients(self) -> bool:
        """Whether the attack follows gradients; one that says nothing does."""
        return bool(getattr(self.attack, "uses_gradients", True))

    @property
    def title(self) -> str:
        """A short name for people."""
        short = short_spec(self.spec)
        return f"{short}/{self.part}" if self.part else short


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
            stages.append(Stage(spec, "", split_spec(expand(text))[0], attack))
    return tuple(stages)
