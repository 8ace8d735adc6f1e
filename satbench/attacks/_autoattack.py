"""AutoAttack, made of our own parts.

Croce & Hein, 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks" (arXiv:2003.01690).  The package pyautoattack defines the verdict;
`autoattack-reference` runs it.  Part names and block seeds are the same there, so both see the
same noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from satbench.attacks._apgd import APGDCE, APGDDLR, APGDT, BLOCK
from satbench.attacks._fab import FABT
from satbench.attacks._square import Square
from satbench.attacks.contract import Attack
from satbench.core.errors import SatbenchError
from satbench.core.ranges import check_at_least_one


@dataclass(frozen=True)
class AutoAttack:
    """Standard AutoAttack: APGD-CE, APGD-T, FAB-T, Square, each on what the last one left.

    In L1 it is the version of Croce & Hein, 2021 (arXiv:2103.01208): the parts take the numbers
    of restarts and targets, and the schedule of radii, that the package has for the norm.
    """

    version: Literal["standard"] = "standard"
    block: int = BLOCK

    def __post_init__(self) -> None:
        check_at_least_one("autoattack", self)

    def parts(self) -> tuple[tuple[str, Attack], ...]:
        """Return the parts in order, named."""
        return (
            ("apgd-ce", APGDCE(block=self.block)),
            ("apgd-t", APGDT(block=self.block)),
            ("fab-t", FABT(block=self.block)),
            ("square", Square(block=self.block)),
        )


@dataclass(frozen=True)
class AutoAttackRand:
    """AutoAttack for randomised models: APGD-CE and APGD-DLR on gradients averaged over `samples`.

    The package's version `rand` takes 20 samples a step and one restart.
    """

    samples: int = 20
    block: int = BLOCK

    def __post_init__(self) -> None:
        check_at_least_one("autoattack-rand", self)
        if self.samples == 1:
            raise SatbenchError(
                "autoattack-rand: expected samples of 2 or more, got 1; "
                "for a model without randomness use autoattack"
            )

    def parts(self) -> tuple[tuple[str, Attack], ...]:
        """Return the parts in order, named."""
        return (
            ("apgd-ce", APGDCE(block=self.block, eot=self.samples)),
            ("apgd-dlr", APGDDLR(block=self.block, eot=self.samples)),
        )
