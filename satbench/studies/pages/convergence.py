"""Convergence of an attack: what each effort misses of what the largest one finds.

The effort is the first axis of a study whose positions are columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from satbench.studies.design import Axis
from satbench.studies.effects import accuracies
from satbench.studies.sheet import Sheet

ENOUGH = 0.002
"""The share of all images that more effort may still find if an attack counts as converged."""


@dataclass(frozen=True)
class Missed:
    """The share that the attack of a column misses of what the column `last` finds.

    `missed` is a share of all images, mean over seeds, in the `arm` with the largest value.
    """

    column: str
    last: str
    arm: str
    missed: float
    converged: bool


def missed_by_effort(sheet: Sheet) -> tuple[Missed, ...]:
    """Return what each effort misses, in the order of the axis; empty for other studies.

    A column is `converged` if it and every later one miss at most `ENOUGH` in every arm.
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
    """Return by how much each arm is higher in a column than in the last one, mean over seeds."""
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
