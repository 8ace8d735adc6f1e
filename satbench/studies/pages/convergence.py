"""Whether an attack has converged: what each effort misses of what the largest one finds.

The first axis of a study that goes over columns is the attack's effort.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from satbench.studies.design import Axis
from satbench.studies.effects import accuracies
from satbench.studies.sheet import Sheet

ENOUGH = 0.002
"""A share of all images: what more effort may still find where an attack is called converged."""


@dataclass(frozen=True)
class Missed:
    """What the attack of a column misses of what the column `last` finds.

    `missed` is a share of all images, mean over seeds, in the `arm` where it is most.
    """

    column: str
    last: str
    arm: str
    missed: float
    converged: bool


def missed_by_effort(sheet: Sheet) -> tuple[Missed, ...]:
    """Return what each effort misses, in the order of the axis; empty for any other study.

    A column is `converged` if it and every later one miss no more than `ENOUGH` in any arm.
    """
    if sheet.study.about != "convergence":
        return ()
    axis = next((axis for axis in sheet.study.axes if axis.over == "columns"), None)
    if axis is None:
        return ()
    *columns, last = _columns(axis)
    worst = []
    for column in columns:
        by_arm = _missed(sheet, axis, column, last)
        if not by_arm:
            return ()
        arm = max(by_arm, key=by_arm.__getitem__)
        worst.append((column, arm, by_arm[arm]))
    return tuple(
        Missed(column, last, arm, most, all(m <= ENOUGH for _, _, m in worst[place:]))
        for place, (column, arm, most) in enumerate(worst)
    )


def _missed(sheet: Sheet, axis: Axis, column: str, last: str) -> dict[str, float]:
    """Return how much higher each arm reads in a column than in the last, mean over seeds."""
    by_arm = {}
    for line in axis.lines:
        row = sheet.row(line.name)
        here, there = accuracies(sheet, row, column), accuracies(sheet, row, last)
        if seeds := here.keys() & there.keys():
            by_arm[line.name] = fmean(here[seed] - there[seed] for seed in seeds)
    return by_arm


def _columns(axis: Axis) -> list[str]:
    """Return the columns of an axis in the order of its numbers."""
    places = dict(sorted({place for line in axis.lines for place in line.places}))
    return list(places.values())
