"""The section of a page about the audits of its runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_study import PGD, letters, made_audit, made_outcome, made_run, made_sheet

from satbench.core.errors import SatbenchError
from satbench.records.audit import AuditCounts, united_unseen
from satbench.studies.pages.audits import (
    AuditTotals,
    audit_table,
    audited_once,
    audited_runs,
    totals,
)
from satbench.studies.pages.page import render_index, render_page, render_summary
from satbench.studies.run_file import StudyRun, read_study_run, write_study_run
from satbench.studies.sheet import Sheet


def _run(arm: str, seed: int, left: int, *audit: int) -> StudyRun:
    """Return a run in which `left` of 100 images survive an audit."""
    text = letters(left, 90 - left, 10)
    outcomes = (made_outcome(PGD, letters(60, 30, 10)), made_audit(text, *audit))
    return made_run(arm, seed, text, outcomes=outcomes)


@pytest.fixture
def sheet() -> Sheet:
    """Return a study of two arms with five audited runs."""
    relu = [_run("ReLU", 0, 49, 5, 1, 10, 0), _run("ReLU", 1, 47, 5, 2, 10, 1)]
    silu = [_run("SILU", s, 55, 5, 0, 10, 0) for s in range(3)]
    return made_sheet({"ReLU": relu, "SILU": silu}, [("SILU", "ReLU")])


def _cells(text: str, name: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def _bound(*survivors: int, broken: int) -> str:
    audits = [AuditCounts(n, 5, 0, 10, broken * (k == 0)) for k, n in enumerate(survivors)]
    return f"{100 * united_unseen(audits) / (100 * len(survivors)):.2f}"


def test_an_arm_shows_the_sums_over_its_runs_and_a_bound_on_the_mean(sheet: Sheet) -> None:
    text = audit_table(sheet)

    # 49 + 1 and 47 + 3 survivors: 4 broken on 2 runs of 100 images.
    relu = ["ReLU", "2 of 3", "100", "3 of 10", "1 of 20", "2.00", _bound(50, 50, broken=1)]
    silu = ["SILU", "3 of 3", "165", "0 of 15", "0 of 30", "0.00", _bound(55, 55, 55, broken=0)]
    assert (relu, silu) == (_cells(text, "ReLU"), _cells(text, "SILU"))
    assert ["5 of 6", "265", "3 of 25", "1 of 50", "0.80"] == _cells(text, r"**all**")[1:6]


def test_the_totals_are_sums_over_runs_with_a_bound_on_their_mean(sheet: Sheet) -> None:
    runs = [one for row in sheet.rows for one in audited_runs(sheet, row)]
    bound = f"{100 * united_unseen([one.counts for one in runs]) / 500:.2f}"

    assert AuditTotals(5, 265, 25, 3, 50, 1, pytest.approx(0.008), bound) == totals(runs)


def test_without_runs_there_are_no_totals() -> None:
    assert totals([]) is None


def test_an_arm_without_runs_shows_no_numbers(sheet: Sheet) -> None:
    without = made_sheet({"ReLU": sheet.rows[0].runs, "GELU": []})

    assert ["0 of 3", "–", "–", "–", "–", "–"] == _cells(audit_table(without), "GELU")[1:]


def test_a_study_without_an_audit_has_no_audit_section() -> None:
    plain = made_sheet({"ReLU": [made_run("ReLU", 0, letters(60, 30, 10))]})

    assert "## Audit" not in render_page(plain)
    assert "audit" not in render_summary([plain])


def test_an_audit_of_another_column_than_the_verdict_is_not_shown(sheet: Sheet) -> None:
    arms = {row.name: row.runs for row in sheet.rows}
    other = made_sheet(arms, [("SILU", "ReLU")], verdict="PGD-50")

    assert "## Audit" not in render_page(other)


def test_the_page_has_the_audit_between_robustness_and_effects(sheet: Sheet) -> None:
    heads = [line for line in render_page(sheet).splitlines() if line.startswith("## ")]

    assert ["## Robustness", "## Audit", "## Effects"] == heads[1:4]


def test_the_overview_counts_a_shared_run_once(sheet: Sheet) -> None:
    assert 5 == len(audited_once([sheet, sheet]))
    twice, once = render_summary([sheet, sheet], "."), render_summary([sheet], ".")
    assert twice.splitlines()[-1] == once.splitlines()[-1]
    assert "3 of the 25 weakest and 1 of 50" in once
    assert render_index([sheet]).endswith(once)


def test_the_counts_of_an_audit_are_written_and_read_back(sheet: Sheet, tmp_path: Path) -> None:
    run = sheet.rows[0].runs[1]
    path = write_study_run(run, tmp_path)

    assert run == read_study_run(path)
    assert AuditCounts(50, 5, 2, 10, 1) == read_study_run(path).outcomes[1].audit


def test_malformed_counts_are_refused(sheet: Sheet, tmp_path: Path) -> None:
    path = write_study_run(sheet.rows[0].runs[1], tmp_path)
    path.write_text(path.read_text().replace('"sampled"', '"drawn"'))

    with pytest.raises(SatbenchError, match="audit: missing field sampled"):
        read_study_run(path)
