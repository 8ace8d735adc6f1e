"""The consistency check of a record, without the model, the images or torch."""

from __future__ import annotations

from math import isclose

from satbench.core.errors import SatbenchError
from satbench.core.stats.intervals import confidence_sequence
from satbench.core.threat import Threat
from satbench.records.answers import digest_answers
from satbench.records.limits import check_limits
from satbench.records.record import (
    PROTOCOL,
    SURVIVED,
    Record,
    Sequential,
    StageResult,
    identity_of,
    inputs_of,
)


def check_record(record: Record) -> list[str]:
    """Return the inconsistencies of a record, one sentence each."""
    faults = []
    if not 1 <= record.protocol <= PROTOCOL:
        faults.append(f"the record is of protocol {record.protocol}, not 1 to {PROTOCOL}")
    try:
        Threat.of(record.norm, record.eps)
    except SatbenchError as error:
        faults.append(f"the threat model is not one: {error}")
    if identity_of(inputs_of(record)) != record.identity:
        faults.append("the identity is not that of the inputs: one of them was changed")
    answers = record.model.answers
    if answers and digest_answers(answers) != record.model.answers_digest:
        faults.append("the model's answers are not those of their digest")
    if record.n != record.dataset.n:
        faults.append(f"there are {record.n} verdicts for {record.dataset.n} images")
    strange = {v for v in record.verdicts if not SURVIVED <= v <= len(record.stages)}
    if strange:
        faults.append(f"there are verdicts that name no stage: {sorted(strange)}")
    if [attack for attack, _ in record.attack_stages()] != record.suite:
        faults.append("the stages are not those of the suite")
    if len(record.environment.stage_seconds) != len(record.stages):
        faults.append("the stages and their times are not of one number")
    faults += check_limits(record)
    faults += _check_sums(record)
    if record.sequential and not faults and not _follows(record, record.sequential):
        faults.append("the interval of the sequence is not that of the survivors")
    return faults


def _follows(record: Record, sequential: Sequential) -> bool:
    if not 1 <= record.n <= record.dataset.population:
        return False
    found = confidence_sequence(record.surviving(), record.n, record.dataset.population)
    return all(
        isclose(a, b, abs_tol=1e-9)
        for a, b in zip(found, (sequential.low, sequential.high), strict=True)
    )


def _check_sums(record: Record) -> list[str]:
    faults: list[str] = []
    surviving = record.clean_correct
    apart: dict[str, int] = {}  # how many images the stages of another run left in that run
    for number, stage in enumerate(record.stages, 1):
        counted = record.verdicts.count(number)
        if stage.apart:
            faults += _check_apart(stage, counted, apart.get(stage.origin), record.clean_correct)
            apart[stage.origin] = stage.attacked + stage.passed_over - stage.broken
        else:
            faults += _check_stage(stage, counted, surviving)
        if min(stage.forwards, stage.backwards, stage.source_forwards, stage.source_backwards) < 0:
            faults.append(f"{_title(stage)} has a negative number of passes")
        surviving -= counted
    return faults


def _check_stage(stage: StageResult, counted: int, surviving: int) -> list[str]:
    faults = []
    if stage.attacked + stage.passed_over != surviving:
        faults.append(f"{_title(stage)} {_reach(stage)}, but {surviving} were left")
    if stage.broken != counted:
        faults.append(f"{_title(stage)} broke {stage.broken} images, but {counted} verdicts say so")
    return faults


def _check_apart(stage: StageResult, counted: int, left: int | None, right: int) -> list[str]:
    """Check a stage that ran on the survivors of another record.

    An earlier record may have broken some of the same images, so it may have fewer verdicts.
    """
    faults = []
    standing = stage.attacked + stage.passed_over
    if left is not None and standing != left:
        faults.append(f"{_title(stage)} {_reach(stage)}, but {left} were left in its own run")
    if standing > right:
        faults.append(f"{_title(stage)} {_reach(stage)}, but {right} are right when clean")
    if not counted <= stage.broken <= stage.attacked:
        faults.append(
            f"{_title(stage)} broke {stage.broken} images of {stage.attacked}, "
            f"but {counted} verdicts say so"
        )
    if not stage.origin:
        faults.append(f"{_title(stage)} ran in another record, but does not say in which")
    return faults


def _title(stage: StageResult) -> str:
    return f"{stage.attack}/{stage.part}" if stage.part else stage.attack


def _reach(stage: StageResult) -> str:
    over = f" and passed over {stage.passed_over}" if stage.passed_over else ""
    return f"attacked {stage.attacked} images{over}"
