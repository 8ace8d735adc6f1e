"""What an audit proves: how far AutoAttack could still lower a record's robust accuracy."""

from __future__ import annotations

from dataclasses import dataclass

from satbench.leaderboard.record import Record, StageResult
from satbench.leaderboard.statistics import unseen_bound


@dataclass(frozen=True)
class AuditResult:
    """An audit in numbers: of `survivors`, `weakest` and a random `sampled` got AutoAttack.

    It broke `weakest_broken` and `sampled_broken` of them.  With 95 % confidence it would break no
    more than `unseen` of those it did not get to see, `points` percentage points of all images.
    """

    survivors: int
    weakest: int
    weakest_broken: int
    sampled: int
    sampled_broken: int
    unseen: int
    points: float

    def __str__(self) -> str:
        return (
            f"AutoAttack-equivalent up to {self.points:.1f} points (95 %): it broke "
            f"{self.weakest_broken} of the {self.weakest} weakest of {self.survivors} survivors "
            f"and {self.sampled_broken} of a random {self.sampled} of the others"
        )


def audit_of(record: Record) -> AuditResult | None:
    """Return what the last audit of a record came to; None if it has none."""
    audits = [numbers for spec, numbers in record.attack_stages() if spec.startswith("audit(")]
    if not audits:
        return None
    stages = [record.stages[number - 1] for number in audits[-1]]
    weakest, weakest_broken = _stratum(stages, "weakest")
    sampled, sampled_broken = _stratum(stages, "sample")
    survivors = stages[0].attacked + stages[0].passed_over
    unseen = unseen_bound(sampled_broken, sampled, survivors - weakest) - sampled_broken
    return AuditResult(
        survivors=survivors,
        weakest=weakest,
        weakest_broken=weakest_broken,
        sampled=sampled,
        sampled_broken=sampled_broken,
        unseen=unseen,
        points=100 * unseen / record.n,
    )


def _stratum(stages: list[StageResult], name: str) -> tuple[int, int]:
    """Return how many images a stratum has, and how many of them were broken."""
    mine = [stage for stage in stages if stage.part.startswith(f"{name}/")]
    return max(stage.attacked for stage in mine), sum(stage.broken for stage in mine)
