"""What the audits of a study saw: how far AutoAttack lowered the verdicts, and still could."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from satbench.leaderboard.audit import AuditCounts, united_unseen
from satbench.leaderboard.markdown import MISSING, cell, table
from satbench.leaderboard.study_record import StudyRun
from satbench.leaderboard.study_sheet import Row, Sheet, outcomes_of

_INTRO = """\
Of each run AutoAttack in full met those survivors that came nearest to being broken, and a random
sample of the others, drawn anew for each run.  What it broke counts as broken.  **Lowered** is what
that took off the robust accuracy of the suite before it, in points, mean over runs.  **At most** is
what AutoAttack would still take off the mean if it met every survivor: a one-sided 95 % bound for
each line by itself (Clopper & Pearson, 1934; for unlike runs Hoeffding, 1956)."""


@dataclass(frozen=True)
class Audited:
    """A run of an arm that was audited, on `n` images."""

    arm: str
    run: StudyRun
    counts: AuditCounts
    n: int

    @property
    def lowered(self) -> float:
        """What the audit took off the robust accuracy, as a share of images."""
        return (self.counts.weakest_broken + self.counts.sampled_broken) / self.n


def render_audit(sheet: Sheet) -> str:
    """Return what the audits of a study saw, arm by arm; nothing where no run was audited."""
    each = [(row, audited_runs(sheet, row)) for row in sheet.rows]
    runs = [one for _, ones in each for one in ones]
    if not runs:
        return ""
    head = (
        "arm",
        "runs",
        "survivors",
        "broken of the weakest",
        "broken of the sample",
        "lowered",
        "at most",
    )
    lines = [_line(cell(row.name), ones, row.seeds) for row, ones in each]
    planned = sum(row.seeds for row in sheet.rows)
    lines.append(_line("**all**", runs, planned))
    return "\n\n".join((_INTRO, told(runs), table(head, lines, 1)))


def told(runs: Sequence[Audited]) -> str:
    """Return in sentences what audits saw, and what they bound."""
    weakest, weakest_broken, sampled, broken = _sums(runs)
    said = (
        f"In {_counted(len(runs), 'run')} AutoAttack broke {weakest_broken:,} of the "
        f"{weakest:,} weakest survivors and {broken:,} of {sampled:,} sampled at random"
    )
    most = max(runs, key=lambda one: one.lowered)
    if most.lowered:
        said += (
            f", up to {100 * most.lowered:.1f} points of robust accuracy in a single run "
            f"({cell(most.arm)}, seed {most.run.seed})"
        )
    return (
        f"{said}.  With 95 % confidence it would lower the mean over "
        f"{'these runs' if len(runs) > 1 else 'its images'} by no more than {_bound(runs)} points "
        "if it met all the survivors that it did not."
    )


def audited_runs(sheet: Sheet, row: Row) -> list[Audited]:
    """Return the runs of an arm whose verdict rests on an audit."""
    found = []
    for run in row.runs:
        for outcome in outcomes_of(sheet, row, run, sheet.verdict) or ():
            if outcome.audit is not None:
                found.append(Audited(row.name, run, outcome.audit, outcome.n))
                break
    return found


def audited_once(sheets: Iterable[Sheet]) -> list[Audited]:
    """Return the audited runs of several studies, each once."""
    found: dict[str, Audited] = {}
    for sheet in sheets:
        for row in sheet.rows:
            for one in audited_runs(sheet, row):
                found.setdefault(one.run.key, one)
    return list(found.values())


def _line(name: str, runs: Sequence[Audited], planned: int) -> tuple[str, ...]:
    if not runs:
        return (name, f"0 of {planned}", *[MISSING] * 5)
    weakest, weakest_broken, sampled, broken = _sums(runs)
    survivors = sum(one.counts.survivors for one in runs)
    lowered = 100 * sum(one.lowered for one in runs) / len(runs)
    return (
        name,
        f"{len(runs)} of {planned}",
        f"{survivors:,}",
        f"{weakest_broken:,} of {weakest:,}",
        f"{broken:,} of {sampled:,}",
        f"{lowered:.2f}",
        _bound(runs),
    )


def _sums(runs: Sequence[Audited]) -> tuple[int, int, int, int]:
    counts = [one.counts for one in runs]
    return (
        sum(one.weakest for one in counts),
        sum(one.weakest_broken for one in counts),
        sum(one.sampled for one in counts),
        sum(one.sampled_broken for one in counts),
    )


def _bound(runs: Sequence[Audited]) -> str:
    """Return the bound in points of the mean robust accuracy of some runs."""
    unseen = united_unseen([one.counts for one in runs])
    return f"{100 * unseen / sum(one.n for one in runs):.2f}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
