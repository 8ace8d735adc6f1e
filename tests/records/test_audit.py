"""The result of an audit in a record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from satbench.core.stats.intervals import pooled_unseen_bound, unseen_bound
from satbench.records.audit import (
    AuditCounts,
    AuditResult,
    audit_counts,
    audit_of,
    united_unseen,
)
from satbench.records.record import Record, StageResult

PGD50 = "pgd(steps=50,step=eps/4,restarts=1,start=uniform,keep=any)"
AUDIT = "audit(sample=100,weakest=50)"
MakeRecord = Callable[..., Record]
Part = tuple[str, int, int]


def _stages(survivors: int, *parts: Part, spec: str = AUDIT, origin: str = "") -> list[StageResult]:
    """Return an audit's stages from its parts' names, images taken on, images broken."""
    stages = []
    for name, attacked, broken in parts:
        passed = survivors - attacked
        stages.append(
            StageResult(spec, name, attacked, broken, 1, 1, passed_over=passed, origin=origin)
        )
        survivors -= broken
    return stages


def _audited(make_record: MakeRecord, *stages: StageResult, n: int = 1000) -> Record:
    record = make_record([-1] * n, (PGD50,))
    every = [*record.stages, *stages]
    suite = list(dict.fromkeys(stage.attack for stage in every))
    return replace(record, stages=every, suite=suite)


def test_a_record_without_an_audit_has_none(make_record: MakeRecord) -> None:
    assert audit_of(make_record([-1] * 9)) is None


def test_an_audit_counts_both_strata_and_bounds_the_images_it_did_not_see(
    make_record: MakeRecord,
) -> None:
    parts = (
        ("weakest/apgd-ce", 50, 3),
        ("weakest/square", 47, 2),
        ("sample/apgd-ce", 100, 1),
        ("sample/square", 99, 1),
    )
    found = audit_of(_audited(make_record, *_stages(400, *parts)))

    unseen = unseen_bound(2, 100, 350) - 2
    assert AuditResult(400, 50, 5, 100, 2, unseen, 100 * unseen / 1000) == found


def test_breaks_among_the_weakest_do_not_change_the_bound(make_record: MakeRecord) -> None:
    bounds = [
        audit_of(
            _audited(make_record, *_stages(400, ("weakest/a", 50, broken), ("sample/a", 100, 0)))
        ).unseen  # type: ignore[union-attr]
        for broken in (0, 40)
    ]

    assert [unseen_bound(0, 100, 350)] * 2 == bounds


@pytest.mark.parametrize(
    ("survivors", "weakest", "sampled"), [(0, 0, 0), (30, 30, 0), (150, 50, 100)]
)
def test_an_audit_of_every_survivor_leaves_nothing_unseen(
    survivors: int, weakest: int, sampled: int, make_record: MakeRecord
) -> None:
    stages = _stages(survivors, ("weakest/a", weakest, 0), ("sample/a", sampled, 0))
    found = audit_of(_audited(make_record, *stages))

    assert AuditResult(survivors, weakest, 0, sampled, 0, 0, 0.0) == found


def test_the_last_audit_counts(make_record: MakeRecord) -> None:
    other = "audit(sample=20,weakest=0)"
    stages = [
        *_stages(400, ("weakest/a", 50, 0), ("sample/a", 100, 0)),
        *_stages(400, ("weakest/a", 0, 0), ("sample/a", 20, 1), spec=other),
    ]
    found = audit_of(_audited(make_record, *stages))

    assert found is not None
    assert (400, 0, 20, 1) == (found.survivors, found.weakest, found.sampled, found.sampled_broken)


def test_an_audit_that_was_run_again_as_a_challenge_is_another(make_record: MakeRecord) -> None:
    stages = [
        *_stages(400, ("weakest/a", 50, 4), ("sample/a", 100, 2), origin="first"),
        *_stages(394, ("weakest/a", 50, 0), ("sample/a", 100, 1), origin="second"),
    ]
    found = audit_of(_audited(make_record, *stages))

    unseen = unseen_bound(1, 100, 344) - 1
    assert AuditResult(394, 50, 0, 100, 1, unseen, unseen / 10) == found


def test_an_audit_says_up_to_how_many_points_the_verdict_is_autoattacks(
    make_record: MakeRecord,
) -> None:
    stages = _stages(400, ("weakest/a", 50, 1), ("sample/a", 100, 2))
    unseen = unseen_bound(2, 100, 350) - 2

    assert str(audit_of(_audited(make_record, *stages))) == (
        f"AutoAttack-equivalent up to {unseen / 10:.1f} points (95 %): it broke 1 of the 50 "
        "weakest of 400 survivors and 2 of a random 100 of the others"
    )


def test_an_audit_is_counted_for_a_suite_that_has_it(make_record: MakeRecord) -> None:
    stages = _stages(400, ("weakest/a", 50, 1), ("sample/a", 100, 2))
    record = _audited(make_record, *stages)

    assert AuditCounts(400, 50, 1, 100, 2) == audit_counts(record, record.suite)
    assert audit_counts(record, record.suite[:1]) is None


def test_audits_are_united_over_those_that_they_drew_from() -> None:
    audits = [AuditCounts(310, 10, 3, 20, 1), AuditCounts(250, 10, 0, 20, 0)]

    assert pooled_unseen_bound([(1, 20, 300), (0, 20, 240)]) == united_unseen(audits)
