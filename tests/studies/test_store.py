"""Results that a study finds: outcomes of records, by suite."""

from __future__ import annotations

from dataclasses import replace

import pytest

from satbench.records.audit import AuditCounts
from satbench.records.record import Record, StageResult, inputs_of, read_record
from satbench.studies.store import Places, Records, covering, outcome_of


@pytest.fixture
def record(done: Places) -> Record:
    """Return a record of two attacks, PGD-1 and PGD-2."""
    return read_record(sorted(done.records.glob("*.json"))[0])


def test_verdicts_become_letters_of_the_requested_suite(record: Record) -> None:
    made = replace(record, verdicts=[0, -1, 1, 2])

    assert "-oxx" == outcome_of(made, tuple(record.suite)).verdicts
    assert "-oxo" == outcome_of(made, tuple(record.suite[:1])).verdicts


def test_passes_are_counted_for_the_requested_suite(record: Record) -> None:
    first, second = record.stages

    assert first.forwards == outcome_of(record, tuple(record.suite[:1])).forwards
    assert first.backwards + second.backwards == outcome_of(record, tuple(record.suite)).backwards


def test_a_suite_that_is_not_the_beginning_of_the_record_is_refused(record: Record) -> None:
    with pytest.raises(ValueError, match="does not begin with"):
        outcome_of(record, tuple(record.suite[1:]))


def test_the_counts_of_an_audit_are_kept_for_a_suite_with_an_audit(record: Record) -> None:
    spec = "audit(sample=2,weakest=1)"
    strata = [
        StageResult(spec, f"{name}/square", attacked, broken, 1, 1, passed_over=4 - attacked)
        for name, attacked, broken in (("weakest", 1, 1), ("sample", 2, 0))
    ]
    made = replace(record, suite=[*record.suite, spec], stages=[*record.stages, *strata])

    assert AuditCounts(4, 1, 1, 2, 0) == outcome_of(made, tuple(made.suite)).audit
    assert outcome_of(made, tuple(record.suite)).audit is None


def test_a_record_is_found_by_its_inputs_and_by_the_beginning_of_its_suite(
    done: Places, record: Record
) -> None:
    records, inputs = Records(done), inputs_of(record)
    other = replace(inputs.model, weights_digest="0" * 64)

    assert record == records.find(inputs)
    assert record == records.find(replace(inputs, suite=record.suite[:1]))
    assert records.find(replace(inputs, suite=record.suite[1:])) is None
    assert records.find(replace(inputs, seed=1)) is None
    assert records.find(replace(inputs, eps="0.2")) is None
    assert records.find(replace(inputs, model=other)) is None


def test_of_suites_with_the_same_beginning_only_the_longest_runs() -> None:
    assert [("a", "b"), ("b",)] == covering([("a",), ("a", "b"), ("b",), ("a", "b")])
