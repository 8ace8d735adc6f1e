"""Whether an attack has converged, in sentences that follow from the means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from made_study import letters, made_outcome, made_run, made_sheet

from satbench.leaderboard.study_convergence import convergence
from satbench.leaderboard.study_findings import finding, summary
from satbench.leaderboard.study_sheet import Axis, Column, Line, Pair, Sheet

STEPS = {10: "PGD-10", 50: "PGD-50", 100: "PGD-100", 200: "PGD-200"}
RADII = {1.0: "fast", 5.0: "fast at 5 eps"}
NAMES = (*STEPS.values(), *RADII.values())


def sheet_of(arms: Mapping[str, Sequence[int]], seeds: int = 1) -> Sheet:
    """Return a study of 1000 images: how many of them survive in each column, by arm."""
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
    ("relu", "silu", "said"),
    [
        (
            (700, 691, 690, 690, 600, 0),
            (720, 700, 699, 699, 650, 0),
            "Steps beyond *PGD-50* find at most 0.1 points more in any arm, up to *PGD-200*; "
            "*PGD-10* still misses up to 2.1 points (SILU).  *fast at 5 eps* leaves nothing of any "
            "arm.",
        ),
        (
            (690, 690, 690, 690, 600, 3),
            (699, 699, 699, 699, 650, 12),
            "Steps beyond *PGD-10* find no more in any arm, up to *PGD-200*.  *fast at 5 eps* "
            "leaves up to 1.2 % (SILU).",
        ),
        (
            (700, 697, 695, 690, 600, 0),
            (720, 710, 700, 699, 650, 0),
            "No convergence is shown: *PGD-100* still misses up to 0.5 points (ReLU) of what "
            "*PGD-200* finds.  *fast at 5 eps* leaves nothing of any arm.",
        ),
    ],
)
def test_what_more_steps_and_a_larger_radius_find(
    relu: Sequence[int], silu: Sequence[int], said: str
) -> None:
    sheet = sheet_of({"ReLU": relu, "SILU": silu})

    assert said == convergence(sheet)
    assert finding(sheet).startswith(said)
    assert summary(sheet).startswith(said)


def test_means_are_over_the_seeds() -> None:
    kept = (700, 691, 690, 690, 600, 0)

    assert "leaves up to 0.1 % (ReLU)" in convergence(sheet_of({"ReLU": kept}, seeds=2))


def test_a_step_that_stands_out_is_not_called_converged_before_it() -> None:
    # 50 steps come to what 200 do, and 100 do not: that is no convergence from 50 on.
    sheet = sheet_of({"ReLU": (700, 690, 697, 690, 600, 0)})

    assert convergence(sheet).startswith("No convergence is shown: *PGD-100* still misses up to")


def test_nothing_is_said_before_an_arm_is_evaluated_at_both_ends() -> None:
    kept = (700, 691, 690, 690, 600, 0)
    empty = sheet_of({"ReLU": kept, "SILU": kept}, seeds=0)

    assert not convergence(empty)
    asked = replace(empty, pairs=(Pair("SILU", "ReLU"),))
    assert finding(asked).startswith("Nothing can be said yet")
