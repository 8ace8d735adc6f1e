"""Audits: a bound on how far AutoAttack could still lower a record's robust accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from satbench.core.stats.intervals import pooled_unseen_bound, unseen_bound
from satbench.records.record import Record, StageResult


@dataclass(frozen=True)
class AuditCounts:
    """The counts of an audit: AutoAttack ran on the `weakest` and on `sampled` other `survivors`.

    It broke `weakest_broken` and `sampled_broken` of them.
    """

    survivors: int
    weakest: int
    weakest_broken: int
    sampled: int
    sampled_broken: int

    @property
    def others(self) -> int:
        """The survivors that the random sample was drawn from."""
        return self.survivors - self.weakest


@dataclass(frozen=True)
class AuditResult(AuditCounts):
    """An audit and what it proves.

    With 95 % confidence AutoAttack would break at most `unseen` of the survivors that it did not
    attack, that is `points` percentage points of all images.
    """

    unseen: int
    points: float

    def __str__(self) -> str:
        return (
            f"AutoAttack-equivalent up to {self.points:.1f} points (95 %): it broke "
            f"{self.weakest_broken} of the {self.weakest} weakest of {self.survivors} survivors "
            f"and {self.sampled_broken} of a random {self.sampled} of the others"
        )


def audit_of(record: Record) -> AuditResult | None:
    """Return the result of the last audit of a record; None if it has none."""
    counts = audit_counts(record, record.suite)
    if counts is None:
        return None
    broken = counts.sampled_broken
    unseen = unseen_bound(broken, counts.sampled, counts.others) - broken
    return AuditResult(**asdict(counts), unseen=unseen, points=100 * unseen / record.n)


def audit_counts(record: Record, suite: Sequence[str]) -> AuditCounts | None:
    """Return the counts of the last audit of a suite in a record; None if there is none."""
    audits = [
        numbers for spec, numbers in record.attack_stages() if spec in suite and is_audit(spec)
    ]
    if not audits:
        return None
    stages = [record.stages[number - 1] for number in audits[-1]]
    survivors = stages[0].attacked + stages[0].passed_over
    return AuditCounts(survivors, *_stratum(stages, "weakest"), *_stratum(stages, "sample"))


def is_audit(spec: str) -> bool:
    """Whether a canonical spec is that of an audit."""
    return spec.startswith("audit(")


def united_unseen(audits: Sequence[AuditCounts]) -> float:
    """Return how many survivors outside the audits AutoAttack would break at most.

    It is for all records together, with 95 % confidence; 0 without audits (`pooled_unseen_bound`).
    """
    return pooled_unseen_bound([(one.sampled_broken, one.sampled, one.others) for one in audits])


def _stratum(stages: list[StageResult], name: str) -> tuple[int, int]:
    """Return how many images a stratum has, and how many of them were broken."""
    mine = [stage for stage in stages if stage.part.startswith(f"{name}/")]
    return max(stage.attacked for stage in mine), sum(stage.broken for stage in mine)
