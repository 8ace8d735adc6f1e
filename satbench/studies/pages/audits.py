"""The audits of a study: how far AutoAttack lowered the verdicts, and how far it still could."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from satbench.core.markdown import MISSING, cell, table
from satbench.records.audit import AuditCounts, united_unseen
from satbench.studies.run_file import StudyRun
from satbench.studies.sheet import ArmRuns, Sheet, outcomes_of


@dataclass(frozen=True)
class AuditedRun:
    """An audited run of an arm, on `n` images."""

    arm: str
    run: StudyRun
    counts: AuditCounts
    n: int

    @property
    def lowered(self) -> float:
        """By how much the audit lowered the robust accuracy, as a share of images."""
        return (self.counts.weakest_broken + self.counts.sampled_broken) / self.n


@dataclass(frozen=True)
class AuditTotals:
    """The totals of the audits of some runs; `bound` is in points of their mean robust accuracy."""

    runs: int
    survivors: int
    weakest: int
    weakest_broken: int
    sampled: int
    sampled_broken: int
    lowered: float
    bound: str


def audited_runs(sheet: Sheet, row: ArmRuns) -> list[AuditedRun]:
    """Return the runs of an arm whose verdict includes an audit."""
    found = []
    for run in row.runs:
        for outcome in outcomes_of(sheet, row, run, sheet.study.verdict) or ():
            if outcome.audit is not None:
                found.append(AuditedRun(row.name, run, outcome.audit, outcome.n))
                break
    return found


def audited_once(sheets: Iterable[Sheet]) -> list[AuditedRun]:
    """Return the audited runs of several studies, each once."""
    found: dict[str, AuditedRun] = {}
    for sheet in sheets:
        for row in sheet.rows:
            for one in audited_runs(sheet, row):
                found.setdefault(one.run.key, one)
    return list(found.values())


def totals(runs: Sequence[AuditedRun]) -> AuditTotals | None:
    """Return the totals of the audits of some runs; None without runs.

    `bound` is by how much AutoAttack would still lower the mean, at most, if it attacked every
    survivor, with 95 % confidence (`satbench.core.stats.intervals.pooled_unseen_bound`).
    """
    if not runs:
        return None
    counts = [one.counts for one in runs]
    images = sum(one.n for one in runs)
    return AuditTotals(
        runs=len(runs),
        survivors=sum(one.survivors for one in counts),
        weakest=sum(one.weakest for one in counts),
        weakest_broken=sum(one.weakest_broken for one in counts),
        sampled=sum(one.sampled for one in counts),
        sampled_broken=sum(one.sampled_broken for one in counts),
        lowered=sum(one.lowered for one in runs) / len(runs),
        bound=f"{100 * united_unseen(counts) / images:.2f}",
    )


def audit_table(sheet: Sheet) -> str:
    """Return the table of the audits of a study, arm by arm and in total."""
    each = [(row, audited_runs(sheet, row)) for row in sheet.rows]
    runs = [one for _, ones in each for one in ones]
    head = (
        "arm",
        "runs",
        "survivors",
        "broken of the weakest",
        "broken of the sample",
        "lowered",
        "at most",
    )
    lines = [_line(cell(row.name), totals(ones), row.seeds) for row, ones in each]
    lines.append(_line("**all**", totals(runs), sum(row.seeds for row in sheet.rows)))
    return table(head, lines, 1)


def _line(name: str, one: AuditTotals | None, planned: int) -> tuple[str, ...]:
    if one is None:
        return (name, f"0 of {planned}", *[MISSING] * 5)
    return (
        name,
        f"{one.runs} of {planned}",
        f"{one.survivors:,}",
        f"{one.weakest_broken:,} of {one.weakest:,}",
        f"{one.sampled_broken:,} of {one.sampled:,}",
        f"{100 * one.lowered:.2f}",
        one.bound,
    )
