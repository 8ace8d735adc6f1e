"""The cost of each stage of a suite on a surviving image, for the progress bar."""

from __future__ import annotations

from collections.abc import Sequence

from satbench.attacks.expenses import expenses_of
from satbench.attacks.score.square_from_best import SquareFlagged
from satbench.attacks.suites.audit import AuditPart
from satbench.attacks.suites.suite_parts import Chosen
from satbench.core.progress.course import StageCost
from satbench.engine.stage import Stage

_CLEAN = StageCost(1)
_LOOK = 5  # 3 forwards and 2 backwards an image (`satbench.diagnosis.signs`)
_MAYBE = 0.5  # weight of a stage that runs only if an earlier one broke an image


def costs_of(suite: Sequence[Stage], classes: int) -> tuple[StageCost, ...]:
    """Return the cost of the clean pass and of each stage, in passes an image; 0 if unknown.

    Passes of surrogates count like those of the model.

    >>> from satbench.attacks.suites.suite import parse_suite
    >>> costs_of(parse_suite(["pgd-50"]), classes=10)
    (StageCost(passes=1, share=1.0), StageCost(passes=100, share=1.0))
    """
    return (_CLEAN, *(_cost(stage.attack, classes) for stage in suite))


def _cost(attack: object, classes: int) -> StageCost:
    match attack:
        case Chosen(attack=inner, choice=choice):
            likely = _MAYBE if choice.is_uncertain else 1.0
            return StageCost(_cost(inner, classes).passes, choice.share * likely)
        case AuditPart(attack=inner):
            return _cost(inner, classes)
        case SquareFlagged():  # it examines all images, and few are flagged
            return StageCost(_LOOK)
    spent = expenses_of(attack, classes)
    if spent is None:
        return StageCost(0)
    return StageCost(spent.forwards + spent.backwards + 2 * spent.surrogates)
