"""Check a record against itself: what can be told without the model, the images or torch."""

from __future__ import annotations

from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.leaderboard.record import PROTOCOL, SURVIVED, WRONG_CLEAN, Record, identity_of


def check_record(record: Record) -> list[str]:
    """Return what is wrong within a record, a sentence each; an empty list if nothing is."""
    faults = []
    if record.protocol != PROTOCOL:
        faults.append(f"the record is of protocol {record.protocol}, not {PROTOCOL}")
    try:
        Threat.of(record.norm, record.eps)
    except SatbenchError as error:
        faults.append(f"the threat model is not one: {error}")
    identity = identity_of(
        record.model, record.dataset, record.norm, record.eps, record.seed, record.suite
    )
    if identity != record.identity:
        faults.append("the identity is not that of the inputs: one of them was changed")
    if record.n != record.dataset.n:
        faults.append(f"there are {record.n} verdicts for {record.dataset.n} images")
    strange = {v for v in record.verdicts if not SURVIVED <= v <= len(record.stages)}
    if strange:
        faults.append(f"there are verdicts that name no stage: {sorted(strange)}")
    if list(dict.fromkeys(stage.attack for stage in record.stages)) != record.suite:
        faults.append("the stages are not those of the suite")
    return faults + _check_sums(record)


def _check_sums(record: Record) -> list[str]:
    faults = []
    surviving = sum(verdict != WRONG_CLEAN for verdict in record.verdicts)
    for number, stage in enumerate(record.stages, 1):
        title = f"{stage.attack}{'/' if stage.part else ''}{stage.part}"
        broken = record.verdicts.count(number)
        if stage.attacked != surviving:
            faults.append(f"{title} attacked {stage.attacked} images, but {surviving} were left")
        if stage.broken != broken:
            faults.append(f"{title} broke {stage.broken} images, but {broken} verdicts say so")
        surviving -= broken
    return faults
