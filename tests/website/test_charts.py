"""Charts: the places of points match their numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from satbench.board.board import Benchmark, Board, build_board
from satbench.core.stats.shown import Effect
from satbench.core.threat import Threat
from satbench.figures.styles import ACTIVATION_COLOURS, activation_colour
from satbench.records.curves import Curve, CurveAttack
from satbench.records.record import DatasetInfo, ModelInfo, Record
from satbench.records.transfers import TransferMatrix, TransferSource, TransferTarget
from satbench.studies.run_file import Outcome, StudyRun
from satbench.website.board_charts import (
    TINTS,
    chart_key,
    clean_chart,
    comparison_table,
    looks_of_boards,
    pgd_chart,
    transfer_table,
)
from satbench.website.charts import Chart, Scale, axis, label_alone, path_of, spread, stairs, ticks
from satbench.website.data_table import DataTable, PageCell
from satbench.website.known import KnownBeside, KnownPoint, Series, by_eps, by_steps
from satbench.website.looks import UNKNOWN, Drawn, Looks
from satbench.website.model_charts import eps_chart, steps_chart
from satbench.website.places import model_place

DRAWN = Drawn("#123456", "M0 0")
PGD = "pgd(steps={},step=eps/4,restarts=1,start=uniform,keep=any)"


def number_at(chart: Chart, place: float, *, across: bool) -> float:
    """Return the number at a place of a chart, computed from its first and last tick."""
    found = chart.x_ticks if across else chart.y_ticks
    first, last = found[0], found[-1]
    share = (place - first.place) / (last.place - first.place)
    return float(first.text) + share * (float(last.text) - float(first.text))


def column(table: DataTable, key: str) -> list[PageCell]:
    place = [one.key for one in table.columns].index(key)
    return [row[place] for row in table.rows]


@pytest.fixture(scope="module")
def benchmark(small_board: Board) -> Benchmark:
    return small_board.benchmarks[1]


@pytest.fixture(scope="module")
def looks(benchmark: Benchmark) -> Looks:
    return looks_of_boards([benchmark])


# Scales


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.03, 0.98), (17, 74), (0, 0.5), (5, 5), (0, 0)]
)
def test_ticks_are_evenly_spaced_and_cover_the_values(low: float, high: float) -> None:
    found = ticks(low, high)
    steps = [b - a for a, b in pairwise(found)]

    assert found[0] <= low
    assert high <= found[-1]
    assert 2 <= len(found) <= 9
    assert min(steps) > 0
    assert max(steps) == pytest.approx(min(steps))


def test_an_axis_maps_its_first_and_last_value_to_its_ends() -> None:
    scale, found = axis([0, 0.5], 40, 440)

    assert (scale(0), scale(0.5)) == (40, 440)
    assert [tick.place for tick in found] == [scale(float(tick.text)) for tick in found]


def test_a_logarithmic_scale_has_equal_steps_for_equal_ratios() -> None:
    scale = Scale(1, 100, 0, 200, is_log=True)

    assert [scale(value) for value in (1, 10, 100)] == [0, 100, 200]


def test_stairs_add_corners_and_a_path_joins_them() -> None:
    corners = stairs([(0, 5), (2, 3), (4, 1)])

    assert corners == [(0, 5), (2, 5), (2, 3), (4, 3), (4, 1)]
    assert path_of(corners[:2], closed=True) == "M0 5 L2 5Z"
    assert path_of([]) == ""


@pytest.mark.parametrize("places", [[], [50.0], [50, 50, 50], [0, 0, 99, 100], [3, 2, 1, 0]])
def test_spread_labels_do_not_overlap_and_stay_in_range(places: list[float]) -> None:
    moved = spread(places, 0, 100, 13)
    order = sorted(moved)

    assert all(b - a >= 13 - 1e-6 for a, b in pairwise(order))
    assert all(-1e-6 <= one <= 100 for one in moved)
    assert [sorted(range(len(places)), key=lambda k: places[k])] == [
        sorted(range(len(moved)), key=lambda k: (moved[k], k))
    ]


def test_only_points_without_near_neighbours_have_a_label() -> None:
    labels = label_alone(
        ["a", "b", "c", "long name"], [(50, 50), (55, 50), (200, 80), (390, 20)], (0, 0, 400, 100)
    )

    assert [(one.text, one.anchor) for one in labels] == [("c", "start"), ("long name", "end")]
    assert labels[1].x < 390


# The board


def test_a_point_lies_at_the_numbers_of_its_model(benchmark: Benchmark, looks: Looks) -> None:
    chart = clean_chart(benchmark, looks)

    assert len(chart.points) == len(benchmark.rows)
    for point, row in zip(chart.points, benchmark.rows, strict=True):
        assert number_at(chart, point.x, across=True) == pytest.approx(
            100 * row.clean.value, abs=0.05
        )
        assert number_at(chart, point.y, across=False) == pytest.approx(
            100 * row.best_known.value, abs=0.2
        )
        assert point.href == model_place(row.model)
        assert point.name.startswith(row.model.name)


def test_colour_shows_the_activation_and_shape_the_recipe(
    benchmark: Benchmark, looks: Looks
) -> None:
    points = clean_chart(benchmark, looks).points
    drawn = {
        (row.model.activation, row.training.recipe): point.drawn
        for row, point in zip(benchmark.rows, points, strict=True)
    }

    assert drawn["relu", "sat"].colour == drawn["relu", "standard"].colour == "#0072B2"
    assert drawn["relu", "sat"].shape == drawn["silu", "sat"].shape
    assert drawn["relu", "sat"].shape != drawn["relu", "standard"].shape
    assert drawn["silu", "sat"].colour == ACTIVATION_COLOURS["silu"]
    assert looks.mark("nobody's", "sat").colour == UNKNOWN
    assert activation_colour("nobody's") is None
    colours, markers = chart_key(benchmark, looks)
    assert [one.text for one in colours] == ["elu", "relu", "silu"]
    assert [one.text for one in markers] == ["not known", "sat", "standard"]


def test_the_pgd_chart_leaves_out_models_without_pgd(
    benchmark: Benchmark, looks: Looks, make_record: Callable[..., Record]
) -> None:
    chart = pgd_chart(benchmark, looks)
    assert chart is not None
    measured = [row for row in benchmark.rows if row.pgd50]

    assert len(chart.points) == len(measured) == len(benchmark.rows) - 1
    for point in chart.points:  # no point is above the diagonal
        across = number_at(chart, point.x, across=True)
        assert number_at(chart, point.y, across=False) <= across + 0.5
    (alone,) = build_board([make_record([1, -1], ("square(queries=9)",))]).benchmarks
    assert pgd_chart(alone, looks) is None


def effects_of(benchmark: Benchmark, *effects: Effect) -> Benchmark:
    pair = benchmark.comparisons[0]
    pairs = [replace(pair, effects={"best_known": one}) for one in effects]
    return replace(benchmark, comparisons=tuple(pairs))


def test_a_difference_is_shown_only_if_the_statistics_show_it(
    benchmark: Benchmark,
) -> None:
    shown = Effect(0.1, 3, (0.05, 0.15), p=0.001, adjusted=0.01)
    touching = replace(shown, interval=(-0.01, 0.21))
    corrected = replace(shown, adjusted=0.2)
    single = Effect(0.1, 1)
    table = comparison_table(effects_of(benchmark, shown, touching, corrected, single))
    assert table is not None
    spans = [cell.span for cell in column(table, "chart")]

    assert [cell.text for cell in column(table, "shown")] == [
        "more robust",
        "not shown to differ",
        "not shown to differ",
        "too few seeds",
    ]
    assert [span.is_shown for span in spans if span] == [True, False, False, False]
    assert [cell.strong for cell in column(table, "best_known")] == [True, False, False, False]
    assert [cell.text for cell in column(table, "best_known")] == ["+10.0"] * 4
    assert [cell.text for cell in column(table, "p")] == ["0.01", "0.01", "0.2", "–"]


def test_intervals_share_one_scale_and_wide_ones_are_cut(benchmark: Benchmark) -> None:
    table = comparison_table(
        effects_of(benchmark, Effect(0.05, 3, (0, 0.1)), Effect(-0.2, 3, (-0.9, 0.5)))
    )
    assert table is not None
    first, second = (cell.span for cell in column(table, "chart"))
    assert first is not None
    assert second is not None

    assert first.low == 100  # nothing
    assert first.high - first.mean == pytest.approx(first.mean - first.low)
    assert (second.low, second.high) == (8, 192)
    assert (first.cut_low, first.cut_high, second.cut_low, second.cut_high) == (0, 0, 1, 1)


def test_a_board_without_twins_has_no_comparison_table(make_record: Callable[..., Record]) -> None:
    (one,) = build_board([make_record([1, -1])]).benchmarks
    assert comparison_table(one) is None


def matrix_of(models: Sequence[ModelInfo], counts: Sequence[Sequence[int]]) -> TransferMatrix:
    from synthetic_records import ENVIRONMENT

    sources = [TransferSource(f"s{k}", {f"s{k}": "0" * 64}, 1, 1) for k in range(len(counts[0]))]
    targets = [
        TransferTarget(model, 150, list(row), [k == 0 for k in range(len(row))], min(row), [], 1)
        for model, row in zip(models, counts, strict=True)
    ]
    info = DatasetInfo("shapes", "test", 200, 10, "0" * 64)
    return TransferMatrix(
        "0" * 64, info, "linf", "0.1", 0, "transfer", sources, targets, ENVIRONMENT
    )


def test_the_heat_map_follows_the_order_of_the_board_and_is_coloured_by_rank(
    benchmark: Benchmark,
) -> None:
    models = [row.model for row in benchmark.rows[:3]]
    stranger = replace(models[0], name="stranger", weights_digest="f" * 64)
    matrix = matrix_of([stranger, *models[::-1]], [(10, 20), (30, 40), (50, 60), (70, 80)])
    table = transfer_table(matrix, benchmark, 1)
    cells = [cell for key in ("source-1", "source-2") for cell in column(table, key)]
    tints = {
        float(cell.order): int(cell.style.split()[1].removeprefix("heat-"))
        for cell in cells
        if cell.order is not None
    }

    assert [cell.text for cell in column(table, "target")] == [
        *(model.name for model in models),
        "stranger",
    ]
    assert [bool(cell.href) for cell in column(table, "target")] == [True, True, True, False]
    assert [cell.text for cell in column(table, "source-1")] == ["35.0*", "25.0*", "15.0*", "5.0*"]
    assert [cell.text for cell in column(table, "source-2")] == ["40.0", "30.0", "20.0", "10.0"]
    in_order = [tints[count] for count in sorted(tints)]
    assert in_order == sorted(in_order)
    assert in_order[0] == 0
    assert len(set(in_order)) == 8
    assert max(in_order) < TINTS
    assert [one.title for one in table.columns][2:4] == ["s0", "s1"]


# A model


def outcome(suite: str, threat: str, verdicts: str, digest: str = "d") -> Outcome:
    return Outcome((suite,), threat, "shapes", digest, 0, verdicts, 1, 1, "r")


def study_run(*outcomes: Outcome, **more: Any) -> StudyRun:
    values: dict[str, Any] = {"architecture": "tiny", "activation": "relu", "parameters": 1}
    values |= {"key": "k", "model": "m", "seed": 0, "training": {}, "command": ""}
    values |= {"weights_digest": "w", "outcomes": outcomes} | more
    return StudyRun(**values)


def test_the_eps_chart_has_one_series_per_suite_on_the_same_images() -> None:
    run = study_run(
        outcome("square(queries=9)", "linf:0.2", "oxx-"),
        outcome("square(queries=9)", "linf:0.1", "ooo-"),
        outcome("square(queries=9)", "linf:0.1", "oooo", digest="other"),
        outcome("square(queries=9)", "l2:1", "oooo"),
        outcome(PGD.format(2), "linf:0.1", "oooo"),
    )
    (series,) = by_eps([run], "d", "linf")

    assert series.points == [KnownPoint(0.1, 3, 4), KnownPoint(0.2, 1, 4)]
    assert by_eps([run], "e", "linf") == []


def test_the_steps_chart_shows_only_plain_pgd(make_record: Callable[..., Record]) -> None:
    threat = Threat.parse("linf:0.1")
    run = study_run(
        outcome(PGD.format(10), "linf:0.1", "ooo-"),
        outcome(PGD.format(10), "linf:0.1", "oox-"),
        outcome(PGD.format(10).replace("any", "any,backward=softplus"), "linf:0.1", "x---"),
        outcome(PGD.format(10).replace("restarts=1", "restarts=5"), "linf:0.1", "x---"),
        outcome(PGD.format(20), "linf:0.2", "x---"),
        outcome("pgd(", "linf:0.1", "x---"),
    )
    record = make_record([0, 1, 3, -1])  # PGD-50, then AutoAttack
    series = by_steps([run], [record], "d", threat)

    assert series is not None
    assert series.points == [KnownPoint(10, 2, 4), KnownPoint(50, 2, 4)]
    assert by_steps([], [record], "d", threat) is None


def test_a_model_gets_only_its_own_runs_and_curves(curve: Curve) -> None:
    model = ModelInfo("m", "zoo", "tiny", "relu", 1, "w", {})
    other = replace(model, activation="silu")
    known = KnownBeside({"w": [study_run()]}, {"w": [curve]})

    assert known.runs_of(model) == [study_run()]
    assert known.curve_of(model, "d", "linf") == curve
    assert known.runs_of(other) == []
    assert known.curve_of(other, "d", "linf") is None
    assert known.curve_of(model, "d", "l2") is None
    assert known.curve_of(model, "e", "linf") is None
    assert known.runs_of(replace(model, answers="1 2")) == []


@pytest.fixture
def curve() -> Curve:
    from synthetic_records import ENVIRONMENT

    return Curve(
        "0" * 64,
        ModelInfo("m", "zoo", "tiny", "relu", 1, "w", {}),
        DatasetInfo("shapes", "test", 4, 10, "d"),
        [1, 2, 2],
        0.25,
        "linf",
        0,
        [CurveAttack("fab-t", 3, 3, 3, 1, 1)],
        [],
        0.2,
        [0.0, 0.05, 0.1, 0.2],
        "0" * 64,
        ENVIRONMENT,
    )


def test_the_curve_is_drawn_as_steps(curve: Curve) -> None:
    series = [Series("best known", [KnownPoint(0, 3, 4), KnownPoint(0.1, 1, 4)], is_board=True)]
    chart = eps_chart("e", "linf", series, curve, DRAWN)
    assert chart is not None
    line = next(one for one in chart.lines if one.style == "data")
    corners = [tuple(map(float, one.split())) for one in line.path.removeprefix("M").split(" L")]
    shares = [number_at(chart, y, across=False) for _, y in corners]

    assert shares[:6] == pytest.approx([75, 75, 50, 50, 25, 25], abs=0.05)
    assert [number_at(chart, x, across=True) for x, _ in corners[:3]] == pytest.approx(
        [0, 0.05, 0.05], abs=0.001
    )
    assert [point.hollow for point in chart.points] == [False, False]
    assert "25.0 %" in chart.points[1].name
    assert {label.text for label in chart.labels} == {"best known", "curve"}
    assert len(chart.bands) == 1


def test_a_series_with_only_radius_0_has_no_eps_chart() -> None:
    series = [Series("best known", [KnownPoint(0, 3, 4)], is_board=True)]
    assert eps_chart("e", "linf", series, None, DRAWN) is None


def test_the_steps_chart_lies_between_clean_and_best_known() -> None:
    series = Series("PGD", [KnownPoint(1, 3, 4), KnownPoint(10, 2, 4), KnownPoint(100, 2, 4)])
    chart = steps_chart("s", series, 1.0, 0.25, DRAWN)
    heights = [number_at(chart, point.y, across=False) for point in chart.points]
    lines = [one.path for one in chart.lines if one.style == "across"]

    assert heights == pytest.approx([75, 50, 50], abs=0.05)
    assert [tick.text for tick in chart.x_ticks] == ["1", "10", "100"]
    assert chart.points[2].x - chart.points[1].x == pytest.approx(
        chart.points[1].x - chart.points[0].x
    )
    assert len(lines) == 2
    assert {label.text for label in chart.labels} == {"clean", "best known", "PGD"}
