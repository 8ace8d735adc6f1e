"""What a curve says, as a table for people and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log10
from pathlib import Path
from statistics import median
from typing import Any

from rich import box
from rich.table import Table

from satbench.leaderboard.curves import Curve
from satbench.leaderboard.figures import axis_end

MARKS = 4
"""At how many eps above 0 a table says what is left."""


def curve_table(curves: Sequence[Curve]) -> Table:
    """Return accuracy with its interval at some eps, and the median distance, of each model."""
    marks = marks_of(curves)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column(f"right (%) within {curves[0].norm}", no_wrap=True)
    for eps in marks:
        table.add_column(f"{eps:.4g}", justify="right", no_wrap=True)
    for heading in ("median\ndistance", "never\nbroken"):
        table.add_column(heading, justify="right")
    for curve in curves:
        shares = (_share(curve, eps) for eps in marks)
        table.add_row(curve.model.name, *shares, _median(curve), str(curve.never))
    return table


def curve_summary(curve: Curve, path: Path, figures: Sequence[Path]) -> dict[str, Any]:
    """Return a curve's result as plain data, for `--json`."""
    return {
        "model": curve.model.name,
        "dataset": curve.dataset.name,
        "n": curve.n,
        "norm": curve.norm,
        "seed": curve.seed,
        "accuracy": [
            {
                "eps": eps,
                "correct": curve.surviving(eps),
                "accuracy": curve.surviving(eps) / curve.n,
                "interval": curve.interval(eps),
            }
            for eps in marks_of([curve])
        ],
        "median_distance": _middle(curve),
        "never_broken": curve.never,
        "masking_sign": curve.masking_sign(),
        "attacks": [
            {
                "attack": one.attack,
                "attacked": one.attacked,
                "found": one.found,
                "nearest": one.nearest,
                "forwards": one.forwards,
                "backwards": one.backwards,
                "seconds": seconds,
            }
            for one, seconds in zip(curve.attacks, curve.environment.stage_seconds, strict=True)
        ],
        "path": str(path),
        "figures": [str(figure) for figure in figures],
    }


def marks_of(curves: Sequence[Curve]) -> list[float]:
    """Return 0 and `MARKS` round values of eps up to about where the curves have come down."""
    rough = axis_end(curves) / MARKS
    power = 10.0 ** floor(log10(rough))
    step = min(width for width in (1, 2, 2.5, 5, 10) if width * power >= rough) * power
    return [float(f"{k * step:.6g}") for k in range(MARKS + 1)]


def _share(curve: Curve, eps: float) -> str:
    low, high = curve.interval(eps)
    return f"{100 * curve.surviving(eps) / curve.n:.1f}\n{100 * low:.0f}–{100 * high:.0f}"


def _middle(curve: Curve) -> float | None:
    """Return the median distance over images that are right when clean; None if it is infinite."""
    distances = [float("inf") if d is None else d for d in curve.distances if d != 0]
    middle = median(distances) if distances else 0.0
    return middle if middle < float("inf") else None


def _median(curve: Curve) -> str:
    middle = _middle(curve)
    return "–" if middle is None else f"{middle:.4g}"


def passes_of(curve: Curve) -> str:
    """Say how many passes, forwards and backwards, the search for an image took."""
    spent = sum(attack.forwards + attack.backwards for attack in curve.attacks)
    images = max(attack.attacked for attack in curve.attacks)
    return f"{spent / images if images else 0:,.0f} passes an image"
