"""The limits of records and certificates: values that no run of satbench would write."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from satbench.core.threat import show_fraction
from satbench.records.answers import digest_answers
from satbench.records.certificates import Certificate
from satbench.records.record import DatasetInfo, Environment, ModelInfo, Record, StageResult

BORN = datetime(2026, 11, 24, tzinfo=UTC)
"""The day of the first record."""

SCHEMA_2 = datetime(2026, 11, 24, 6, tzinfo=UTC)
"""From this day on no record of schema 1 was made; protocol 2 came with schema 2."""

MOST_PASSES = 10**12
"""More passes than any stage makes: a thousand years of a GPU."""

_VERSION = re.compile(r"\d[\w.+-]{0,39}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MOST_LETTERS = 200


def check_limits(record: Record) -> Iterator[str]:
    """Yield one sentence for each value that no run would have written."""
    yield from _check_age(record)
    yield from _check_model(record.model)
    yield from _check_credits(record)
    yield from _check_environment(record.environment)
    if not _DIGEST.fullmatch(record.witnesses_digest):
        yield "the digest of the witnesses is none: expected 64 digits of 0-9a-f"
    yield from _check_images(record.dataset)
    if not -(2**63) <= record.seed < 2**64:
        yield f"the seed {record.seed} is beyond 64 bits"
    for number, stage in enumerate(record.stages, 1):
        passes = stage.forwards + stage.backwards + stage.source_forwards + stage.source_backwards
        if passes > MOST_PASSES:
            yield f"stage {number}, {stage.attack}, has {passes} passes, which no run makes"


def check_certificate_limits(told: Certificate) -> Iterator[str]:
    """Yield one sentence for each value that no certification would have written."""
    yield from _check_model(told.model)
    yield from _check_environment(told.environment)
    yield from _check_images(told.dataset)
    if told.dataset.population:
        yield "the images are said to be drawn from others, which no certification does"
    answers = told.model.answers
    if answers and digest_answers(answers) != told.model.answers_digest:
        yield "the model's answers are not those of their digest"
    if _has_code(told.model) and not answers:
        yield f"a model given as a {told.model.source} is known by its answers, which are missing"
    if not _DIGEST.fullmatch(told.proofs_digest):
        yield "the digest of the proofs is none: expected 64 digits of 0-9a-f"
    if (told.norm, told.eps) != (told.threat.norm, show_fraction(told.threat.eps)):
        yield f"the threat model is not written as satbench does, {told.threat}"


def _check_images(images: DatasetInfo) -> Iterator[str]:
    if not _DIGEST.fullmatch(images.digest):
        yield "the digest of the images is none: expected 64 digits of 0-9a-f"
    if not images.split or images.classes < 1 or images.population < 0:
        yield "the images have no split, or a number of classes below 1"


def _check_age(record: Record) -> Iterator[str]:
    """Check that a record of an older schema lacks what was added later."""
    if record.schema > 1:
        if record.protocol < 2:
            yield f"a record of schema {record.schema} is of protocol 2 or later, not 1"
        return
    later = {
        "a diagnosis": record.diagnosis,
        "replacements": record.replacements,
        "suites": record.suites,
        "notes": record.notes,
        "a sequence": record.sequential,
        "answers": record.model.answers,
        "assumptions": record.model.assumed,
        "what was searched": any(stage.search for stage in record.stages),
        "protocol 2": record.protocol > 1,
    }
    if found := [what for what, there in later.items() if there]:
        yield f"a record of schema 1 cannot have {found[0]}, which came later"
    made = _moment(record.environment.finished)
    if made and made >= SCHEMA_2:
        yield f"no record of schema 1 was made after {SCHEMA_2.isoformat()}"


def _check_model(model: ModelInfo) -> Iterator[str]:
    if model.answers_digest and not _has_code(model):
        yield f"a model of the source {model.source} is known by its weights and has no answers"
    if model.parameters < 0 or not _DIGEST.fullmatch(model.weights_digest):
        yield "the weights are none: expected a number of parameters and 64 digits of 0-9a-f"


def _has_code(model: ModelInfo) -> bool:
    named = ("factory", "python", "torchhub")
    return model.source in named or model.source.startswith("plug-in")


def _check_credits(record: Record) -> Iterator[str]:
    """Check the names of challengers: only a challenge has one, after stages of another run."""
    for number, stage in enumerate(record.stages, 1):
        if not stage.by:
            continue
        before = record.stages[: number - 1]
        if not stage.origin and not any(one.origin for one in before):
            yield f"stage {number}, {stage.attack}, is said to be by somebody, but challenges none"
        if len(stage.by) > _MOST_LETTERS or not stage.by.isprintable():
            yield f"stage {number}, {stage.attack}, is by no name of up to {_MOST_LETTERS} letters"
    own = [stage for stage in record.stages if not stage.origin]
    if any(stage.seed is not None or stage.protocol is not None for stage in own):
        yield "a stage of the record's own run has another seed or protocol"
    yield from _check_order(record.stages)


def _check_order(stages: list[StageResult]) -> Iterator[str]:
    for stage in stages:
        if stage.origin and not _DIGEST.fullmatch(stage.origin):
            yield f"{stage.attack} comes from a record of no identity, {stage.origin[:20]!r}"


def _check_environment(environment: Environment) -> Iterator[str]:
    for name in ("satbench", "torch", "python"):
        if not _VERSION.fullmatch(getattr(environment, name)):
            yield f"the environment's {name} is no version: {getattr(environment, name)[:40]!r}"
    for name in ("platform", "device"):
        text = getattr(environment, name)
        if not text or len(text) > _MOST_LETTERS or not text.isprintable():
            yield f"the environment's {name} is none: {text[:40]!r}"
    if not (1 <= environment.threads <= 100_000 and 1 <= environment.batch_size <= 10**9):
        yield f"no run has {environment.threads} threads and batches of {environment.batch_size}"
    for name in ("flops", "joules"):
        if (getattr(environment, name) or 0) < 0:
            yield f"no run takes {getattr(environment, name)} {name}"
    made, now = _moment(environment.finished), datetime.now(UTC)
    if made is None or not BORN <= made <= now + timedelta(days=1):
        yield (
            f"it was finished at {environment.finished[:40]!r}: expected a time such as "
            f"{BORN.isoformat()}, from then until now"
        )
    seconds = [environment.clean_seconds, *environment.stage_seconds]
    if not all(math.isfinite(one) and 0 <= one <= 1e9 for one in seconds):
        yield "the environment has times that are not seconds from 0 to 1e9"


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else None
