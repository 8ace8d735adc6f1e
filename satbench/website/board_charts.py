"""The summary of a board's models: charts, smooth against ReLU, transfer attacks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from satbench.board.board import Benchmark
from satbench.board.ranking import Comparison
from satbench.board.rows import COLUMNS, Column, Row
from satbench.board.tables import recipe_title
from satbench.core.markdown import percent, signed
from satbench.core.stats.shown import Effect
from satbench.records.transfers import TransferMatrix
from satbench.website.charts import (
    HEIGHT,
    LEFT,
    TOP,
    WIDTH,
    Chart,
    ChartLine,
    ChartPoint,
    axis,
    label_alone,
    path_of,
)
from satbench.website.data_table import DataTable, PageCell, PageColumn, Span, spec_cell
from satbench.website.looks import Drawn, Looks
from satbench.website.places import model_key, model_place, model_title

_BOTTOM, _RIGHT = HEIGHT - 46, WIDTH - 12
_COMPARED: tuple[Column, ...] = ("best_known", "autoattack", "pgd50")
_WIDEST = 0.25  # the range of the drawn intervals; an arrow marks the few that are cut
TINTS = 11
"""How many colours a heat map has."""


@dataclass(frozen=True)
class KeyPart:
    """An entry of a chart's key: a marker or a colour, and its meaning."""

    drawn: Drawn
    text: str


def chart_key(benchmark: Benchmark, looks: Looks) -> tuple[list[KeyPart], list[KeyPart]]:
    """Return the meanings of the colours and of the markers of a board."""
    round_mark = Looks([""]).mark("", "").shape
    activations = sorted({row.model.activation.partition("(")[0] for row in benchmark.rows})
    recipes = sorted({row.training.recipe or "" for row in benchmark.rows})
    colours = [KeyPart(Drawn(looks.mark(one, None).colour, round_mark), one) for one in activations]
    markers = [
        KeyPart(Drawn("none", looks.mark("", one).shape), one or "not known") for one in recipes
    ]
    return colours, markers


def clean_chart(benchmark: Benchmark, looks: Looks) -> Chart:
    """Return clean against robust accuracy, one point for each model."""
    return _scatter(benchmark, looks, "clean-robust", "clean", "Clean against robust accuracy")


def pgd_chart(benchmark: Benchmark, looks: Looks) -> Chart | None:
    """Return PGD-50 against the strongest verdict; None if no model has a PGD-50 number."""
    if not any(row.pgd50 for row in benchmark.rows):
        return None
    title = "PGD-50 against the strongest verdict"
    return _scatter(benchmark, looks, "pgd-strongest", "pgd50", title, diagonal=True)


def _scatter(
    benchmark: Benchmark,
    looks: Looks,
    name: str,
    across: Column,
    title: str,
    diagonal: bool = False,
) -> Chart:
    rows = [row for row in benchmark.rows if row.share(across)]
    xs, ys = [_value(row, across) for row in rows], [row.best_known.value for row in rows]
    x_scale, x_ticks = axis(xs, LEFT, _RIGHT, _percent_tick)
    y_scale, y_ticks = axis(ys, _BOTTOM, TOP, _percent_tick)
    places = [(x_scale(x), y_scale(y)) for x, y in zip(xs, ys, strict=True)]
    points = [
        ChartPoint(
            *place,
            looks.mark(row.model.activation, row.training.recipe),
            _point_name(row, across),
            model_place(row.model),
        )
        for row, place in zip(rows, places, strict=True)
    ]
    names = [row.model.activation.partition("(")[0][:24] for row in rows]
    lines = []
    low, high = max(x_scale.low, y_scale.low), min(x_scale.high, y_scale.high)
    if diagonal and low < high:
        ends = [(x_scale(end), y_scale(end)) for end in (low, high)]
        lines.append(ChartLine(path_of(ends), "", "across"))
    return Chart(
        name,
        title,
        f"{COLUMNS[across]}: right (%)",
        "Best known: right (%), an upper bound",
        x_ticks,
        y_ticks,
        _RIGHT,
        points,
        lines,
        (),
        label_alone(names, places, (LEFT, TOP, _RIGHT, _BOTTOM)),
    )


def _point_name(row: Row, across: Column) -> str:
    low, high = row.best_known.interval
    return (
        f"{model_title(row.model)}: {COLUMNS[across]} {percent(_value(row, across))} %, best known "
        f"{percent(row.best_known.value)} % [{percent(low)}, {percent(high)}]"
    )


def _value(row: Row, column: Column) -> float:
    share = row.share(column)
    return share.value if share else 0.0


def _percent_tick(value: float) -> str:
    return f"{100 * value:g}"


# Smooth against ReLU


def comparison_table(benchmark: Benchmark) -> DataTable | None:
    """Return each activation minus ReLU with the same training; None if none can be compared.

    Only `satbench.core.stats.shown` decides which differences are shown.
    """
    if not benchmark.comparisons:
        return None
    ends = [
        abs(end)
        for pair in benchmark.comparisons
        if (effect := pair.effects.get("best_known"))
        for end in (effect.interval or (effect.mean, effect.mean))
    ]
    most = min(max([*ends, 0.01]), _WIDEST)
    columns = [
        PageColumn("activation", "Activation", chosen=True),
        PageColumn("training", "Training", chosen=True, narrow=False),
        PageColumn("architecture", "Architecture", chosen=True, shown=False),
        PageColumn("seeds", "Seeds", "training seeds that both have", "number", narrow=False),
        PageColumn("best_known", "Best known, points", "minus ReLU", "number"),
        PageColumn("chart", f"± {percent(most)}", "the 95 % interval", "number", narrow=False),
        PageColumn("p", "p", "corrected for all comparisons of the column", "number", narrow=False),
        PageColumn("shown", "Shown", "whether a difference is shown", chosen=True),
        PageColumn("autoattack", "AutoAttack", "minus ReLU", "number", shown=False),
        PageColumn("pgd50", "PGD-50", "minus ReLU", "number", shown=False),
    ]
    rows = [_comparison_row(pair, most) for pair in benchmark.comparisons]
    return DataTable("against-relu", "Accuracy minus that of ReLU", columns, rows, "activation")


def _comparison_row(pair: Comparison, most: float) -> list[PageCell]:
    model, training = pair.group.first.model, pair.group.first.training
    effect = pair.effects["best_known"]
    counted = effect.counted
    return [
        spec_cell(model.activation),
        PageCell(recipe_title(training)),
        PageCell(model.architecture),
        PageCell(str(effect.seeds), order=effect.seeds),
        _effect_cell(effect),
        PageCell("", order=effect.mean, span=_span(effect, most)),
        PageCell(order=9) if counted is None else PageCell(f"{counted:.2g}", order=counted),
        PageCell(effect.verdict, style="mark verified" if effect.is_shown else ""),
        *(
            _effect_cell(found) if (found := pair.effects.get(column)) else PageCell(order=-9)
            for column in _COMPARED[1:]
        ),
    ]


def _effect_cell(effect: Effect) -> PageCell:
    text, strong = signed(effect.mean), effect.is_shown
    if effect.interval is None:
        return PageCell(text, "1 seed", effect.mean)
    low, high = (signed(end) for end in effect.interval)
    return PageCell(text, f"[{low}, {high}]", effect.mean, strong=strong)


def _span(effect: Effect, most: float) -> Span:
    low, high = effect.interval or (effect.mean, effect.mean)
    cut = (low < -most, high > most)
    places = [
        round(100 + 92 * min(max(end, -most), most) / most, 1) for end in (low, effect.mean, high)
    ]
    return Span(places[0], places[1], places[2], *cut, effect.is_shown)


# Transfer attacks


def transfer_table(matrix: TransferMatrix, benchmark: Benchmark, number: int) -> DataTable:
    """Return a matrix of transfer attacks as a heat map: one row per target, in board order."""
    order = {model_key(row.model): place for place, row in enumerate(benchmark.rows)}
    tint = _tints([count for target in matrix.targets for count in target.correct])
    columns = [
        PageColumn("target", "Model"),
        PageColumn("clean", "Clean", "right without an attack", "number", narrow=False),
        *(
            PageColumn(f"source-{k}", source.name, "the source", "number", upright=True)
            for k, source in enumerate(matrix.sources, 1)
        ),
        PageColumn("worst", "Worst", "right under all other sources", "number"),
    ]
    targets = [(order.get(model_key(one.model), len(order)), one) for one in matrix.targets]
    lines = []
    for place, target in sorted(targets, key=lambda pair: (pair[0], pair[1].model.name)):
        href = model_place(target.model) if place < len(order) else ""
        cells = [
            _heat(count, matrix.n, tint, white)
            for count, white in zip(target.correct, target.white_box, strict=True)
        ]
        worst = target.worst
        lines.append(
            [
                PageCell(model_title(target.model), href=href),
                PageCell(percent(target.clean_correct / matrix.n), order=target.clean_correct),
                *cells,
                PageCell(order=-1) if worst is None else _heat(worst, matrix.n, tint),
            ]
        )
    caption = "Right (%) after transfer attacks, by source"
    return DataTable(f"transfer-{number}", caption, columns, lines, "target")


def _tints(counts: Sequence[int]) -> Callable[[int], int]:
    """Return a colour for each count: equal counts share one, and all are used about equally."""
    ordered = sorted(counts)
    return lambda count: min(TINTS * bisect_left(ordered, count) // max(len(ordered), 1), TINTS - 1)


def _heat(count: int, n: int, tint: Callable[[int], int], is_itself: bool = False) -> PageCell:
    title = "the source is the model itself" if is_itself else f"{count:,} of {n:,}"
    style = f"heat heat-{tint(count)}{' itself' * is_itself}"
    return PageCell(f"{percent(count / n)}{'*' * is_itself}", order=count, style=style, title=title)


def looks_of_boards(benchmarks: Sequence[Benchmark]) -> Looks:
    """Return the looks of all models of a site."""
    return Looks.of(row.training for one in benchmarks for row in one.rows)
