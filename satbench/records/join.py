"""New records from records: a challenge after its parent, and several records merged.

Verdicts only get worse: an image that is broken in one record is broken in the new one, with its
witness.  Records are never edited; each function returns a new one, whose stages say where they
ran.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from satbench.core.errors import SatbenchError
from satbench.core.stats.intervals import confidence_sequence
from satbench.core.threat import Threat
from satbench.records.answers import same_model, same_surrogate
from satbench.records.record import (
    PROTOCOL,
    SCHEMA,
    SURVIVED,
    WRONG_CLEAN,
    Environment,
    Record,
    Sequential,
    StageResult,
    identity_of,
    inputs_of,
)
from satbench.records.witnesses import Witnesses

Proven = tuple[Record, Witnesses]
"""A record with its witnesses."""


def plan_challenge(
    parent: Record,
    stages: Sequence[StageResult],
    seed: int,
    sources: dict[str, str],
    replacements: dict[str, str],
) -> Record:
    """Return the record of a challenge of `parent` by `stages`, without its outcome.

    Its identity is final, because it follows from the inputs: those of the challenge and the
    identities of the runs before it.  Raises SatbenchError for an attack that the parent already
    ran with the same seed, and for other weights under the name of a source.
    """
    before = _brought(parent)
    _refuse_repeats(before, stages, seed)
    planned = replace(
        parent,
        seed=seed,
        stages=[*before, *stages],
        sources=_united("source", parent.sources, sources),
        replacements=_united("replacement", parent.replacements, replacements),
        protocol=PROTOCOL,
        schema=SCHEMA,
    )
    return _identified(planned)


def add_challenge(parent: Proven, run: Proven, by: str = "") -> Proven:
    """Append a run on the survivors of `parent`; its stages say who ran it.

    `run` has verdict 0 for exactly the images that it did not attack.  Raises SatbenchError as
    `plan_challenge`, and for a run that was not on the survivors.
    """
    (before, proofs), (after, found) = parent, run
    verdicts_before, new = np.array(before.verdicts), np.array(after.verdicts)
    if not np.array_equal(verdicts_before == SURVIVED, new != WRONG_CLEAN):
        raise SatbenchError("expected a challenge of exactly the images that survived the record")
    shift = len(before.stages)
    verdicts = np.where(new > WRONG_CLEAN, new + shift, verdicts_before)
    stages = [replace(stage, by=by) for stage in after.stages]
    planned = plan_challenge(before, stages, after.seed, after.sources, after.replacements)
    seconds = before.environment.stage_seconds + after.environment.stage_seconds
    planned = replace(
        planned,
        diagnosis=before.diagnosis or after.diagnosis,
        suites={**before.suites, **after.suites},
    )
    environment = replace(
        after.environment, stage_seconds=seconds, clean_seconds=before.environment.clean_seconds
    )
    return _proven(planned, verdicts, [proofs, found], environment)


def merge_records(given: Sequence[Proven]) -> Proven:
    """Merge records of the same model, images and threat model.

    A broken image has the stage and the witness of the first record that broke it.  A stage that
    several records have is listed once.  Times, versions and the diagnosis are those of the first
    record that has them.  Raises SatbenchError for records that do not belong together.
    """
    first = given[0][0]
    verdicts = np.array(first.verdicts)
    verdicts[verdicts > WRONG_CLEAN] = SURVIVED
    stages: list[StageResult] = []
    numbers: dict[tuple[str, str, str], int] = {}
    seconds: list[float] = []
    proofs: list[Witnesses] = []
    sources: dict[str, str] = {}
    replacements: dict[str, str] = {}
    for place, (record, witnesses) in enumerate(given):
        _refuse_strangers(first, record)
        known, number_here = len(stages), [WRONG_CLEAN]
        for stage, spent in zip(_brought(record), record.environment.stage_seconds, strict=True):
            key = (stage.origin, stage.attack, stage.part)
            if key not in numbers:
                stages.append(replace(stage, apart=stage.apart or place > 0))
                seconds.append(spent)
                numbers[key] = len(stages)
            number_here.append(numbers[key])
        verdicts_before = np.array(record.verdicts)
        new = np.flatnonzero((verdicts == SURVIVED) & (verdicts_before > WRONG_CLEAN))
        verdicts[new] = np.array(number_here)[verdicts_before[new]]
        _refuse_conflicts(new, verdicts, known, record)
        proofs.append(_only(witnesses, new))
        sources = _united("source", sources, record.sources)
        replacements = _united("replacement", replacements, record.replacements)
    diagnoses = (record.diagnosis for record, _ in given)
    merged = replace(
        first,
        stages=stages,
        sources=sources,
        replacements=replacements,
        diagnosis=next((found for found in diagnoses if found), None),
        suites={name: one for record, _ in given for name, one in record.suites.items()},
        protocol=max(record.protocol for record, _ in given),
        schema=SCHEMA,
    )
    environment = replace(first.environment, stage_seconds=seconds)
    return _proven(_identified(merged), verdicts, proofs, environment)


def _brought(record: Record) -> list[StageResult]:
    """Return a record's stages in the form for another record, each with its origin."""
    return [
        stage
        if stage.origin
        else replace(stage, origin=record.identity, seed=record.seed, protocol=record.protocol)
        for stage in record.stages
    ]


def _identified(record: Record) -> Record:
    record = replace(record, suite=[attack for attack, _ in record.attack_stages()])
    return replace(record, identity=identity_of(inputs_of(record)))


def _proven(
    planned: Record,
    verdicts: NDArray[np.int64],
    proofs: Sequence[Witnesses],
    environment: Environment,
) -> Proven:
    indices = np.concatenate([part.indices for part in proofs])
    images = np.concatenate([part.images for part in proofs])
    order = np.argsort(indices)
    witnesses = Witnesses(indices[order], images[order])
    record = replace(
        planned,
        verdicts=verdicts.tolist(),
        sequential=_looked_again(planned, verdicts),
        witnesses_digest=witnesses.digest,
        environment=environment,
    )
    return record, witnesses


def _looked_again(planned: Record, verdicts: NDArray[np.int64]) -> Sequential | None:
    # The order is random for any attack, and the confidence sequence is valid at any stop.
    if planned.sequential is None:
        return None
    survived = int((verdicts == SURVIVED).sum())
    low, high = confidence_sequence(survived, len(verdicts), planned.dataset.population)
    return replace(planned.sequential, low=low, high=high)


def _only(witnesses: Witnesses, images: NDArray[np.int64]) -> Witnesses:
    rows = np.isin(witnesses.indices, images)
    return Witnesses(witnesses.indices[rows], witnesses.images[rows])


def _refuse_repeats(
    before: Sequence[StageResult], stages: Sequence[StageResult], seed: int
) -> None:
    ran = {(stage.attack, stage.seed) for stage in before if stage.protocol == PROTOCOL}
    handed_in = {stage.attack for stage in before if stage.attack.startswith("images(")}
    for stage in stages:
        if stage.attack in handed_in:
            raise SatbenchError("the record already has these images; they would break nothing new")
        if (stage.attack, seed) in ran:
            raise SatbenchError(
                f"the record already has {stage.attack} with seed {seed}; "
                "give another --seed, or another attack"
            )


def _refuse_strangers(first: Record, record: Record) -> None:
    mine, theirs = _belonging(first), _belonging(record)
    other = [what for what, value in mine.items() if theirs[what] != value]
    if not other and not same_model(first.model, record.model):
        other = ["answers"]  # other code, with the same weights
    if other:
        raise SatbenchError(
            f"expected records of the same model, images and threat model, got other {other[0]} "
            f"in a record of {record.model.name} than in the first, of {first.model.name}"
        )


def _belonging(record: Record) -> dict[str, object]:
    model, verdicts = record.model, np.array(record.verdicts)
    return {
        "weights": model.weights_digest,
        "architecture": (model.architecture, model.activation),
        "images": (record.dataset.digest, record.n),
        "threat model": Threat.of(record.norm, record.eps),
        "clean predictions": np.flatnonzero(verdicts == WRONG_CLEAN).tolist(),
    }


def _refuse_conflicts(
    new: NDArray[np.int64], verdicts: NDArray[np.int64], known: int, record: Record
) -> None:
    # A stage that an earlier record also has broke the same images there.
    strange = new[verdicts[new] <= known]
    if len(strange):
        raise SatbenchError(
            f"the record {record.identity[:12]} of {record.model.name} says of image {strange[0]} "
            "that a stage broke it, which another record says it did not: one was changed"
        )


def _united(what: str, mine: dict[str, str], theirs: dict[str, str]) -> dict[str, str]:
    for name in mine.keys() & theirs.keys():
        if not same_surrogate(mine[name], theirs[name]):
            raise SatbenchError(
                f"expected one {what} called {name}, got {mine[name][:12]}… and "
                f"{theirs[name][:12]}… under this name"
            )
    return dict(sorted({**theirs, **mine}.items()))
