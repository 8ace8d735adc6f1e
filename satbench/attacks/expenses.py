"""The numbers of passes that an attack makes on a surviving image, to check those of a record.

A stage cannot make fewer, and rarely makes more.  Unknown attacks, such as those of plug-ins, have
no bounds.
"""

from __future__ import annotations

from dataclasses import dataclass

from satbench.attacks.gradient.apgd import APGDCE, APGDDLR, APGDT
from satbench.attacks.gradient.cosine import CosinePGD
from satbench.attacks.gradient.fab import FABT
from satbench.attacks.gradient.malt import MALT, PublishedMALT
from satbench.attacks.gradient.pgd import PGD
from satbench.attacks.gradient.pma import PMA
from satbench.attacks.packages import pyautoattack_attacks as package
from satbench.attacks.score.square import Square
from satbench.attacks.score.square_from_best import SquareFromBest
from satbench.attacks.suites.suite_parts import Chosen
from satbench.attacks.transfer.surrogates import FromSurrogates


@dataclass(frozen=True)
class Expenses:
    """The passes on one surviving image: forwards and backwards of the model.

    `surrogates` are the backwards of surrogates.
    """

    forwards: int = 0
    backwards: int = 0
    surrogates: int = 0


def expenses_of(attack: object, classes: int) -> Expenses | None:
    """Return what an attack spends on an image of a model with so many classes; None if unknown.

    >>> from satbench.attacks import parse_attack
    >>> expenses_of(parse_attack("pgd-50"), 10)
    Expenses(forwards=50, backwards=50, surrogates=0)
    """
    others = max(1, classes - 1)
    match attack:
        case Chosen(attack=inner):
            return expenses_of(inner, classes)
        case PGD(steps=steps, restarts=restarts, eot=eot):
            return Expenses(steps * restarts * eot, steps * restarts * eot)
        case APGDCE() | APGDDLR() | package.ReferenceAPGDCE() | package.ReferenceAPGDDLR():
            total = attack.steps * attack.restarts * attack.eot
            return Expenses(total, total)
        case APGDT() | package.ReferenceAPGDT():
            total = attack.steps * min(attack.targets, others) * attack.eot
            return Expenses(total, total)
        case FABT() | package.ReferenceFABT():
            total = attack.steps * min(attack.targets, others)
            return Expenses(total, total)
        case CosinePGD(steps=steps):
            return Expenses(steps, steps)
        case PMA(steps=steps, restarts=restarts):
            return Expenses(steps * restarts, steps * restarts)
        case MALT(steps=steps, targets=targets) | PublishedMALT(steps=steps, targets=targets):
            total = steps * min(targets, others)
            return Expenses(total, total)
        case Square() | package.ReferenceSquare() | SquareFromBest():
            return Expenses(attack.queries, 0)
        case FromSurrogates(surrogates=names, settings=settings):
            return Expenses(0, 0, settings.steps * len(names))
    return None


def reaches_the_surface(attack: object) -> bool:
    """Say whether an attack's searches start on or close to the surface of the Linf ball.

    If so, the largest of several of its perturbations changes a pixel by the whole eps.
    """
    match attack:
        case Chosen(attack=inner):
            return reaches_the_surface(inner)
        case PGD(start=start):
            return start == "uniform"
        case APGDCE() | APGDDLR() | APGDT() | PublishedMALT() | PMA():
            return True
        case Square() | SquareFromBest():
            return True
        case (
            package.ReferenceAPGDCE()
            | package.ReferenceAPGDDLR()
            | package.ReferenceAPGDT()
            | package.ReferenceSquare()
        ):
            return True
    return False
