"""A forecast as text of 80 columns and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from satbench.core.console import words
from satbench.core.progress.words import count, duration
from satbench.evaluation.cost.forecast import CostLine, Forecast, Place
from satbench.evaluation.report import shown_name


def forecast_data(made: Forecast) -> dict[str, Any]:
    """Return a forecast as plain data, for `--json`."""
    return {
        **asdict(made),
        "passes": made.passes,
        "seconds": made.seconds,
        "places": [{**asdict(place), "money": place.money} for place in made.places],
    }


def forecast_table(forecasts: Sequence[Forecast]) -> Group:
    """Return forecasts for a terminal: for each model a table of attacks and one of machines."""
    parts: list[RenderableType] = []
    for made in forecasts:
        heading = Text("\n").append(words(f"{made.model}  ", style="bold"))
        where = f"{made.threat}, {made.n:,} images of {made.dataset}"
        parts += [heading.append(words(where)), _attacks(made), _machines(made)]
    parts.append(Text("Nothing was run. " + _HOW_SURE))
    if len(forecasts) > 1:
        total = sum(made.seconds for made in forecasts)
        passes = sum(made.passes for made in forecasts)
        parts.append(Text(f"All models: {count(passes)} passes, about {duration(total)} here."))
    return Group(*parts)


_HOW_SURE = (
    'Passes are those of records if there are any; "at most" assumes that all images survive. '
    "Time here is passes × the time of one, measured now, without what an attack computes outside "
    "the model. A peak is published by the maker and bounds the time from below."
)


def _attacks(made: Forecast) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_footer=True)
    total = made.passes
    table.add_column("attack", overflow="fold", footer="all")
    table.add_column("passes", justify="right", no_wrap=True, footer=count(total))
    table.add_column("at most", justify="right", no_wrap=True)
    table.add_column("time here", justify="right", no_wrap=True, footer=duration(made.seconds))
    table.add_column("from", overflow="fold")
    for line in made.lines:
        table.add_row(
            words(shown_name(line.name)),
            count(line.passes) if line.basis != "unknown" else "?",
            "?" if line.most is None else count(line.most),
            _time(line),
            words(line.basis),
        )
    return table


def _time(line: CostLine) -> str:
    return "?" if line.basis == "unknown" else _about(line.seconds)


def _machines(made: Forecast) -> Table:
    priced = any(place.price is not None for place in made.places)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("machine", overflow="fold")
    table.add_column("FLOP/s", justify="right", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    if priced:
        table.add_column("money", justify="right", no_wrap=True)
    table.add_column("rate", overflow="fold")
    for place in made.places:
        least = "≥ " if place.machine.is_peak else ""
        table.add_row(
            words(place.machine.name),
            count(place.machine.rate) if place.machine.rate else "?",
            least + _about(place.seconds),
            *([_money(place)] if priced else []),
            words(place.machine.basis),
        )
    if made.flops:
        table.caption = f"{count(made.flops)}FLOP in all, for the model's passes"
    return table


def _money(place: Place) -> str:
    if place.money is None:
        return "–"
    return f"{'≥ ' if place.machine.is_peak else ''}{place.money:.2f}"


def _about(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)
