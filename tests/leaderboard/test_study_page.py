from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from made_study import graded_sheet, letters, made_run, made_sheet

from satbench.core.errors import SatbenchError
from satbench.leaderboard.study_findings import changes, finding, listed, summary
from satbench.leaderboard.study_page import (
    BEGIN,
    END,
    render_index,
    render_page,
    render_summary,
    with_summary,
)
from satbench.leaderboard.study_sheet import Pair, Pool, Sheet

GOLDEN = Path(__file__).parents[1] / "golden" / "leaderboard" / "STUDY.md"


ELU = tuple(enumerate((54, 57, 55)))


def golden_sheet() -> Sheet:
    """A study of four arms, one of them under way, with measures and a run that collapsed."""
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
    elu = [made_run("ELU", s, letters(60, 30, 10), letters(n, 90 - n, 10)) for s, n in ELU]
    smooth = (Pair("SILU", "ReLU"), Pair("ELU", "ReLU"))
    return made_sheet(
        {"ReLU": relu, "SILU": silu, "GELU": gelu, "ELU": elu},
        [(name, "ReLU") for name in ("SILU", "GELU", "ELU")],
        primary=Pool("the smooth ones together", "ReLU", smooth),
    )


def test_the_page_of_a_small_study_is_the_golden_one() -> None:
    assert GOLDEN.read_text(encoding="utf-8") == render_page(golden_sheet())


def test_the_page_changes_with_a_single_letter_of_a_single_verdict() -> None:
    sheet = golden_sheet()
    row = sheet.rows[1]
    outcome = row.runs[2].outcomes[1]
    changed = replace(outcome, verdicts=outcome.verdicts.replace("x", "o", 1))
    run = replace(row.runs[2], outcomes=(row.runs[2].outcomes[0], changed))
    rows = (sheet.rows[0], replace(row, runs=(*row.runs[:2], run)), *sheet.rows[2:])

    assert render_page(sheet) != render_page(replace(sheet, rows=rows))


def test_a_study_without_a_run_has_a_page_that_says_so() -> None:
    page = render_page(made_sheet({"a": [], "b": []}, [("a", "b")]))

    assert "Under way, with 0 of 6 runs evaluated.  Nothing can be said yet: no contrast" in page
    assert "![" not in page


def test_a_measure_that_is_0_in_every_net_has_a_sentence_and_no_column() -> None:
    sheet = golden_sheet()
    rows = tuple(
        replace(
            row,
            runs=tuple(replace(run, measures={**run.measures, "zeros": 0.0}) for run in row.runs),
        )
        for row in sheet.rows
    )
    page = render_page(replace(sheet, rows=rows, measures={**sheet.measures, "zeros": "share"}))
    (said,) = [line for line in page.splitlines() if "zeros" in line]

    assert said == "- **zeros**: share; 0 in every net, and so left out below"


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

    assert "; 1 of 3 arms has too few seeds: GELU −45.0." in finding(sheet)


def test_contrasts_of_several_baselines_name_theirs() -> None:
    arms = {name: [made_run(name, s, letters(5, 5)) for s in (0, 1)] for name in "abcd"}

    text = finding(made_sheet(arms, [("a", "b"), ("c", "d")]))

    assert (
        "in neither contrast is the arm shown to differ from its baseline: a (against b) +0.0 ["
        in text
    )
    assert "] and c (against d) +0.0 [" in text


def test_of_more_than_four_arms_that_are_not_shown_to_differ_the_range_is_told() -> None:
    text = finding(graded_sheet({"ReLU": 0, "A": 0, "B": 2, "C": 0, "D": -2, "E": 1}))

    assert "none of the 5 arms is shown to differ from ReLU: from D −2.0 [" in text
    assert "] to B +2.0 [" in text
    assert not {"A +", "C +", "E +"} & {text[i : i + 3] for i in range(len(text))}


def test_four_arms_that_are_not_shown_to_differ_are_named_one_by_one() -> None:
    text = finding(graded_sheet({"ReLU": 0, "A": 0, "B": 2, "C": 0, "D": -2}))

    assert [] == [name for name in "ABCD" if f"{name} " not in text]


def test_more_than_four_arms_that_are_shown_are_named_without_intervals() -> None:
    text = finding(graded_sheet({"ReLU": 0, "A": -30, "B": -32, "C": -31, "D": -29, "E": -33}))

    assert ": D −29.0, A −30.0, C −31.0, B −32.0 and E −33.0; where an arm is less" in text


POOL = Pool("both together", "ReLU", (Pair("SILU", "ReLU"), Pair("ELU", "ReLU")))


@pytest.mark.parametrize(
    ("lifts", "expected"),
    [
        (
            (8, 4),
            r"^Both together against ReLU: \+6\.0 \[\S+, \S+\] points \(95 % interval\) by "
            r"\*worse\*, 3 seeds: \*\*shown to be more robust\*\*; by \*PGD-50\* alone \+0\.0 "
            r"\[\+0\.0, \+0\.0\], not shown to differ\.  One by one, corrected for their number, ",
        ),
        ((-20, -26), r"−23\.0 .*\*\*shown to be less robust\*\* \(the effect is reversed at this "),
        ((1, -1), r"\*\*not shown to differ\*\* \(a common effect is absent, or too small"),
    ],
)
def test_the_finding_leads_with_the_answer_to_the_primary_question(lifts, expected) -> None:
    sheet = graded_sheet({"ReLU": 0, "SILU": lifts[0], "ELU": lifts[1]}, primary=POOL)

    assert re.search(expected, finding(sheet))


def test_a_primary_question_under_way_is_told_with_the_seeds_that_there_are() -> None:
    sheet = graded_sheet({"ReLU": 0, "SILU": 9, "ELU": 9}, primary=POOL)
    rows = (*sheet.rows[:2], replace(sheet.rows[2], runs=sheet.rows[2].runs[:1]))
    none = (*sheet.rows[:2], replace(sheet.rows[2], runs=()))

    assert " points (95 % interval) by *worse*, 1 seed: **too few seeds**" in finding(
        replace(sheet, rows=rows)
    )
    assert "there is no seed for which all of them are evaluated.  One by one" in finding(
        replace(sheet, rows=none)
    )


def test_the_primary_question_is_the_first_line_of_the_effects_and_its_p_is_not_corrected() -> None:
    pool = Pool("the first", "ReLU", (Pair("SILU", "ReLU"),))
    page = render_page(graded_sheet({"ReLU": 0, "SILU": 9, "ELU": 0}, primary=pool))
    first, second = (line.split(" | ") for line in page.splitlines() if "| ReLU | **more" in line)

    assert ["| **primary: the first**", "| SILU"] == [first[0], second[0]]
    assert float(first[5]) == pytest.approx(float(second[5]) / 2, abs=0.0006)
    assert "It is the contrast of SILU." in page


def test_a_summary_has_the_primary_answer_and_counts_the_others() -> None:
    text = summary(graded_sheet({"ReLU": 0, "SILU": 9, "ELU": 0}, primary=POOL))

    assert text.startswith("Both together against ReLU: +4.5 [")
    assert text.endswith("  Of 2 single contrasts, the arm is shown to be more robust in 1.")


def test_a_summary_of_contrasts_that_show_nothing_says_so() -> None:
    text = summary(graded_sheet({"ReLU": 0, "SILU": 1, "ELU": 0}, primary=POOL))

    assert text.endswith(", likewise.  In none of 2 single contrasts is the arm shown to differ.")


def test_many_arms_with_too_few_seeds_are_counted() -> None:
    sheet = graded_sheet({name: 9 * (name == "F") for name in "ABCDEFG"})
    rows = [replace(row, runs=row.runs[: 1 + 2 * (row.name in "AF")]) for row in sheet.rows]

    assert "; 5 of 6 arms have too few seeds." in finding(replace(sheet, rows=tuple(rows)))


def test_a_conclusion_that_the_papers_evaluation_would_change_is_named() -> None:
    text = changes(graded_sheet({"ReLU": 0, "SILU": 9}))

    assert (
        "the conclusion would be another in 1 of the 1 contrasts: SILU not "
        "shown to differ (+0.0 [+0.0, +0.0]), where the verdict is more robust (+9.0 ["
    ) in text


def test_of_many_conclusions_that_would_change_only_the_arms_are_named() -> None:
    text = changes(graded_sheet({"ReLU": 0, "A": -30, "B": -32, "C": -31, "D": -29, "E": -33}))

    assert text.endswith("would be another in 5 of the 5 contrasts: A, B, C, D and E.")


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


def masking_sheet() -> Sheet:
    """A study of two nets that hide little or nothing, and of two that hide all."""
    relu = [
        made_run("ReLU", s, letters(60, 40), letters(n, 100 - n)) for s, n in ((0, 58), (1, 59))
    ]
    silu = [made_run("SILU", s, letters(62, 38)) for s in (0, 1)]
    hard = [made_run("hard", 0, letters(85, 15), letters(0, 100))]
    noisy = [made_run("noisy", 0, letters(20, 80), letters(1, 99))]
    arms = {"ReLU": relu, "SILU": silu, "masked: hard": hard, "masked: noisy": noisy}
    masked = ("masked: hard", "masked: noisy")
    return made_sheet(arms, [("SILU", "ReLU")], about="gaps", masked=masked)


def test_a_study_of_masking_says_what_the_papers_attack_misses_and_what_it_reads() -> None:
    text = finding(masking_sheet())

    assert re.match(
        r"What \*PGD-50\* misses of what \*worse\* finds, in ordinary nets: \+1\.5 \[\S+ \S+\] "
        r"\(ReLU\) and \+0\.0 \[\+0\.0, \+0\.0\] \(SILU\) points\.  Where the gradient is masked, "
        r"\*PGD-50\* and \*worse\* read 85\.0 against 0\.0 % \(masked: hard\) and 20\.0 "
        r"against 1\.0 % \(masked: noisy\)\.  Judged by ",
        text,
    )


def test_the_summary_of_a_study_of_masking_names_the_extremes() -> None:
    pool = Pool("SILU alone", "ReLU", (Pair("SILU", "ReLU"),))
    text = summary(replace(masking_sheet(), primary=pool))

    assert "in ordinary nets: +0.0 [+0.0, +0.0] (SILU) to +1.5 [" in text
    assert "read up to 85.0 against 0.0 % (masked: hard).  SILU alone against ReLU: +3.5 [" in text


def test_a_study_of_masking_without_a_run_says_so_once() -> None:
    sheet = masking_sheet()
    rows = tuple(replace(row, runs=()) for row in sheet.rows)

    assert finding(replace(sheet, rows=rows)) == (
        "Nothing can be said yet: no run has both *PGD-50* and *worse*."
    )


@pytest.mark.parametrize(
    ("names", "expected"), [("", ""), ("a", "a"), ("ab", "a and b"), ("abc", "a, b and c")]
)
def test_lists_are_words(names: str, expected: str) -> None:
    assert expected == listed(list(names))


def test_the_summary_has_a_line_a_study_with_a_link_and_its_finding() -> None:
    sheet = graded_sheet({"ReLU": 0, "SILU": 9})
    lines = render_summary([sheet, sheet]).splitlines()

    assert ["| study | of the paper | what satbench found |", 4] == [lines[0], len(lines)]
    assert f"| [made](docs/studies/made.md) | section 4.1 | {summary(sheet)} |" == lines[2]


def test_the_index_links_to_the_pages_beside_it() -> None:
    assert "| [made](made.md) |" in render_index([golden_sheet()])


def test_the_summary_stands_between_its_markers_and_nothing_else_is_touched() -> None:
    expected = f"a\n{BEGIN}\n\nnew\n\n{END}\nb\n"

    assert expected == with_summary(f"a\n{BEGIN}\nold\n{END}\nb\n", "new\n", "README.md")


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_a_readme_without_the_two_markers_is_refused(text: str) -> None:
    with pytest.raises(SatbenchError, match=r"expected the markers .* in README\.md"):
        with_summary(text, "new", "README.md")
