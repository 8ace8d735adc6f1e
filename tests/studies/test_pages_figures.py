from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from made_study import graded_sheet, made_sheet, with_study

from satbench.core.errors import SatbenchError
from satbench.figures.styles import ACTIVATION_COLOURS
from satbench.studies.design import Axis, Line, Pair, Pool
from satbench.studies.pages.figures import draw, write_figures
from satbench.studies.pages.page import render_page
from satbench.studies.sheet import Shape, Sheet

pytest.importorskip("matplotlib")

SHAPE = Shape("ReLU", (-1.0, 0.0, 1.0), (0.0, 0.0, 1.0), (0.0, 0.0, 1.0))
AXES = (
    Axis("α", (Line("SILU", ((1, "ReLU"), (2, "SILU"))),)),
    Axis("steps", (Line("SILU", ((1, "fast"), (50, "PGD-50"))),), "columns", log=True),
)


@pytest.fixture(scope="module")
def sheet() -> Sheet:
    sheet = graded_sheet({"ReLU": 0, "SILU": 9}, axes=AXES, shapes=(SHAPE,))
    first = sheet.rows[0]
    runs = tuple(replace(run, measures={"cosine": 0.1 * run.seed}) for run in first.runs)
    return replace(sheet, rows=(replace(first, runs=runs), *sheet.rows[1:]))


@pytest.fixture(scope="module")
def drawn(sheet, tmp_path_factory) -> Callable[[str], Path]:
    """A function that draws a kind of figure once and returns its file."""
    folder = tmp_path_factory.mktemp("figures")

    @cache
    def drawn(kind: str) -> Path:
        draw(sheet, kind, folder / f"{kind}.svg")
        return folder / f"{kind}.svg"

    return drawn


@pytest.mark.slow
def test_the_figures_on_a_page_are_those_that_are_written(sheet, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "satbench.studies.pages.figures.draw", lambda sheet, kind, path: path.touch()
    )
    written = {path.name for path in write_figures(sheet, tmp_path) if path.suffix == ".svg"}

    assert {
        "made.svg",
        "made-effects.svg",
        "made-lines-1.svg",
        "made-lines-2.svg",
        "made-measures.svg",
        "made-shapes.svg",
    } == written
    assert all(f"]({name})" in render_page(sheet) for name in written)
    assert {path.with_suffix(".png").name for path in tmp_path.glob("*.svg")} == {
        path.name for path in tmp_path.glob("*.png")
    }


def test_a_study_of_gaps_has_a_figure_of_all_attacks(sheet, tmp_path) -> None:
    gaps = with_study(sheet, about="gaps")
    draw(gaps, "attacks", tmp_path / "made-attacks.svg")
    text = (tmp_path / "made-attacks.svg").read_text(encoding="utf-8")
    words = ["robust accuracy (%)", *(one.name for one in (*gaps.rows, *gaps.columns))]

    assert [] == [word for word in words if f"<!-- {word}" not in text]
    assert "](made-attacks.svg)" in render_page(gaps)


@pytest.mark.parametrize("kind", ["effects", "attacks"])
def test_attacks_have_no_colours_of_their_own(sheet, tmp_path, kind) -> None:
    draw(with_study(sheet, about="gaps"), kind, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text(encoding="utf-8").lower()
    names = set(ACTIVATION_COLOURS) - {"mish"}  # the axes are also black

    drawn = {name for name in names if ACTIVATION_COLOURS[name].lower() in text}
    assert drawn == {"attacks": {"relu", "silu"}, "effects": {"silu"}}[kind]


def test_each_of_more_than_five_activations_has_a_named_panel(sheet, tmp_path) -> None:
    names = ["ReLU", "SILU", "GELU", "ELU", "Mish", "softplus"]
    shapes = tuple(replace(SHAPE, name=name) for name in names)
    draw(replace(sheet, shapes=shapes), "shapes", tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")

    assert [text.count(f"<!-- {name} -->") for name in names] == [1] * len(names)
    assert len(re.findall(r'<g id="axes_\d+">', text)) >= len(names)
    assert "legend" not in text


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("scatter", ["clean accuracy (%)", "PGD-50 (as the paper)", "worse", "SILU"]),
        ("effects", ["PGD-50", "worse", "robust accuracy, minus ReLU (points)", "SILU"]),
        ("lines 0", ["α", "robust accuracy (%)", "PGD-50 (as the paper)"]),
        ("lines 1", ["steps", "robust accuracy (%)", "SILU"]),
        ("measures", ["cosine", "ReLU"]),
        ("shapes", ["f(x)", "f′(x)", "ReLU"]),
    ],
)
def test_a_figure_contains_its_axis_labels_and_names(drawn, kind, words) -> None:
    text = drawn(kind).read_text(encoding="utf-8")

    assert [] == [word for word in words if f"<!-- {word}" not in text]


def test_the_same_sheet_gives_the_same_bytes(sheet, drawn, tmp_path) -> None:
    draw(sheet, "effects", tmp_path / "again.svg")

    assert drawn("effects").read_bytes() == (tmp_path / "again.svg").read_bytes()


def test_another_result_gives_another_figure(sheet, drawn, tmp_path) -> None:
    draw(with_study(sheet, paper_verdict="fast"), "effects", tmp_path / "other.svg")

    assert drawn("effects").read_bytes() != (tmp_path / "other.svg").read_bytes()


def test_the_primary_question_is_a_line_in_the_figure_of_effects(sheet, drawn, tmp_path) -> None:
    pool = Pool("all together", "ReLU", (Pair("SILU", "ReLU"),))
    for name, pairs in (("with", sheet.study.contrasts), ("alone", ())):
        draw(with_study(sheet, primary=pool, contrasts=pairs), "effects", tmp_path / f"{name}.svg")

    texts = [
        path.read_text(encoding="utf-8") for path in (tmp_path / "with.svg", tmp_path / "alone.svg")
    ]
    assert [[True, True], [True, False]] == [
        [f"<!-- {name}" in text for name in ("all together", "SILU")] for text in texts
    ]


@pytest.mark.slow
def test_an_unfinished_study_is_drawn_without_arms_that_have_no_run(sheet, tmp_path) -> None:
    rows = (sheet.rows[0], replace(sheet.rows[1], runs=()))
    for kind in ("scatter", "effects", "lines 0"):
        draw(replace(sheet, rows=rows), kind, tmp_path / f"{kind}.svg")

    assert 3 == len(list(tmp_path.iterdir()))


def test_a_study_without_a_run_has_no_figure(tmp_path) -> None:
    assert [] == write_figures(made_sheet({"a": [], "b": []}, [("a", "b")]), tmp_path)


def test_a_figure_that_a_study_does_not_have_is_refused(tmp_path) -> None:
    with pytest.raises(
        SatbenchError, match="expected one of the figures scatter, effects; got 'shap"
    ):
        draw(graded_sheet({"ReLU": 0, "SILU": 9}), "shapes", tmp_path / "a.svg")
