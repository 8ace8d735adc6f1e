"""The style of the arms in figures of a study, and the labels of axes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from satbench.figures.styles import ACTIVATION_COLOURS, MARKERS, Look, looks_of
from satbench.studies.design import Axis
from satbench.studies.sheet import Sheet

_GREY = "#444444"
_NAMED = 12
"""Up to this many arms have their names next to their points."""


def unit_of(measure: str) -> str:
    """Return the range and the better direction of a measure, from its description."""
    ranges = re.findall(r"in \[[^\]]*\]", measure)
    better = re.findall(r"(?:higher|lower) is better", measure)
    unit = "per unit of L2" if "per unit of L2" in measure else ""
    return ", ".join([*([unit] if unit else ranges[:1]), *better[:1]])


def looks_in(sheet: Sheet) -> list[Look]:
    """Return the style of each row's arm."""
    settings_of = {arm.name: dict(arm.settings) for arm in sheet.study.arms}
    trained = {arm.name for arm in sheet.study.arms if not arm.model}
    things = []
    for row in sheet.rows:
        settings = settings_of.get(row.name, {})
        # A model that the study did not train has only its name, such as "ReLU, not robust".
        activation = str(settings.pop("activation", row.name.partition(",")[0]))
        rest = " ".join(f"{k}={v}" for k, v in sorted(settings.items()))
        things.append((activation, rest if row.name in trained else row.name))
    return looks_of(things)


def looks_of_lines(sheet: Sheet, axis: Axis) -> list[Look]:
    """Return the style of the lines of an axis: that of their arms, if these agree."""
    looks = dict(zip((row.name for row in sheet.rows), looks_in(sheet), strict=True))
    things = []
    for line in axis.lines:
        arms = [place for _, place in line.places] if axis.over == "arms" else [line.name]
        colours = {looks[arm].activation for arm in arms if arm in looks}
        things.append((colours.pop() if len(colours) == 1 else "", line.name))
    return looks_of(things)


def keys_of(sheet: Sheet, looks: Sequence[Look]) -> list[tuple[str, dict[str, Any]]]:
    """Return the legend of colours and markers; empty if the arms have their names in it."""
    if len(looks) <= _NAMED:
        return []
    activations = dict.fromkeys(look.activation for look in looks if look.activation)
    kinds = dict.fromkeys(look.kind for look in looks)
    if not activations or len(activations) * len(kinds) < len(looks) or len(kinds) < 2:
        return []
    colours = [
        (_shown(sheet, looks, name), {"color": ACTIVATION_COLOURS[name], "marker": "o"})
        for name in activations
    ]
    markers = []
    for kind in kinds:
        row = next(r for r, look in zip(sheet.rows, looks, strict=True) if look.kind == kind)
        shown = row.name.partition(", ")[2] or row.name
        markers.append((shown, {"color": _GREY, "marker": MARKERS[kind % len(MARKERS)]}))
    return [*colours, *markers]


def _shown(sheet: Sheet, looks: Sequence[Look], activation: str) -> str:
    """Return an activation's name as the arms write it."""
    pairs = zip(sheet.rows, looks, strict=True)
    return next(row.name.partition(", ")[0] for row, look in pairs if look.activation == activation)
