"""Charts as numbers for the templates, which draw them as SVG in the page.

All lengths are in units of the drawing; its origin is at the top left.  Marks have names that the
pointer or the keyboard shows.  A table of the page has the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil, floor, log10

from satbench.website.looks import Drawn

WIDTH, HEIGHT = 560, 340
LEFT, TOP, BOTTOM = 46, 14, 46
_LETTER, _LINE = 6.2, 13  # the width of a letter and the height of a line of text


@dataclass(frozen=True)
class Tick:
    """A number next to an axis, at `place`."""

    place: float
    text: str


@dataclass(frozen=True)
class ChartLine:
    """A line; `style` is the name of a class of the style sheet."""

    path: str
    colour: str
    style: str = ""


@dataclass(frozen=True)
class ChartPoint:
    """A point with its marker; `name` is its text, `href` the target of its link."""

    x: float
    y: float
    drawn: Drawn
    name: str
    href: str = ""
    hollow: bool = False


@dataclass(frozen=True)
class ChartLabel:
    """A text in the chart; a thin line leads to what it names if the text is not next to it."""

    x: float
    y: float
    text: str
    anchor: str = "start"
    to: tuple[float, float] | None = None


@dataclass(frozen=True)
class Chart:
    """A chart.  `name` is the id of its element, `title` says what it shows."""

    name: str
    title: str
    x_label: str
    y_label: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    right: float
    points: Sequence[ChartPoint] = ()
    lines: Sequence[ChartLine] = ()
    bands: Sequence[ChartLine] = ()
    labels: Sequence[ChartLabel] = field(default=())
    width: float = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True)
class Scale:
    """A map from numbers to places: `low` is at `start`, `high` at `end`."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """Return the place of a number, to a tenth of a unit."""
        at = _log if self.is_log else float
        share = (at(value) - at(self.low)) / (at(self.high) - at(self.low))
        return round(self.start + share * (self.end - self.start), 1)


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Return round numbers from the first at or below `low` to the first at or above `high`.

    >>> ticks(0.03, 0.98, 5)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    rough = max(high - low, 0.01 * max(abs(low), abs(high), 1)) / count
    power = 10.0 ** floor(log10(rough))
    step = next(width for width in (1, 2, 2.5, 5, 10) if width * power >= rough * (1 - 1e-9))
    step *= power
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [float(f"{k * step:.6g}") for k in range(first, max(last, first + 1) + 1)]


def axis(
    values: Sequence[float],
    start: float,
    end: float,
    text: Callable[[float], str] = "{:g}".format,
) -> tuple[Scale, list[Tick]]:
    """Return the scale of an axis that holds all values, and its ticks."""
    found = ticks(min(values), max(values))
    scale = Scale(found[0], found[-1], start, end)
    return scale, [Tick(scale(value), text(value)) for value in found]


def path_of(places: Sequence[tuple[float, float]], *, closed: bool = False) -> str:
    """Return a path through places."""
    steps = " L".join(f"{x:g} {y:g}" for x, y in places)
    return f"M{steps}{'Z' if closed else ''}" if places else ""


def stairs(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the corners of a line that keeps its height up to the next place and then falls."""
    found: list[tuple[float, float]] = []
    for x, y in places:
        found += [(x, found[-1][1])] if found else []
        found.append((x, y))
    return found


def label_alone(
    names: Sequence[str],
    places: Sequence[tuple[float, float]],
    frame: tuple[float, float, float, float],
) -> list[ChartLabel]:
    """Put a name next to each place that has no other place near it and enough room.

    `frame` is the left, top, right and bottom of the chart.  Between many points it would be
    unclear which one a name belongs to.
    """
    boxes = [(x - 6, y - 6, x + 6, y + 6) for x, y in places]
    labels = []
    for name, (x, y) in zip(names, places, strict=True):
        near = sum(abs(x - left) < _ALONE and abs(y - top) < _ALONE for left, top in places)
        width = _LETTER * len(name)
        for start, anchor in ((x + _NEAR, "start"), (x - _NEAR, "end")):
            left = start if anchor == "start" else start - width
            box = (left, y - _LINE / 2, left + width, y + _LINE / 2)
            inside = frame[0] <= box[0] and box[2] <= frame[2]
            if near == 1 and inside and not any(_meet(box, other) for other in boxes):
                boxes.append(box)
                labels.append(ChartLabel(round(start, 1), round(y + 4, 1), name, anchor))
                break
    return labels


def spread(places: Sequence[float], low: float, high: float, apart: float = _LINE) -> list[float]:
    """Return the places moved as little as needed to be `apart` from each other and in range."""
    order = sorted(range(len(places)), key=lambda k: places[k])
    moved = [0.0] * len(places)
    at = low - apart
    for k in order:
        at = max(at + apart, places[k])
        moved[k] = at
    at = high + apart
    for k in reversed(order):
        at = min(at - apart, moved[k])
        moved[k] = round(at, 1)
    return moved


_NEAR, _ALONE = 9, 20


def _meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    apart = one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1]
    return not apart


def _log(value: float) -> float:
    return log10(value)
