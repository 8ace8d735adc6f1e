"""Curves and heat maps; matplotlib is imported only when a figure is drawn.

Colours and dash patterns are those of `satbench.figures.styles`.
The same data give the same bytes (with one version of matplotlib).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import floor, isnan
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from satbench.core.errors import SatbenchError
from satbench.core.stats.intervals import wilson_interval
from satbench.figures.picture import check_format, drawing
from satbench.figures.styles import Look, looks_of
from satbench.records.curves import Curve, CurveBound, reach_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


LABEL_ABOVE, LABEL_APART, LABEL_NEAR = 2.0, 4.5, 15.0
"""How far, in percent, a label is above its mark, labels that meet are apart, and marks of one eps
are near each other, so that their labels are above all of them."""

LABEL_WIDE = 0.28
"""The width of a label, as a share of the axis."""


def curve_figure(curves: Sequence[Curve], path: Path, eps_max: float | None = None) -> None:
    """Draw robust accuracy against eps, with a line and its 95 % band for each curve.

    The suffix of `path`, .png or .svg, selects the format.  `eps_max` is the end of the axis, in
    pixels of [0, 1]; with None, the axis ends where the last curve is nearly at its end.  Raises
    SatbenchError for no curve, for curves of different norms or data sets, for another suffix, and
    without matplotlib.
    """
    if not curves:
        raise SatbenchError("expected at least one curve to draw, got none")
    if len({(curve.norm, curve.dataset.digest) for curve in curves}) > 1:
        kinds = sorted({f"{c.norm} on {c.dataset.name} ({c.n})" for c in curves})
        raise SatbenchError(
            f"expected curves of one norm on the same images, got {' and '.join(kinds)}"
        )
    with figure_at(path, (8.0, 5.0)) as (figure, axes):
        end = eps_max or axis_end(curves)
        looks = looks_of([(curve.model.activation, curve.model.name) for curve in curves])
        for curve, look in zip(curves, looks, strict=True):
            _draw_curve(axes, curve, end, look)
        _mark_verdicts(axes, list(zip(curves, looks, strict=True)), end)
        first = curves[0]
        _draw_chance(axes, first.chance)
        axes.set(
            xlim=(0, end),
            ylim=(0, 100),
            xlabel=f"eps ({_NORMS[first.norm]}, pixels in [0, 1])",
            ylabel="robust accuracy (%), higher is better; upper bound",
        )
        figure.supxlabel(
            f"{attacks_text(curves)}\n"
            "Bands are 95 % Wilson intervals.  Chance is the share of the commonest label: "
            "for large eps no model stays above it.",
            fontsize=8,
            color="#444444",
        )
        images = f"first {first.n:,} images of {first.dataset.name}"
        figure.suptitle(f"Robust accuracy against eps, {images}", fontsize=12, x=0.01, ha="left")
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        longest = max(len(label) for label in axes.get_legend_handles_labels()[1])
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),  # above the axes, where no line is hidden
            ncols=2 if longest <= 40 else 1,
            frameon=False,
            fontsize=10,
        )


def attacks_text(curves: Sequence[Curve]) -> str:
    """Return a text on the attacks of the curves, and on the records that lower them."""
    nearest = dict.fromkeys(one.attack.partition("(")[0] for c in curves for one in c.attacks)
    text = f"Nearest points by {', '.join(nearest)}"
    within: dict[str, list[float]] = {}
    for bound in (bound for curve in curves for bound in curve.bounds):
        by = "records of the models" if _is_record(bound) else bound.by.partition("(")[0]
        within.setdefault(by, []).append(bound.eps)
    for by, eps in within.items():
        text += f"; lowered by {by} at eps {', '.join(f'{e:.4g}' for e in sorted(set(eps)))}"
    return "\n".join(wrap(f"{text}.", 110))


def _is_record(bound: CurveBound) -> bool:
    return bound.by.startswith("record ")


def _mark_verdicts(axes: Axes, curves: Sequence[tuple[Curve, Look]], end: float) -> None:
    """Mark the robust accuracy in records of the models, which bound the curves at their eps."""
    marks = [
        (eps, 100 * curve.surviving(eps) / curve.n, look)
        for curve, look in curves
        for eps in sorted({bound.eps for bound in curve.bounds if _is_record(bound)})
        if eps <= end
    ]
    written: list[tuple[float, float]] = []  # the places of the labels
    for eps, left, look in sorted(marks, key=lambda mark: mark[:2]):
        axes.plot(
            [eps],
            [left],
            linestyle="",
            marker=look.marker,
            markersize=8,
            color=look.colour,
            markeredgecolor="white",
            zorder=5,
        )
        near = [other for at, other, _ in marks if at == eps and abs(other - left) < LABEL_NEAR]
        height = max(near) + LABEL_ABOVE
        beside = sorted(at for other, at in written if eps - other < LABEL_WIDE * end)
        for at in beside:
            if abs(at - height) < LABEL_APART:
                height = at + LABEL_APART
        written.append((eps, height))
        axes.annotate(
            f"record at eps {eps:.4g}: {left:.1f} %",
            (eps, height),
            xytext=(7, 0),
            textcoords="offset points",
            fontsize=9,
            color=look.colour,
        )


def axis_end(curves: Sequence[Curve]) -> float:
    """Return the end of the axis: at this eps 95 % of each curve's broken images are broken."""
    return max(reach_of(curve.distances) for curve in curves)


def heat_map(
    values: Sequence[Sequence[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    path: Path,
    axes_names: tuple[str, str] = ("", ""),
) -> None:
    """Draw a matrix of shares in [0, 1] as colours, with the percentage in each cell.

    NaN is an empty cell.  Colours go from the least value to the largest in steps of 1 or 2 points,
    so that 68 and 70 differ.  `axes_names` are the titles of rows and columns.  The suffix of
    `path`, .png or .svg, selects the format.  Raises SatbenchError for a matrix whose shape differs
    from its labels, for values outside [0, 1], for another suffix, and without matplotlib.
    """
    if not rows or not columns:
        raise SatbenchError("expected at least one row and one column, got none")
    if len(values) != len(rows) or any(len(row) != len(columns) for row in values):
        raise SatbenchError(f"expected {len(rows)} rows of {len(columns)} values for the labels")
    if any(not (0 <= value <= 1 or isnan(value)) for row in values for value in row):
        raise SatbenchError("expected shares in [0, 1] or NaN in a heat map")
    longest = max(map(len, rows))
    width = max(1.6 + 0.085 * longest + 0.75 * len(columns), 0.6 + 0.1 * len(title))
    size = (width, 1.4 + 0.06 * max(map(len, columns)) + 0.42 * len(rows))
    from matplotlib.colors import BoundaryNorm

    with figure_at(path, size) as (figure, axes):
        percent = [[100 * value for value in row] for row in values]
        bounds = steps_of([value for row in percent for value in row if not isnan(value)])
        norm = BoundaryNorm(bounds, 256)
        image = axes.imshow(percent, cmap="viridis", norm=norm, aspect="auto")
        middle = (bounds[0] + bounds[-1]) / 2
        for i, row in enumerate(percent):
            for j, value in enumerate(row):
                if not isnan(value):
                    ink = "black" if value > middle else "white"
                    axes.text(j, i, f"{value:.1f}", ha="center", va="center", color=ink)
        axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right")
        axes.set_yticks(range(len(rows)), rows)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_ylabel(axes_names[0])
        axes.set_xlabel(axes_names[1])
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
        shown = bounds[:: max(1, len(bounds) // 8)]
        bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02, ticks=shown)
        bar.set_label("robust accuracy (%), higher is better")


def steps_of(values: Sequence[float]) -> list[float]:
    """Return the values at which colours change, from below the least to above the largest."""
    low, high = (min(values), max(values)) if values else (0.0, 100.0)
    step = 1 if high - low <= 20 else 2
    first, last = floor(low / step) * step, (floor(high / step) + 1) * step
    return [float(edge) for edge in range(first, last + step, step)]


def _draw_curve(axes: Axes, curve: Curve, end: float, look: Look) -> None:
    eps = [step for step in curve.steps() if step <= end]
    right = [curve.surviving(step) for step in eps]
    bands = [wilson_interval(count, curve.n) for count in right]
    eps, right, bands = [*eps, end], [*right, right[-1]], [*bands, bands[-1]]
    label = curve.model.name
    if curve.masking_sign():
        label += " (stays up: gradients masked?)"
    axes.step(
        eps,
        [100 * count / curve.n for count in right],
        where="post",
        color=look.colour,
        linestyle=look.dash,
        linewidth=2,
        label=label,
    )
    low, high = zip(*bands, strict=True)
    axes.fill_between(
        eps,
        [100 * value for value in low],
        [100 * value for value in high],
        step="post",
        color=look.colour,
        alpha=0.15,
        linewidth=0,
    )


def _draw_chance(axes: Axes, chance: float) -> None:
    axes.axhline(100 * chance, color="#666666", linewidth=1, linestyle=(0, (1, 3)))
    axes.annotate(
        f"chance\n{chance:.0%}",
        (1, 100 * chance),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color="#444444",
    )


@contextmanager
def figure_at(path: Path, inches: tuple[float, float]) -> Iterator[tuple[Figure, Axes]]:
    """Yield an empty figure, which is written to `path` atomically when the block ends."""
    with drawing(inches) as picture:
        check_format(path)
        yield picture.figure, picture.figure.add_subplot()
        picture.save(path)
