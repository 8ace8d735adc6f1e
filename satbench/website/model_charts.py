"""The charts of a model's page: robust accuracy against eps, and against the steps of PGD."""

from __future__ import annotations

from collections.abc import Sequence

from satbench.core.markdown import percent
from satbench.core.stats.intervals import wilson_interval
from satbench.records.curves import Curve, reach_of
from satbench.website.charts import (
    HEIGHT,
    LEFT,
    TOP,
    Chart,
    ChartLabel,
    ChartLine,
    ChartPoint,
    Scale,
    Tick,
    axis,
    path_of,
    spread,
    stairs,
)
from satbench.website.known import KnownPoint, Series
from satbench.website.looks import Drawn

_WIDTH, _NAMES = 424, 112  # the names of the lines are at the right
_RIGHT, _BOTTOM = _WIDTH - _NAMES, HEIGHT - 46
_SHARE = Scale(0, 1, _BOTTOM, TOP)
_SHARES = [Tick(_SHARE(k / 5), f"{20 * k}") for k in range(6)]


def eps_chart(
    name: str, norm: str, series: Sequence[Series], curve: Curve | None, drawn: Drawn
) -> Chart | None:
    """Return robust accuracy against eps; None if it is known at no radius."""
    known = [point.x for one in series for point in one.points]
    if not any(known) and curve is None:
        return None
    end = max([*known, *([reach_of(curve.distances)] if curve else [])])
    scale, ticks = axis([0, end], LEFT, _RIGHT)
    parts = [_series(one, scale, drawn, "eps {:g}") for one in series]
    lines = [line for found, _ in parts for line in found]
    bands, ends = [], [(_end(one, scale), one.name) for one in series]
    if curve is not None:
        line, band, at = _curve(curve, scale, drawn)
        lines, bands = [line, *lines], [band]
        ends.append((at, "curve"))
    return Chart(
        name,
        f"Robust accuracy against eps, {norm.capitalize()}",
        f"eps ({norm.capitalize()}, pixels in [0, 1])",
        "right (%), an upper bound",
        ticks,
        _SHARES,
        _RIGHT,
        [point for _, found in parts for point in found],
        lines,
        bands,
        _names(ends),
        _WIDTH,
    )


def steps_chart(name: str, series: Series, clean: float, best: float, drawn: Drawn) -> Chart:
    """Return robust accuracy against the steps of PGD; lines mark `clean` and `best` known."""
    counts = [point.x for point in series.points]
    scale = Scale(counts[0], counts[-1], LEFT + 8, _RIGHT - 8, is_log=True)
    lines, points = _series(series, scale, drawn, "{:g} steps")
    across = {"clean": clean, "best known": best}
    lines += [
        ChartLine(path_of([(LEFT, _SHARE(share)), (_RIGHT, _SHARE(share))]), "", "across")
        for share in across.values()
    ]
    ends = [((_RIGHT, _SHARE(share)), text) for text, share in across.items()]
    return Chart(
        name,
        "Robust accuracy against the steps of PGD",
        "steps of PGD, one restart, no other attack (logarithmic)",
        "right (%), an upper bound",
        [Tick(scale(count), f"{count:g}") for count in counts],
        _SHARES,
        _RIGHT,
        points,
        lines,
        (),
        _names([*ends, (_end(series, scale), series.name)]),
        _WIDTH,
    )


def _series(
    one: Series, scale: Scale, drawn: Drawn, text: str
) -> tuple[list[ChartLine], list[ChartPoint]]:
    """Return the points of a series with their intervals and the line through them."""
    places = [(scale(point.x), _SHARE(point.share)) for point in one.points]
    lines = [ChartLine(path_of(places), drawn.colour, "thin")]
    lines += [
        ChartLine(_whisker(x, point), "", "whisker")
        for (x, _), point in zip(places, one.points, strict=True)
    ]
    points = [
        ChartPoint(x, y, drawn, f"{text.format(point.x)}: {_numbers(point)}, {one.name}")
        for (x, y), point in zip(places, one.points, strict=True)
    ]
    hollow = [ChartPoint(p.x, p.y, p.drawn, p.name, hollow=True) for p in points]
    return lines, points if one.is_board else hollow


def _whisker(x: float, point: KnownPoint) -> str:
    low, high = wilson_interval(point.count, point.n)
    return path_of([(x, _SHARE(low)), (x, _SHARE(high))])


def _numbers(point: KnownPoint) -> str:
    low, high = wilson_interval(point.count, point.n)
    interval = f"[{percent(low)}, {percent(high)}]"
    return f"{percent(point.share)} % {interval}, {point.count} of {point.n}"


def _end(one: Series, scale: Scale) -> tuple[float, float]:
    last = one.points[-1]
    return scale(last.x), _SHARE(last.share)


def _curve(
    curve: Curve, scale: Scale, drawn: Drawn
) -> tuple[ChartLine, ChartLine, tuple[float, float]]:
    """Return a curve, its 95 % band and its end."""
    steps = [step for step in curve.steps() if step <= scale.high]
    steps.append(scale.high)
    counts = [curve.surviving(step) for step in steps]
    bands = [wilson_interval(count, curve.n) for count in counts]

    def line(shares: Sequence[float]) -> list[tuple[float, float]]:
        places = zip(steps, shares, strict=True)
        return stairs([(scale(step), _SHARE(share)) for step, share in places])

    shares = [count / curve.n for count in counts]
    low, high = (line([band[end] for band in bands]) for end in (0, 1))
    return (
        ChartLine(path_of(line(shares)), drawn.colour, "data"),
        ChartLine(path_of([*high, *low[::-1]], closed=True), drawn.colour, "band"),
        (scale(steps[-1]), _SHARE(shares[-1])),
    )


def _names(ends: Sequence[tuple[tuple[float, float], str]]) -> list[ChartLabel]:
    """Return the names of lines next to their ends, apart from each other."""
    found = []
    places = spread([y for (_, y), _ in ends], TOP, _BOTTOM)
    for ((x, y), text), place in zip(ends, places, strict=True):
        to = None if x > _RIGHT - 10 and abs(place - y) < 3 else (x, y)
        found.append(ChartLabel(_RIGHT + 12, place + 4, _short(text.partition("(")[0]), to=to))
    return found


def _short(text: str, most: int = 16) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
