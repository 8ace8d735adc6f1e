"""The page of the paper's claims: each with the questions of the study that tests it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from satbench.core.content import content_folder
from satbench.core.errors import SatbenchError
from satbench.core.markdown import MISSING, cell, signed, table
from satbench.core.schema import read_toml
from satbench.core.stats.shown import Effect, least_t
from satbench.core.templates import fill
from satbench.studies.effects import Finding, findings_of, primary_of
from satbench.studies.pages.tables import effect_text
from satbench.studies.sheet import Sheet

SCHEMA = 1
HEADINGS = (
    *("arm", "baseline", "paper", "here", "seeds", "smallest difference shown"),
    *("answer", "here by the paper's attack", "the paper's difference"),
)


@dataclass(frozen=True)
class Question:
    """A contrast of a study, or its primary question; `published` is the paper's, in points."""

    arm: str = ""
    baseline: str = ""
    primary: bool = False
    published: float | None = None


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, the study that tests it, and results that would change our answer."""

    section: str
    title: str
    claim: str
    published: str
    study: str
    questions: list[Question]
    mind: str


@dataclass(frozen=True)
class _ClaimsFile:
    schema: int
    claims: list[Claim]


def claims_path() -> Path:
    """Return the file of the claims."""
    return content_folder("leaderboard") / "studies" / "claims.toml"


def read_claims(path: Path) -> list[Claim]:
    """Read the claims.  Raises SatbenchError, naming file and field."""
    read = read_toml(path, "claims", _ClaimsFile)
    if read.schema != SCHEMA:
        raise SatbenchError(f"{path}: expected schema {SCHEMA}, got {read.schema}")
    return read.claims


def render_claims(claims: Sequence[Claim], sheets: Mapping[str, Sheet]) -> str:
    """Return the page; claims of studies without a sheet are left out.

    Raises SatbenchError for a question that is not in its study.
    """
    found = [_section(one, sheets[one.study]) for one in claims if one.study in sheets]
    return fill("claims.md", {"claims": found}, {"cell": cell})


def _section(claim: Claim, sheet: Sheet) -> dict[str, object]:
    findings, primary = findings_of(sheet), primary_of(sheet)
    lines = []
    for question in claim.questions:
        finding = _finding(question, findings, primary, claim)
        lines.append(_line(question, finding, 1 if question.primary else len(findings)))
    return {
        "claim": claim,
        "facts": dict(sheet.facts),
        "verdict": sheet.study.verdict,
        "paper": sheet.study.paper_verdict,
        "n": sheet.n,
        "table": table(HEADINGS, lines, 2),
    }


def _finding(
    question: Question, findings: Sequence[Finding], primary: Finding | None, claim: Claim
) -> Finding:
    asked = {(one.pair.arm, one.pair.baseline): one for one in findings}
    found = primary if question.primary else asked.get((question.arm, question.baseline))
    if found is None:
        what = "a primary question" if question.primary else f"{question.arm!r}"
        raise SatbenchError(
            f"claims: section {claim.section}: expected a question of the study {claim.study}, "
            f"got {what}"
        )
    return found


def _line(question: Question, finding: Finding, contrasts: int) -> tuple[str, ...]:
    robust = finding.robust
    name = cell(finding.pair.arm)
    return (
        f"**{name}**" if question.primary else name,
        cell(finding.pair.baseline),
        MISSING if question.published is None else signed(question.published / 100),
        effect_text(robust),
        str(robust.seeds) if robust else "0",
        _smallest(robust, contrasts),
        finding.verdict,
        effect_text(finding.paper),
        _inside(question.published, robust),
    )


def _smallest(effect: Effect | None, contrasts: int) -> str:
    """Return the least difference, in points, that would have been shown with this noise."""
    if effect is None or effect.interval is None:
        return MISSING
    low, high = effect.interval
    error = (high - low) / 2 / least_t(effect.seeds, 1)
    return f"{100 * error * least_t(effect.seeds, contrasts):.1f}"


def _inside(published: float | None, effect: Effect | None) -> str:
    if published is None or effect is None or effect.interval is None:
        return MISSING
    low, high = effect.interval
    if published / 100 > high:
        return "above the interval"
    return "inside the interval" if published / 100 >= low else "below the interval"
