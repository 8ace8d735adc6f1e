"""Certificates as a table for people, as plain data and as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from satbench.certification.sandwich import Sandwich
from satbench.core.console import FittingTable, words
from satbench.core.errors import SatbenchError
from satbench.core.stats.intervals import wilson_interval
from satbench.figures.picture import FORMATS, check_can_draw
from satbench.figures.sandwich import SandwichLine, sandwich_figure

STEM = "certified"


def sandwich_table(measured: Sequence[Sandwich]) -> FittingTable:
    """Return both bounds, in percent with their intervals, with a line for each model and eps."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("model", overflow="fold")
    for heading in (
        "eps",
        "clean",
        "certified",
        "survive\nattacks",
        "open\nimages",
        "out of\ntime",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in measured:
        told = one.certified.certificate
        table.add_row(
            words(told.model.name),
            f"{told.norm} {told.eps}",
            f"{100 * told.clean_correct / told.n:.1f}",
            _share(told.certified, told.n),
            "–" if one.record is None else _share(one.record.surviving(), told.n),
            str(one.open),
            str(told.out_of_time),
        )
    return FittingTable(table, ("out of\ntime", "clean", "open\nimages"))


def sandwich_summary(one: Sandwich, figures: Sequence[Path]) -> dict[str, Any]:
    """Return both bounds as plain data, for `--json`."""
    told, record = one.certified.certificate, one.record
    return {
        "model": told.model.name,
        "dataset": told.dataset.name,
        "n": told.n,
        "norm": told.norm,
        "eps": told.eps,
        "method": told.method,
        "seconds": told.seconds,
        "clean_accuracy": one.certified.clean_accuracy,
        "certified": told.certified,
        "certified_accuracy": one.certified.certified_accuracy,
        "interval": told.interval,
        "surviving": None if record is None else record.surviving(),
        "robust_accuracy": None if record is None else record.surviving() / record.n,
        "open": one.open,
        "out_of_time": told.out_of_time,
        "images": told.verdicts,
        "margins": told.margins,
        "path": str(one.certified.path),
        "found": one.certified.found,
        "figures": [str(figure) for figure in figures],
    }


def draw_sandwich(measured: Sequence[Sandwich], out: Path) -> tuple[list[Path], str]:
    """Draw both bounds against eps; return the figures' files, or the reason why there are none.

    Nothing is drawn, without a reason, if each model has only one eps.
    """
    lines: dict[str, list[Sandwich]] = {}
    for one in measured:
        lines.setdefault(one.certified.certificate.model.name, []).append(one)
    if max(map(len, lines.values()), default=0) < 2:
        return [], ""
    try:
        check_can_draw()
    except SatbenchError as error:
        return [], str(error)
    drawn = [_line(some) for some in lines.values()]
    figures = [out / f"{STEM}{suffix}" for suffix in FORMATS]
    for figure in figures:
        sandwich_figure(drawn, figure)
    return figures, ""


def _line(some: Sequence[Sandwich]) -> SandwichLine:
    ordered = sorted(some, key=lambda one: one.certified.certificate.threat.eps)
    first = ordered[0].certified.certificate
    return SandwichLine(
        first.model.name,
        first.model.activation,
        first.norm,
        first.dataset.name,
        first.n,
        first.clean_correct,
        [one.certified.certificate.threat.radius for one in ordered],
        [one.certified.certificate.certified for one in ordered],
        [one.record.surviving() if one.record else None for one in ordered],
    )


def _share(count: int, n: int) -> str:
    low, high = wilson_interval(count, n)
    return f"{100 * count / n:.1f}\n{100 * low:.0f}–{100 * high:.0f}"
