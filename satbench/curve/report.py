"""The results of a curve, as a table and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from rich import box
from rich.table import Table

from satbench.core.console import FittingTable, words
from satbench.records.curves import Curve, marks_of


def curve_table(curves: Sequence[Curve]) -> FittingTable:
    """Return a table with the accuracy of each model at some eps, and the median distance."""
    marks = marks_of(curves)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column(f"right (%) within {curves[0].norm}", no_wrap=True)
    for eps in marks:
        table.add_column(f"{eps:.4g}", justify="right", no_wrap=True)
    for heading in ("median\ndistance", "never\nbroken"):
        table.add_column(heading, justify="right")
    for curve in curves:
        shares = (_share(curve, eps) for eps in marks)
        table.add_row(words(curve.model.name), *shares, _median(curve), str(curve.never))
    return FittingTable(table, ("never\nbroken", "median\ndistance"))


def curve_summary(
    curve: Curve, marks: Sequence[float], path: Path, figures: Sequence[Path]
) -> dict[str, Any]:
    """Return a curve's result at the eps of a table as plain data, for `--json`."""
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
            for eps in marks
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
        "bounds": [asdict(bound) for bound in curve.bounds],
        "path": str(path),
        "figures": [str(figure) for figure in figures],
    }


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
    """Return how many passes, forwards and backwards, all searches took for an image."""
    spent = sum(attack.forwards + attack.backwards for attack in curve.attacks)
    spent += sum(bound.forwards + bound.backwards for bound in curve.bounds)
    images = max(attack.attacked for attack in curve.attacks)
    return f"{spent / images if images else 0:,.0f} passes an image"
