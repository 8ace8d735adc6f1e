"""A stage of a suite: one attack, ready to run on the images that still survive."""

from __future__ import annotations

from dataclasses import dataclass

from satbench.engine.contract import Attack
from satbench.engine.traits import Traits, traits_of


@dataclass(frozen=True)
class Stage:
    """One attack of a suite, ready to run.

    `spec` is the canonical text of the suite's attack; `part` names this stage among the parts of
    a composite attack, else it is empty.  `purpose` selects the noise: it is the attack's name, so
    that PGD-20 and PGD-50 start from the same points.  `block` is the number of images that the
    attack must see together (cut by index), or None if it does not matter.  `short` is a shorter
    text for people that means the same as `spec`.
    """

    spec: str
    part: str
    purpose: str
    attack: Attack
    short: str = ""

    @property
    def traits(self) -> Traits:
        """The traits that the attack declares."""
        return traits_of(self.attack, self.title)

    @property
    def block(self) -> int | None:
        """The number of images that the attack must see together."""
        return self.traits.block

    @property
    def uses_gradients(self) -> bool:
        """Whether the attack uses gradients; the default is yes."""
        return self.traits.uses_gradients

    @property
    def title(self) -> str:
        """A short name for people."""
        short = self.short or self.spec
        return f"{short}/{self.part}" if self.part else short
