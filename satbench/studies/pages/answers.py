"""The numbers of a study's answer, for the sentences of its page, the index and the README."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from satbench.core.stats.shown import Effect
from satbench.studies.effects import Finding, accuracies, findings_of, gap_of, primary_of
from satbench.studies.pages.convergence import Missed, missed_by_effort
from satbench.studies.sheet import Sheet


@dataclass(frozen=True)
class Gap:
    """By how much the paper's evaluation is above the verdict, for one arm."""

    arm: str
    gap: Effect


@dataclass(frozen=True)
class MaskedLevels:
    """The robust accuracy of a masked model, as a share, by both evaluations."""

    arm: str
    paper: float
    verdict: float


@dataclass(frozen=True)
class Answer:
    """The answer that the runs of a study give.

    `evaluated` of `planned` runs are evaluated.  Of `tested` single contrasts with at least two
    seeds, `more` and `less` are shown to be more and less robust.  `gaps` are those of the arms
    that are not masked, the least first; `masked` is the masked model with the widest gap.  Of
    `compared` questions that both evaluations answer, they answer `changed` differently.  `effort`
    is the least effort of an attack that counts as converged.
    """

    verdict: str
    paper: str
    evaluated: int
    planned: int
    primary: Finding | None
    tested: int
    more: int
    less: int
    gaps: tuple[Gap, ...]
    masked: MaskedLevels | None
    compared: int
    changed: int
    effort: Missed | None


def answer_of(sheet: Sheet) -> Answer:
    """Return the answer that the runs of a study give."""
    study = sheet.study
    found, primary = findings_of(sheet), primary_of(sheet)
    tested = [one for one in found if one.verdict != "too few seeds"]
    compared = [
        one
        for one in (*found, *filter(None, (primary,)))
        if one.robust and one.paper and one.verdict != "too few seeds"
    ]
    return Answer(
        verdict=study.verdict,
        paper=study.paper_verdict,
        evaluated=sum(len(accuracies(sheet, row, study.verdict)) for row in sheet.rows),
        planned=sum(row.seeds for row in sheet.rows),
        primary=primary,
        tested=len(tested),
        more=sum(one.verdict == "more robust" for one in tested),
        less=sum(one.verdict == "less robust" for one in tested),
        gaps=_gaps(sheet),
        masked=_masked(sheet),
        compared=len(compared),
        changed=sum(one.changes for one in compared),
        effort=next((one for one in missed_by_effort(sheet) if one.converged), None),
    )


def _gaps(sheet: Sheet) -> tuple[Gap, ...]:
    found = [
        Gap(row.name, gap)
        for row in sheet.rows
        if row.name not in sheet.study.masked and (gap := gap_of(sheet, row))
    ]
    return tuple(sorted(found, key=lambda one: one.gap.mean))


def _masked(sheet: Sheet) -> MaskedLevels | None:
    """Return the masked model with the largest difference between the two evaluations."""
    found = []
    for name in sheet.study.masked:
        row = sheet.row(name)
        paper = accuracies(sheet, row, sheet.study.paper_verdict)
        verdict = accuracies(sheet, row, sheet.study.verdict)
        if seeds := paper.keys() & verdict.keys():
            levels = (fmean(side[seed] for seed in seeds) for side in (paper, verdict))
            found.append(MaskedLevels(name, *levels))
    return max(found, key=lambda one: one.paper - one.verdict, default=None)
