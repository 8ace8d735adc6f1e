from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_study import graded_sheet, letters, made_run, made_sheet

from satbench.core.errors import SatbenchError
from satbench.leaderboard.study_findings import changes, finding, listed
from satbench.leaderboard.study_page import (
    BEGIN,
    END,
    render_index,
    render_page,
    render_summary,
    with_summary,
)
from satbench.leaderboard.study_sheet import Sheet

GOLDEN = Path(__file__).parents[1] / "golden" / "leaderboard" / "STUDY.md"


def golden_sheet() -> Sheet:
    """A study of three arms, one of them under way, with measures and a run that collapsed."""
    relu = [
        made_run("ReLU", s, letters(60, 30, 10), letters(n, 90 - n, 10), measures={"cosine": 0.5})
        for s, n in enumerate((50, 52, 51))
    ]
    silu = [
        made_run("SILU", s, letters(62, 29, 9), letters(n, 91 - n, 9), measures={"cosine": m})
        for s, (n, m) in enumerate(((60, 0.6), (61, 0.65), (60, 0.7)))
    ]
    warning = {"warning": "held-out PGD-10 accuracy fell from 60.0% to 5.0%"}
    gelu = [made_run("GELU", 0, letters(20, 70, 10), letters(5, 85, 10), held_out=warning)]
    return made_sheet(
        {"ReLU": relu, "SILU": silu, "GELU": gelu}, [("SILU", "ReLU"), ("GELU", "ReLU")]
    )


def test_the_page_of_a_small_study_is_the_golden_one() -> None:
    assert GOLDEN.read_text(encoding="utf-8") == render_page(golden_sheet())


def test_the_page_changes_with_a_single_letter_of_a_single_verdict() -> None:
    sheet = golden_sheet()
    row = sheet.rows[1]
    outcome = row.runs[2].outcomes[1]
    changed = replace(outcome, verdicts=outcome.verdicts.replace("x", "o", 1))
    run = replace(row.runs[2], outcomes=(row.runs[2].outcomes[0], changed))
    rows = (sheet.rows[0], replace(row, runs=(*row.runs[:2], run)), sheet.rows[2])

    assert render_page(sheet) != render_page(replace(sheet, rows=rows))


def test_a_study_without_a_run_has_a_page_that_says_so() -> None:
    page = render_page(made_sheet({"a": [], "b": []}, [("a", "b")]))

    assert "Under way, with 0 of 6 runs evaluated.  Nothing can be said yet: no contrast" in page
    assert "![" not in page


def test_measures_that_the_study_does_not_ask_for_are_not_shown() -> None:
    assert "cosine" not in render_page(replace(golden_sheet(), measures={}))


def test_a_finished_study_is_not_under_way() -> None:
    assert "Under way" not in render_page(graded_sheet({"ReLU": 0, "SILU": 9}))


def test_names_that_are_markdown_are_shown_as_they_are() -> None:
    run = made_run("a|b", 0, letters(2, 2))

    assert "| a\\|b | activation a\\|b | 1 of 3 |" in render_page(made_sheet({"a|b": [run]}))


LEAD = "Judged by *worse* (points, 95 % intervals"


@pytest.mark.parametrize(
    ("lifts", "expected"),
    [
        (
            {"ReLU": 0, "SILU": 9},
            f"{LEAD}), the one arm is shown to be more robust than ReLU: SILU +9.0 [",
        ),
        (
            {"ReLU": 0, "SILU": 8, "ELU": 9},
            f"{LEAD}, answers corrected for 2 contrasts), both arms are shown to be more robust "
            "than ReLU: ELU +9.0 [",
        ),
        (
            {"ReLU": 0, "SILU": 9, "ELU": 0},
            "1 of 2 arms is shown to be more robust than ReLU: SILU +9.0 [",
        ),
        (
            {"ReLU": 0, "SILU": 9, "ELU": 0},
            "; 1 of 2 arms is not shown to differ from ReLU: ELU +0.0 [",
        ),
        (
            {"ReLU": 0, "SILU": -29},
            "the one arm is shown to be less robust than ReLU: SILU −29.0 [",
        ),
        ({"ReLU": 0, "SILU": -29}, "; where an arm is less robust, the effect is reversed at"),
        (
            {"ReLU": 0, "SILU": 0},
            "the one arm is not shown to differ from ReLU: SILU +0.0 [",
        ),
        ({"ReLU": 0, "SILU": 0}, "; an effect is absent, or too small for these seeds and images"),
    ],
)
def test_the_finding_follows_from_the_intervals(lifts, expected) -> None:
    assert expected in finding(graded_sheet(lifts))


def test_a_contrast_with_too_few_seeds_is_named_as_such() -> None:
    sheet = golden_sheet()

    assert "; 1 of 2 arms has too few seeds: GELU −45.0; " in finding(sheet)


def test_contrasts_of_several_baselines_name_theirs() -> None:
    arms = {name: [made_run(name, s, letters(5, 5)) for s in (0, 1)] for name in "abcd"}

    text = finding(made_sheet(arms, [("a", "b"), ("c", "d")]))

    assert "both arms are not shown to differ: a (against b) +0.0 [" in text
    assert "] and c (against d) +0.0 [" in text


def test_a_summary_of_many_arms_names_the_extremes() -> None:
    sheet = graded_sheet({"ReLU": 0, "A": 0, "B": 2, "C": 0, "D": -2})

    assert "not shown to differ from ReLU: from D " in finding(sheet, 2)
    assert " to B +" in finding(sheet, 2)
    assert "C " not in finding(sheet, 2)


def test_a_conclusion_that_the_papers_evaluation_would_change_is_named() -> None:
    text = changes(graded_sheet({"ReLU": 0, "SILU": 9}))

    assert (
        "the conclusion would be another in 1 of the 1 contrasts: SILU not "
        "shown to differ (+0.0 [+0.0, +0.0]), where the verdict is more robust (+9.0 ["
    ) in text


def test_conclusions_that_are_the_same_by_both_are_said_to_be() -> None:
    text = changes(graded_sheet({"ReLU": 0, "SILU": 0}))

    assert text.endswith("would be the same as by *worse* in every contrast.")


def test_what_the_papers_evaluation_hides_is_told_for_the_extremes() -> None:
    assert changes(golden_sheet()).startswith(
        "*PGD-50* reads higher than *worse* by +15.0 points for GELU, and by +1.7 ["
    )


def test_a_study_without_contrasts_is_about_the_gap() -> None:
    sheet = made_sheet({"a": [made_run("a", s, letters(9, 1), letters(2, 8)) for s in (0, 1)]})

    assert finding(sheet).startswith("*PGD-50* reads higher than *worse* by +70.0 [")


@pytest.mark.parametrize(
    ("names", "expected"), [("", ""), ("a", "a"), ("ab", "a and b"), ("abc", "a, b and c")]
)
def test_lists_are_words(names: str, expected: str) -> None:
    assert expected == listed(list(names))


def test_the_summary_has_a_line_a_study_with_a_link_and_its_finding() -> None:
    sheet = graded_sheet({"ReLU": 0, "SILU": 9})
    lines = render_summary([sheet, sheet]).splitlines()

    assert ["| study | of the paper | what satbench found |", 4] == [lines[0], len(lines)]
    assert f"| [made](docs/studies/made.md) | section 4.1 | {finding(sheet)} |" == lines[2]


def test_the_index_links_to_the_pages_beside_it() -> None:
    assert "| [made](made.md) |" in render_index([golden_sheet()])


def test_the_summary_stands_between_its_markers_and_nothing_else_is_touched() -> None:
    expected = f"a\n{BEGIN}\n\nnew\n\n{END}\nb\n"

    assert expected == with_summary(f"a\n{BEGIN}\nold\n{END}\nb\n", "new\n", "README.md")


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_a_readme_without_the_two_markers_is_refused(text: str) -> None:
    with pytest.raises(SatbenchError, match=r"expected the markers .* in README\.md"):
        with_summary(text, "new", "README.md")
