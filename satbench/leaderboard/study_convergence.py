"""Whether an attack has converged, and whether robustness ends: sentences that follow from means.

The first axis of a sheet that goes over columns is the attack's effort, the last one the radius.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from satbench.leaderboard.markdown import cell, percent
from satbench.leaderboard.study_sheet import Axis, Sheet
from satbench.leaderboard.study_statistics import accuracies

ENOUGH = 0.002
"""A share of all images: what more effort may still find where an attack is called converged."""


def convergence(sheet: Sheet) -> str:
    """Return from what effort on more finds no more, and what the largest radius leaves.

    Nothing where no arm is evaluated at both ends.
    """
    axes = [axis for axis in sheet.axes if axis.over == "columns"]
    if not axes:
        return ""
    sentences = [_effort(sheet, axes[0])]
    if len(axes) > 1:
        sentences.append(_radius(sheet, axes[-1]))
    return "  ".join(filter(None, sentences))


def _effort(sheet: Sheet, axis: Axis) -> str:
    columns = _columns(axis)
    missed = {column: _missed(sheet, axis, column, columns[-1]) for column in columns[:-1]}
    if not all(missed.values()):
        return ""
    worst = {column: max(by_arm.values()) for column, by_arm in missed.items()}
    late = [column for column in columns[:-1] if worst[column] > ENOUGH]
    done = columns[:-1][len(late) :] if late == columns[: len(late)] else ()
    last = f"*{cell(columns[-1])}*"
    if not done:
        return f"No convergence is shown: {_still(missed, late[-1])} of what {last} finds."
    most = max(worst[column] for column in done)
    found = f"find at most {percent(most)} points more" if round(most, 3) > 0 else "find no more"
    said = f"Steps beyond *{cell(done[0])}* {found} in any arm, up to {last}"
    return f"{said}; {_still(missed, late[-1])}." if late else f"{said}."


def _radius(sheet: Sheet, axis: Axis) -> str:
    end = _columns(axis)[-1]
    left = {
        line.name: fmean(found.values())
        for line in axis.lines
        if (found := accuracies(sheet, sheet.row(line.name), end))
    }
    if not left:
        return ""
    arm = max(left, key=left.__getitem__)
    if not left[arm]:
        return f"*{cell(end)}* leaves nothing of any arm."
    return f"*{cell(end)}* leaves up to {percent(left[arm])} % ({cell(arm)})."


def _still(missed: Mapping[str, Mapping[str, float]], column: str) -> str:
    arm = max(missed[column], key=missed[column].__getitem__)
    return (
        f"*{cell(column)}* still misses up to {percent(missed[column][arm])} points ({cell(arm)})"
    )


def _missed(sheet: Sheet, axis: Axis, column: str, last: str) -> dict[str, float]:
    """Return by how much each arm reads higher in a column than in the last, mean over seeds."""
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
