from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_study import graded_sheet, letters, made_run, made_sheet

from satbench.core.errors import SatbenchError
from satbench.studies.design import Pair, Pool
from satbench.studies.pages.answers import MaskedLevels, answer_of
from satbench.studies.pages.page import (
    BEGIN,
    END,
    render_index,
    render_page,
    render_summary,
    with_summary,
)
from satbench.studies.sheet import Sheet

GOLDEN = Path(__file__).parents[1] / "golden" / "STUDY.md"


ELU = tuple(enumerate((54, 57, 55)))


def golden_sheet() -> Sheet:
    """A study of four arms, one of them unfinished, with measures and a collapsed run."""
    relu = [
        made_run("ReLU", s, letters(60, 30, 10), letters(n, 90 - n, 10), measures={"cosine": 0.5})
        for s, n in enumerate((50, 52, 51))
    ]
    silu = [
        made_run("SILU", s, letters(62, 29, 9), letters(n, 91 - n, 9), measures={"cosine": m})
        for s, (n, m) in enumerate(((60, 0.6), (61, 0.65), (60, 0.7)))
    ]
    fell = "catastrophic overfitting in epoch 2; the weights are of another epoch"
    gelu = [made_run("GELU", 0, letters(20, 70, 10), letters(5, 85, 10), notes=(fell,))]
    elu = [made_run("ELU", s, letters(60, 30, 10), letters(n, 90 - n, 10)) for s, n in ELU]
    smooth = (Pair("SILU", "ReLU"), Pair("ELU", "ReLU"))
    return made_sheet(
        {"ReLU": relu, "SILU": silu, "GELU": gelu, "ELU": elu},
        [(name, "ReLU") for name in ("SILU", "GELU", "ELU")],
        primary=Pool("the smooth ones together", "ReLU", smooth),
    )


def test_the_page_of_a_small_study_equals_the_golden_file() -> None:
    assert GOLDEN.read_text(encoding="utf-8") == render_page(golden_sheet())


def test_the_page_changes_with_a_single_letter_of_a_single_verdict() -> None:
    sheet = golden_sheet()
    row = sheet.rows[1]
    outcome = row.runs[2].outcomes[1]
    changed = replace(outcome, verdicts=outcome.verdicts.replace("x", "o", 1))
    run = replace(row.runs[2], outcomes=(row.runs[2].outcomes[0], changed))
    rows = (sheet.rows[0], replace(row, runs=(*row.runs[:2], run)), *sheet.rows[2:])

    assert render_page(sheet) != render_page(replace(sheet, rows=rows))


def test_a_study_without_a_run_has_a_page_without_numbers_or_pictures() -> None:
    sheet = made_sheet({"a": [], "b": []}, [("a", "b")])
    page = render_page(sheet)

    assert (0, 6) == (answer_of(sheet).evaluated, answer_of(sheet).planned)
    assert "| a | activation a | 0 of 3 | – | – | – | – | – | – | – |" in page
    assert "![" not in page


def test_a_measure_that_is_0_in_every_net_gets_a_sentence_instead_of_a_column() -> None:
    sheet = golden_sheet()
    rows = tuple(
        replace(
            row,
            runs=tuple(replace(run, measures={**run.measures, "zeros": 0.0}) for run in row.runs),
        )
        for row in sheet.rows
    )
    page = render_page(replace(sheet, rows=rows, measures={**sheet.measures, "zeros": "share"}))
    told = [line for line in page.splitlines() if "zeros" in line]

    assert 1 == len(told)
    assert told[0].startswith("- **zeros**: share")


def test_measures_that_the_study_does_not_request_are_not_shown() -> None:
    assert "cosine" not in render_page(replace(golden_sheet(), measures={}))


def test_a_finished_study_has_as_many_runs_as_are_planned() -> None:
    answer = answer_of(graded_sheet({"ReLU": 0, "SILU": 9}))

    assert 6 == answer.evaluated == answer.planned


def test_markdown_characters_in_names_are_escaped() -> None:
    run = made_run("a|b", 0, letters(2, 2))

    assert "| a\\|b | activation a\\|b | 1 of 3 |" in render_page(made_sheet({"a|b": [run]}))


POOL = Pool("both together", "ReLU", (Pair("SILU", "ReLU"), Pair("ELU", "ReLU")))


@pytest.mark.parametrize(
    ("lifts", "expected"),
    [
        ({"ReLU": 0, "SILU": 9}, (1, 1, 0)),
        ({"ReLU": 0, "SILU": 8, "ELU": 9}, (2, 2, 0)),
        ({"ReLU": 0, "SILU": 9, "ELU": 0}, (2, 1, 0)),
        ({"ReLU": 0, "SILU": -29}, (1, 0, 1)),
        ({"ReLU": 0, "SILU": 0}, (1, 0, 0)),
    ],
)
def test_the_answer_counts_contrasts_that_are_tested_more_and_less_robust(lifts, expected) -> None:
    answer = answer_of(graded_sheet(lifts))

    assert expected == (answer.tested, answer.more, answer.less)


def test_a_contrast_with_too_few_seeds_is_not_counted_as_tested() -> None:
    assert 2 == answer_of(golden_sheet()).tested  # of three contrasts; GELU has one seed


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("lifts", "mean", "verdict"),
    [((8, 4), 0.06, "more robust"), ((-20, -26), -0.23, "less robust")],
)
def test_the_answer_contains_the_primary_question(lifts, mean: float, verdict: str) -> None:
    sheet = graded_sheet({"ReLU": 0, "SILU": lifts[0], "ELU": lifts[1]}, primary=POOL)
    primary = answer_of(sheet).primary

    assert primary is not None
    assert (pytest.approx(mean), verdict) == (primary.robust.mean, primary.verdict)
    assert f"**{verdict}**" in render_page(sheet).split("\n\n")[2]


def test_an_unfinished_primary_question_uses_the_seeds_that_all_arms_have() -> None:
    sheet = graded_sheet({"ReLU": 0, "SILU": 9, "ELU": 9}, primary=POOL)
    one = (*sheet.rows[:2], replace(sheet.rows[2], runs=sheet.rows[2].runs[:1]))
    none = (*sheet.rows[:2], replace(sheet.rows[2], runs=()))

    assert 1 == answer_of(replace(sheet, rows=one)).primary.robust.seeds
    assert answer_of(replace(sheet, rows=none)).primary.robust is None
    assert render_page(replace(sheet, rows=none))


def test_the_primary_question_is_the_first_line_of_the_effects_and_its_p_is_not_corrected() -> None:
    pool = Pool("the first", "ReLU", (Pair("SILU", "ReLU"),))
    page = render_page(graded_sheet({"ReLU": 0, "SILU": 9, "ELU": 0}, primary=pool))
    first, second = (line.split(" | ") for line in page.splitlines() if "| ReLU | **more" in line)

    assert ["| **primary: the first**", "| SILU"] == [first[0], second[0]]
    assert float(first[5]) == pytest.approx(float(second[5]) / 2, abs=0.0006)


def test_contrasts_that_the_papers_evaluation_would_change_are_counted() -> None:
    lifted, same = graded_sheet({"ReLU": 0, "SILU": 9}), graded_sheet({"ReLU": 0, "SILU": 0})

    assert (1, 1) == (answer_of(lifted).compared, answer_of(lifted).changed)
    assert (1, 0) == (answer_of(same).compared, answer_of(same).changed)


def test_gaps_are_in_ascending_order() -> None:
    gaps = answer_of(golden_sheet()).gaps

    assert "GELU" == gaps[-1].arm
    assert pytest.approx([0.15, sorted(one.gap.mean for one in gaps)[0]]) == [
        gaps[-1].gap.mean,
        gaps[0].gap.mean,
    ]


def masking_sheet() -> Sheet:
    """A study of two nets with little or no masking, and of two that mask their gradients."""
    relu = [
        made_run("ReLU", s, letters(60, 40), letters(n, 100 - n)) for s, n in ((0, 58), (1, 59))
    ]
    silu = [made_run("SILU", s, letters(62, 38)) for s in (0, 1)]
    hard = [made_run("hard", 0, letters(85, 15), letters(0, 100))]
    noisy = [made_run("noisy", 0, letters(20, 80), letters(1, 99))]
    arms = {"ReLU": relu, "SILU": silu, "masked: hard": hard, "masked: noisy": noisy}
    masked = ("masked: hard", "masked: noisy")
    return made_sheet(arms, [("SILU", "ReLU")], about="gaps", masked=masked)


def test_a_masked_model_is_named_with_both_accuracies_and_is_not_a_gap() -> None:
    answer = answer_of(masking_sheet())

    assert MaskedLevels("masked: hard", 0.85, 0.0) == answer.masked
    assert ["SILU", "ReLU"] == [one.arm for one in answer.gaps]


def test_a_masking_study_without_a_run_has_no_accuracies() -> None:
    sheet = masking_sheet()
    rows = tuple(replace(row, runs=()) for row in sheet.rows)
    answer = answer_of(replace(sheet, rows=rows))

    assert (None, ()) == (answer.masked, answer.gaps)


def test_the_summary_has_one_line_per_study_with_a_link() -> None:
    sheet = graded_sheet({"ReLU": 0, "SILU": 9})
    lines = render_summary([sheet, sheet]).splitlines()

    assert ["| study | of the paper | answer |", 4] == [lines[0], len(lines)]
    assert lines[2].startswith("| [made](docs/studies/made.md) | section 4.1 | ")


def test_the_index_links_to_the_pages_in_its_folder() -> None:
    assert "| [made](made.md) |" in render_index([golden_sheet()])


def test_the_summary_replaces_only_the_text_between_its_markers() -> None:
    expected = f"a\n{BEGIN}\n\nnew\n\n{END}\nb\n"

    assert expected == with_summary(f"a\n{BEGIN}\nold\n{END}\nb\n", "new\n", "README.md")


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_a_readme_without_the_two_markers_is_refused(text: str) -> None:
    with pytest.raises(SatbenchError, match=r"expected the markers .* in README\.md"):
        with_summary(text, "new", "README.md")
