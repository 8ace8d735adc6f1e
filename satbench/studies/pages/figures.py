"""The figures of a study, drawn from the sheet of its page; the same data give the same bytes.

As in all figures, a colour stands for an activation and a marker for the rest of an arm
(`satbench.figures.styles`).  An attack has a marker, and the colour of the arm that it attacked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from satbench.core.errors import SatbenchError
from satbench.core.stats.shown import Effect
from satbench.figures.drawing import figure_at
from satbench.figures.labels import label_points
from satbench.figures.picture import FORMATS
from satbench.figures.styles import (
    DASHES,
    MARKERS,
    NEUTRAL,
    Look,
    activation_colour,
    looks_of,
)
from satbench.studies.design import Axis
from satbench.studies.effects import (
    Spread,
    accuracies,
    clean_accuracies,
    findings_of,
    primary_of,
    spread,
)
from satbench.studies.pages.looks import keys_of, looks_in, looks_of_lines, unit_of
from satbench.studies.pages.panels import legend_below, legend_of, legend_rows, panels_in
from satbench.studies.sheet import ArmRuns, Sheet, pictures_of, telling_measures_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH = 8.0  # inches: some 800 pixels on a page
_GREY = "#444444"
_TOGETHER = 5  # curves that one legend explains
_BARS: dict[str, Any] = {"capsize": 2.5, "elinewidth": 1.1, "capthick": 1.1}


def write_figures(sheet: Sheet, folder: Path) -> list[Path]:
    """Draw all figures of a study into a folder, `NAME….svg` and `NAME….png`; return the paths.

    Raises SatbenchError if matplotlib is not installed.
    """
    paths = []
    for kind, picture in pictures_of(sheet).items():
        for suffix in FORMATS:
            path = folder / f"{sheet.study.name}{picture.suffix}{suffix}"
            draw(sheet, kind, path)
            paths.append(path)
    return paths


def draw(sheet: Sheet, kind: str, path: Path) -> None:
    """Draw one figure of a study, of one of the kinds in `pictures_of`.

    Raises SatbenchError for another kind, another format than .svg or .png, or no matplotlib.
    """
    if kind not in pictures_of(sheet):
        raise SatbenchError(
            f"expected one of the figures {', '.join(pictures_of(sheet))}; got {kind!r}"
        )
    if kind.startswith("lines"):
        lines_figure(sheet, sheet.study.axes[int(kind.split()[1])], path)
    else:
        figures: Mapping[str, Callable[[Sheet, Path], None]] = {
            "scatter": scatter_figure,
            "attacks": attacks_figure,
            "effects": effects_figure,
            "measures": measures_figure,
            "shapes": shapes_figure,
        }
        figures[kind](sheet, path)


def scatter_figure(sheet: Sheet, path: Path) -> None:
    """Draw robust against clean accuracy, with a panel for the paper's evaluation and the verdict.

    A point is an arm's mean over seeds, its bars the standard deviations.
    """
    columns = _compared(sheet)
    looks = looks_in(sheet)
    keys = keys_of(sheet, looks)
    names = [name for name, _ in keys]
    with figure_at(path, (_WIDTH, 4.2 + 0.24 * (legend_rows(names) if keys else 0))) as (
        figure,
        _,
    ):
        panels = panels_in(figure, 1, len(columns), sharex=True)
        for axes, column in zip(panels, columns, strict=True):
            points = [
                _draw_arm(axes, sheet, row, column, look)
                for row, look in zip(sheet.rows, looks, strict=True)
            ]
            axes.set_title(_panel_title(sheet, column), fontsize=11)
            axes.set_xlabel("clean accuracy (%), higher is better")
            if not keys:
                label_points(figure, axes, points, [row.name for row in sheet.rows], looks)
        panels[0].set_ylabel("robust accuracy (%), higher is better")
        if keys:
            handles = [panels[0].plot([], [], linestyle="", **style)[0] for _, style in keys]
            legend_of(figure, handles, names)


def attacks_figure(sheet: Sheet, path: Path) -> None:
    """Draw robust accuracy under each attack: a line per arm, a marker per attack, mean over seeds.

    Markers of one line are slightly shifted, in the order of the columns, the first on top.
    """
    labels = [fill(row.name, 28) for row in sheet.rows]
    names = [column.name for column in sheet.columns]
    height = 0.9 + 0.24 * legend_rows(names) + 0.52 * len(labels)
    with figure_at(path, (_WIDTH, height)) as (figure, axes):
        looks = looks_in(sheet)
        for number, name in enumerate(names):
            shift = 0.64 * (number / max(1, len(names) - 1) - 0.5)
            for place, (row, look) in enumerate(zip(sheet.rows, looks, strict=True)):
                if one := spread(accuracies(sheet, row, name).values()):
                    axes.errorbar(
                        [100 * one.mean],
                        [place + shift],
                        xerr=[100 * (one.deviation or 0.0)],
                        linestyle="",
                        **_look(Look(look.colour, number)),
                    )
            axes.plot([], [], linestyle="", color=NEUTRAL, marker=MARKERS[number], label=name)
        for place in range(0, len(labels), 2):
            axes.axhspan(place - 0.5, place + 0.5, color="#f5f5f5", zorder=0)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("robust accuracy (%), higher is better")
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        legend_below(figure, axes)


def effects_figure(sheet: Sheet, path: Path) -> None:
    """Draw the difference of each contrast with its 95 % interval, by both evaluations.

    A full marker is a difference that is shown, an empty one is not.  The primary question is
    first, separated from the others, in bold and with thicker bars.
    """
    found = (*filter(None, (primary_of(sheet),)), *findings_of(sheet))
    asked = sheet.study.questions
    shared = len({one.baseline for one in asked}) == 1
    labels = [
        fill(one.arm, 28) if shared else f"{fill(one.arm, 28)}\n− {fill(one.baseline, 28)}"
        for one in asked
    ]
    lines = sum(max(1.7, 0.9 + label.count("\n")) for label in labels)
    with figure_at(path, (_WIDTH, 1.6 + 0.24 * lines)) as (figure, axes):
        sides = [(sheet.study.verdict, [one.robust for one in found], 0.17)]
        if sheet.study.paper_verdict != sheet.study.verdict:
            sides.insert(0, (sheet.study.paper_verdict, [one.paper for one in found], -0.17))
        for number, (column, effects, shift) in enumerate(sides):
            marker = MARKERS[1 - number]
            colours = _colours_of(sheet)
            _draw_effects(axes, effects, shift, colours, marker, bold=bool(sheet.study.primary))
            axes.plot([], [], linestyle="", color=NEUTRAL, marker=marker, label=column)
        axes.axvline(0, color="#666666", linewidth=1)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        if sheet.study.primary:
            axes.get_yticklabels()[0].set_fontweight("bold")
            axes.axhspan(-0.5, 0.5, color="#f0f0f0", zorder=0)
        minus = f"minus {asked[0].baseline}" if shared else "difference"
        axes.set_xlabel(f"robust accuracy, {minus} (points)\nfull markers: shown to differ")
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.tick_params(axis="y", length=0)
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=10)


def lines_figure(sheet: Sheet, axis: Axis, path: Path) -> None:
    """Draw robust accuracy against a number: lines of arms over columns, or of means over arms."""
    columns = _compared(sheet) if axis.over == "arms" else ("",)
    names = [line.name for line in axis.lines]
    with figure_at(path, (_WIDTH, 3.6 + 0.24 * legend_rows(names))) as (figure, _):
        panels = panels_in(figure, 1, len(columns), sharex=True, sharey=True)
        for axes, column in zip(panels, columns, strict=True):
            for line, look in zip(axis.lines, looks_of_lines(sheet, axis), strict=True):
                points = []
                for x, place in line.places:
                    arm, read = (place, column) if column else (line.name, place)
                    if one := spread(accuracies(sheet, sheet.row(arm), read).values()):
                        points.append((x, one))
                _draw_line(axes, points, look, line.name)
            axes.set_xlabel(axis.label)
            if axis.log:
                axes.set_xscale("log")
            ticks = sorted({x for line in axis.lines for x, _ in line.places})
            if len(ticks) <= 8:
                axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
                axes.minorticks_off()
            if column:
                axes.set_title(_panel_title(sheet, column), fontsize=11)
        panels[0].set_ylabel("robust accuracy (%), higher is better")
        legend_below(figure, panels[0])


def measures_figure(sheet: Sheet, path: Path) -> None:
    """Draw the gradient measures: a panel for each, with a dot per seed, mean and deviation.

    A measure that is 0 in every network has no panel.
    """
    names, looks = telling_measures_of(sheet), looks_in(sheet)
    across = min(3, len(names))
    down = -(-len(names) // across)
    labels = [fill(row.name, 30) for row in sheet.rows]
    height = down * (1.25 + (0.38 if "\n" in "".join(labels) else 0.27) * len(labels))
    with figure_at(path, (_WIDTH, height)) as (figure, _):
        panels = panels_in(figure, down, across, sharey=True)
        for axes, name in zip(panels, names, strict=False):
            for number, row in enumerate(sheet.rows):
                values = [run.measures[name] for run in row.runs if name in run.measures]
                _draw_measure(axes, values, number, looks[number])
            axes.set_title(fill(name, 26), fontsize=11)
            axes.set_xlabel(fill(unit_of(sheet.measures[name]), 30), fontsize=9)
            axes.set_yticks(range(len(labels)), labels)
            axes.set_ylim(len(labels) - 0.5, -0.5)
            axes.tick_params(axis="y", length=0)
            axes.locator_params(axis="x", nbins=3)
        for axes in panels[len(names) :]:
            axes.set_visible(False)


def shapes_figure(sheet: Sheet, path: Path) -> None:
    """Draw the activations and their derivatives (Xie et al., 2020, figure 1).

    Up to five are side by side; more have a panel each, with its name.
    """
    names = [shape.name for shape in sheet.shapes]
    looks = looks_of([(shape.name.partition(",")[0], shape.name) for shape in sheet.shapes])
    if len(names) > _TOGETHER:
        _small_shapes(sheet, looks, path)
        return
    with figure_at(path, (_WIDTH, 3.2 + 0.24 * legend_rows(names))) as (figure, _):
        panels = panels_in(figure, 1, 2)
        for number, (shape, look) in enumerate(zip(sheet.shapes, looks, strict=True)):
            # Curves overlap, so each has its own dash pattern, too.
            dash = DASHES[number % len(DASHES)]
            style: dict[str, Any] = {"color": look.colour, "linestyle": dash, "linewidth": 1.6}
            panels[0].plot(shape.x, shape.f, label=shape.name, **style)
            panels[1].plot(shape.x, shape.df, **style)
        for axes, title in zip(panels, ("f(x)", "f′(x)"), strict=True):
            axes.set_title(title, fontsize=11)
            axes.set_xlabel("x")
        legend_below(figure, panels[0])


def _small_shapes(sheet: Sheet, looks: Sequence[Look], path: Path) -> None:
    across = 5
    down = -(-len(looks) // across)
    with figure_at(path, (_WIDTH, 0.5 + 1.75 * down)) as (figure, _):
        panels = panels_in(figure, down, across, sharex=True, sharey=True)
        for axes, shape, look in zip(panels, sheet.shapes, looks, strict=False):
            axes.plot(shape.x, shape.f, color=look.colour, linewidth=1.8)
            axes.plot(shape.x, shape.df, color=look.colour, linewidth=1.4, linestyle="--")
            axes.set_title(shape.name, fontsize=10, color=look.colour)
        for axes in panels[len(looks) :]:
            axes.set_visible(False)
        panels[0].set_xticks([-4, 0, 4])
        figure.supxlabel("x; full line: f(x), dashed: f′(x)", fontsize=10)


def _compared(sheet: Sheet) -> tuple[str, ...]:
    return tuple(dict.fromkeys((sheet.study.paper_verdict, sheet.study.verdict)))


def _panel_title(sheet: Sheet, column: str) -> str:
    return f"{fill(column, 40)}{' (as the paper)' if column == sheet.study.paper_verdict else ''}"


def _draw_arm(
    axes: Axes, sheet: Sheet, row: ArmRuns, column: str, look: Look
) -> tuple[float, float]:
    """Draw an arm; return the position of its point, in percent."""
    robust = accuracies(sheet, row, column)
    clean = clean_accuracies(sheet, row)
    x, y = spread(clean[seed] for seed in robust), spread(robust.values())
    # An arm without runs is drawn empty, so that it is still in the legend.
    points = [(one.mean, one.deviation or 0.0) for one in (x, y) if one] or [(np.nan, 0.0)] * 2
    (clean_mean, clean_bar), (robust_mean, robust_bar) = points
    axes.errorbar(
        [100 * clean_mean],
        [100 * robust_mean],
        xerr=[100 * clean_bar],
        yerr=[100 * robust_bar],
        linestyle="",
        label=row.name,
        **_look(look),
    )
    return 100 * clean_mean, 100 * robust_mean


def _draw_effects(
    axes: Axes,
    effects: Sequence[Effect | None],
    shift: float,
    colours: Sequence[str],
    marker: str,
    bold: bool = False,
) -> None:
    """Draw effects on lines from the top, the first one larger if `bold`."""
    for place, (effect, colour) in enumerate(zip(effects, colours, strict=True)):
        if effect is None:
            continue
        low, high = effect.interval or (effect.mean, effect.mean)
        large = bold and place == 0
        shown = effect.verdict in ("more robust", "less robust")
        axes.errorbar(
            [100 * effect.mean],
            [place + shift],
            xerr=[[100 * (effect.mean - low)], [100 * (high - effect.mean)]],
            color=colour,
            marker=marker,
            markerfacecolor=colour if shown else "white",
            linestyle="",
            markersize=8.5 if large else 6,
            **({**_BARS, "elinewidth": 2.2, "capthick": 2.2, "capsize": 4} if large else _BARS),
        )


def _draw_line(axes: Axes, points: Sequence[tuple[float, Spread]], look: Look, name: str) -> None:
    axes.errorbar(
        [x for x, _ in points],
        [100 * one.mean for _, one in points],
        yerr=[100 * (one.deviation or 0.0) for _, one in points],
        linestyle=look.dash,
        linewidth=1.6,
        label=name,
        **_look(look),
    )


def _draw_measure(axes: Axes, values: Sequence[float], number: int, look: Look) -> None:
    if not values:
        return
    one = spread(values)
    bar = one.deviation or 0.0 if one else 0.0
    axes.plot(values, [number + 0.22] * len(values), ".", color=_GREY, markersize=3.5)
    axes.errorbar([fmean(values)], [number], xerr=[bar], linestyle="", **_look(look))


def _look(look: Look) -> dict[str, Any]:
    return {"color": look.colour, "marker": look.marker, "markersize": 6.5, **_BARS}


def _colours_of(sheet: Sheet) -> list[str]:
    """Return the colour of each question: that of the activation of its arm, if it has one."""
    looks = dict(zip((row.name for row in sheet.rows), looks_in(sheet), strict=True))
    return [
        activation_colour(looks[one.arm].activation) or NEUTRAL if one.arm in looks else NEUTRAL
        for one in sheet.study.questions
    ]
