"""The page of the paper's claims: questions that studies ask, numbers of the paper, and power."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_study import made_sheet
from test_pages_page import golden_sheet

from satbench.core.errors import SatbenchError
from satbench.core.stats.shown import least_t
from satbench.studies import STUDIES, load_study
from satbench.studies.effects import findings_of, primary_of
from satbench.studies.pages.claims import (
    Claim,
    Question,
    claims_path,
    read_claims,
    render_claims,
)
from satbench.studies.sheet import Sheet

SHIPPED = read_claims(claims_path())


def claim(*questions: Question) -> Claim:
    return Claim("4.1", "A title", "A claim.", "A source.", "made", list(questions), "A reason.")


def lines_of(text: str) -> list[list[str]]:
    """Return the cells of the lines of the only table."""
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    return [[one.strip() for one in line.strip("|").split("|")] for line in rows[2:]]


@pytest.fixture(scope="module")
def sheet() -> Sheet:
    facts = (("recipe", "`fmnist-sat`"), ("network", "`tiny(width=8)`"), ("epochs", "`6`"))
    return replace(golden_sheet(), facts=facts)


def test_each_question_is_asked_by_its_study() -> None:
    assert {one.study for one in SHIPPED} <= set(STUDIES.names())
    for one in SHIPPED:
        study = load_study(one.study)
        asked = {(pair.arm, pair.baseline) for pair in study.contrasts}
        for question in one.questions:
            if question.primary:
                assert study.primary
            else:
                assert (question.arm, question.baseline) in asked


def test_each_difference_of_the_paper_is_among_the_papers_numbers_of_its_study() -> None:
    compared = 0
    for one in SHIPPED:
        paper = load_study(one.study).paper
        if one.study not in ("activations", "gradient-quality"):
            continue
        told = {float(row[-1]) for row in paper.rows if row[-1] != "–"}
        for question in one.questions:
            if question.published is not None:
                assert question.published in told
                compared += 1
    assert compared == 9


def test_a_line_holds_the_effect_its_power_and_the_papers_difference(sheet: Sheet) -> None:
    asked = claim(
        Question(primary=True), Question("SILU", "ReLU", published=9.0), Question("GELU", "ReLU")
    )

    first, second, third = lines_of(render_claims([asked], {"made": sheet}))

    primary, finding = primary_of(sheet), findings_of(sheet)[0]
    assert primary
    assert finding.robust
    assert finding.robust.interval
    assert first[0] == f"**{primary.pair.arm}**"
    low, high = finding.robust.interval
    asked_in_all = len(findings_of(sheet))
    error = (high - low) / 2 / least_t(3, 1)
    assert second[2] == "+9.0"
    assert second[5] == f"{100 * error * least_t(3, asked_in_all):.1f}"
    assert float(second[5]) > 100 * (high - low) / 2
    assert second[6] == finding.verdict
    assert third[5] == "–"  # one seed has no interval


@pytest.mark.parametrize(
    ("published", "said"),
    [(-50.0, "below the interval"), (9.0, "inside the interval"), (50.0, "above the interval")],
)
def test_the_papers_difference_is_below_inside_or_above_the_interval(
    published: float, said: str, sheet: Sheet
) -> None:
    asked = claim(Question("SILU", "ReLU", published=published))
    assert lines_of(render_claims([asked], {"made": sheet}))[0][-1] == said


def test_claims_of_a_study_without_runs_are_left_out(sheet: Sheet) -> None:
    assert lines_of(render_claims([claim(Question("SILU", "ReLU"))], {})) == []


@pytest.mark.parametrize("question", [Question("MISH", "ReLU"), Question(primary=True)])
def test_a_question_that_its_study_does_not_ask_is_refused(question: Question) -> None:
    without = made_sheet({"ReLU": [], "SILU": []}, [("SILU", "ReLU")])
    with pytest.raises(SatbenchError, match="expected a question of the study made"):
        render_claims([claim(question)], {"made": without})


def test_another_schema_is_refused(tmp_path: Path) -> None:
    text = claims_path().read_text(encoding="utf-8").replace("schema = 1", "schema = 2")
    path = tmp_path / "claims.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SatbenchError, match="expected schema 1, got 2"):
        read_claims(path)
