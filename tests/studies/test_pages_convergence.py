"""Convergence of an attack: the share of images that a smaller effort does not break."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from made_study import letters, made_outcome, made_run, made_sheet

from satbench.studies.design import Axis, Line
from satbench.studies.pages.answers import answer_of
from satbench.studies.pages.convergence import missed_by_effort
from satbench.studies.pages.page import render_page
from satbench.studies.sheet import Column, Sheet

STEPS = {10: "PGD-10", 50: "PGD-50", 100: "PGD-100", 200: "PGD-200"}
RADII = {1.0: "fast", 5.0: "fast at 5 eps"}
NAMES = (*STEPS.values(), *RADII.values())


def sheet_of(arms: Mapping[str, Sequence[int]], seeds: int = 1) -> Sheet:
    """Return a study of 1000 images from the number of survivors in each column, by arm."""
    columns = tuple(Column(name, (name,), "linf:0.1") for name in NAMES)
    runs = {
        arm: [
            made_run(
                arm,
                seed,
                "o",
                outcomes=tuple(
                    made_outcome((name,), letters(n + (seed == 1), 999 - n + (seed != 1)))
                    for name, n in zip(NAMES, kept, strict=True)
                ),
            )
            for seed in range(seeds)
        ]
        for arm, kept in arms.items()
    }
    axes = tuple(
        Axis(label, tuple(Line(arm, tuple(places.items())) for arm in arms), "columns")
        for label, places in (("steps", STEPS), ("eps", RADII))
    )
    return made_sheet(
        runs,
        columns=columns,
        axes=axes,
        about="convergence",
        verdict="fast",
        paper_verdict="PGD-50",
        n=1000,
    )


@pytest.mark.parametrize(
    ("relu", "silu", "expected"),
    [
        (
            (700, 691, 690, 690, 600, 0),
            (720, 700, 699, 699, 650, 0),
            [("SILU", 0.021, False), ("ReLU", 0.001, True), ("ReLU", 0.0, True)],
        ),
        (
            (690, 690, 690, 690, 600, 3),
            (699, 699, 699, 699, 650, 12),
            [("ReLU", 0.0, True), ("ReLU", 0.0, True), ("ReLU", 0.0, True)],
        ),
        (
            (700, 697, 695, 690, 600, 0),
            (720, 710, 700, 699, 650, 0),
            [("SILU", 0.021, False), ("SILU", 0.011, False), ("ReLU", 0.005, False)],
        ),
        # 50 steps break as many as 200, but 100 do not: PGD has not converged at 50.
        (
            (700, 690, 697, 690, 600, 0),
            (700, 690, 690, 690, 600, 0),
            [("ReLU", 0.01, False), ("ReLU", 0.0, False), ("ReLU", 0.007, False)],
        ),
    ],
)
def test_the_missed_share_of_an_effort_is_its_difference_to_the_largest(
    relu: Sequence[int], silu: Sequence[int], expected: list[tuple[str, float, bool]]
) -> None:
    found = missed_by_effort(sheet_of({"ReLU": relu, "SILU": silu}))

    assert [*STEPS.values()][:3] == [one.column for one in found]
    assert {"PGD-200"} == {one.last for one in found}
    assert [(arm, pytest.approx(missed), converged) for arm, missed, converged in expected] == [
        (one.arm, one.missed, one.converged) for one in found
    ]


def test_the_missed_share_of_an_effort_is_a_mean_over_seeds() -> None:
    (first, *_) = missed_by_effort(sheet_of({"ReLU": (700, 691, 690, 690, 600, 0)}, seeds=2))

    assert pytest.approx(0.01) == first.missed


def test_the_page_has_a_line_for_each_effort_and_the_answer_names_the_least_converged_one() -> None:
    sheet = sheet_of({"ReLU": (700, 691, 690, 690, 600, 0)})
    answer = answer_of(sheet)

    assert answer.effort is not None
    assert "PGD-50" == answer.effort.column
    assert "\n| PGD-10 | ReLU | 1.0 |\n| PGD-50 | ReLU | 0.1 |" in render_page(sheet)


def test_without_evaluated_arms_the_page_has_no_convergence_section() -> None:
    kept = (700, 691, 690, 690, 600, 0)
    empty = sheet_of({"ReLU": kept, "SILU": kept}, seeds=0)

    assert () == missed_by_effort(empty)
    assert "## Convergence" not in render_page(empty)
