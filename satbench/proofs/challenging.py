"""Challenges: attacks on only the survivors of a record, with a new record as the result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from torch import nn

from satbench.attacks import suite_digests
from satbench.attacks.suites.suite import check_suite, parse_suite
from satbench.calling.devices import choose_device, device_of, moved
from satbench.calling.generators import own_generators
from satbench.core.errors import SatbenchError
from satbench.core.files import check_folder, sweep
from satbench.core.progress.receiver import NoProgress, Progress
from satbench.core.threat import Threat
from satbench.data import load_dataset
from satbench.diagnosis.diagnose import NOTHING, probe
from satbench.engine.bpda import Replaced
from satbench.engine.journal import RunStore
from satbench.engine.machine.threads import one_thread_if_small
from satbench.engine.runner import CLEAN, SURVIVED, BatchResult
from satbench.engine.stage import Stage
from satbench.engine.suite_run import run_suite
from satbench.evaluation.given import Given
from satbench.evaluation.own_code import with_effect
from satbench.evaluation.plan import Evaluation, Plan, in_doubt, kind_of
from satbench.evaluation.replacements import load_replacements
from satbench.evaluation.surrogates import with_surrogates
from satbench.preflight.preflight import Needs, check_set_up
from satbench.proofs.submission import read_submission
from satbench.proofs.verification import Subject, open_record
from satbench.records.flags import RESULT_FLAGS, flags_from_result
from satbench.records.join import Proven, add_challenge, plan_challenge
from satbench.records.record import (
    WRONG_CLEAN,
    Record,
    StageResult,
    inputs_of,
    read_record,
    record_stem,
    write_record,
)
from satbench.records.witnesses import WitnessSpool, witnesses_path, write_witnesses


@dataclass(frozen=True)
class Challenge:
    """The options of a challenge: `attacks`, or a file of `images` from elsewhere.

    `by` is who challenges; `seed` determines all noise.  The new record is written to `out`, by
    default the folder of the old one.  `given` has the model and images if the record does not name
    them, or not by a known name.  `bpda` maps layers to the source of another backward.  With
    `fresh`, a challenge that already ran runs again.  A batch may take `timeout` seconds.
    """

    record: Path
    attacks: tuple[str, ...] = ()
    images: Path | None = None
    by: str = ""
    seed: int = 0
    batch_size: int = 250
    device: str = "auto"
    given: Given = field(default_factory=Given)
    out: Path | None = None
    bpda: Mapping[str, str | nn.Module] = field(default_factory=dict)
    fresh: bool = False
    timeout: float | None = None

    def __post_init__(self) -> None:
        if bool(self.attacks) == bool(self.images):
            raise SatbenchError("give attacks or a file of images to challenge the record with")


@dataclass(frozen=True)
class Challenged:
    """The new record, its path, whether it already existed, and the record that it came from.

    `refused` is one sentence about given images that do not count; empty if all count.
    """

    record: Record
    path: Path
    found: bool
    parent: Record
    refused: str


def run_challenge(challenge: Challenge, progress: Progress | None = None) -> Challenged:
    """Challenge a record, or continue the same challenge if it was stopped.

    The record is verified first, and does not change.  The new one has its stages, then those of
    the challenge, and the witnesses of both.  It is written even if nothing was broken, because the
    model survived more attacks.  Raises SatbenchError for a record that does not hold or has no
    survivors, for an attack that it already has with the same seed, and for a model whose gradients
    differ from the record's.
    """
    device = choose_device(challenge.device)
    out = challenge.out or challenge.record.parent
    check_folder(out)
    with own_generators(device, challenge.seed):
        subject = open_record(challenge.record, challenge.given)
        _check_subject(challenge, subject)
        suite, refused = _suite(challenge, subject)
        plan = Plan(subject.record.model, _evaluation(challenge, subject, suite), suite)
        planned = _planned(subject.record, plan, challenge.by)
        path = out / f"{record_stem(inputs_of(planned))}.json"
        store = RunStore(out, planned.identity, plan.evaluation.dataset.images.shape)
        if not challenge.fresh and (found := _found(path, planned)):
            store.sweep()
            return Challenged(found, path, True, subject.record, refused)
        with (
            moved([subject.loaded.module, *plan.evaluation.stand_ins.values()], device),
            store.claimed(),
        ):
            store.begin(subject.record.model, challenge.fresh, suite_digests(plan.specs))
            run = _run(plan, subject, store, progress or NoProgress())
            proven = (subject.record, subject.witnesses)
            record, witnesses = add_challenge(proven, run, challenge.by)
            write_proven((with_result_flags(record), witnesses), path)
            store.remove()
    return Challenged(read_record(path), path, False, subject.record, refused)


def _check_subject(challenge: Challenge, subject: Subject) -> None:
    if not subject.record.surviving():
        raise SatbenchError(f"nothing survives in {challenge.record} that could be challenged")
    if subject.other_gradients:
        raise SatbenchError(
            f"the model has the logits of the record {challenge.record}, but other gradients: "
            "evaluate it again, or give the record's model, with bpda for its layers"
        )


def _found(path: Path, planned: Record) -> Record | None:
    record = read_record(path) if path.exists() else None
    return record if record and record.identity == planned.identity else None


def with_result_flags(record: Record) -> Record:
    """Return the record with its flags about which stage broke what recomputed."""
    if record.diagnosis is None:
        return record
    suite = _known_stages(record)
    kinds = [kind_of(stage) if stage else "white-box" for stage in suite]
    doubts = in_doubt(suite, record.stages)
    found = flags_from_result(record.verdicts, kinds, record.dataset.classes, in_doubt=doubts)
    of_model = [flag for flag in record.diagnosis.flags if flag.name not in RESULT_FLAGS]
    return replace(record, diagnosis=replace(record.diagnosis, flags=[*of_model, *found]))


def _known_stages(record: Record) -> list[Stage | None]:
    """Return for each stage of a record what it ran, None where that is not known here."""
    known: dict[tuple[str, str], Stage] = {}
    for spec in record.suite:
        with suppress(SatbenchError):  # of an older protocol, or a third party's images: no sign
            known |= {(spec, stage.part): stage for stage in parse_suite([spec])}
    return [known.get((stage.attack, stage.part)) for stage in record.stages]


def write_proven(proven: Proven, path: Path) -> None:
    """Write a record and its witnesses, the record last."""
    record, witnesses = proven
    for file in (path, witnesses_path(path)):
        sweep(file)
    write_witnesses(witnesses, witnesses_path(path))
    write_record(record, path)


class _OnSurvivors:
    """A journal in which images broken before are wrong when clean, so they are not attacked."""

    def __init__(self, store: RunStore, subject: Subject) -> None:
        self._store, self._subject = store, subject

    def finished(self) -> Iterator[BatchResult]:
        """Yield first that only the survivors are left, then the batches written so far."""
        verdicts = np.array(self._subject.record.verdicts)
        nothing = np.empty((0, *self._subject.dataset.shape), np.float32)
        every = np.arange(len(verdicts))
        yield BatchResult(CLEAN, every, verdicts != SURVIVED, nothing, 0, 0, seconds=0.0)
        yield from self._store.finished()

    def write(self, result: BatchResult) -> None:
        """Write one batch atomically."""
        self._store.write(result)


def _suite(challenge: Challenge, subject: Subject) -> tuple[tuple[Stage, ...], str]:
    record, threat = subject.record, _threat(subject)
    if challenge.images is None:
        suite = parse_suite(with_surrogates(challenge.attacks, record.dataset.name, threat))
        check_suite(suite, threat)
        return suite, ""
    whole = record.n  # images in a random order must be given in exactly this order
    if not record.dataset.population:
        named, folder = challenge.given.dataset or record.dataset.name, challenge.given.data_dir
        whole = len(load_dataset(named, "test", None, folder) if isinstance(named, str) else named)
    submitted = read_submission(challenge.images, subject.dataset, whole, threat)
    return (submitted.stage,), submitted.refused


def _evaluation(challenge: Challenge, subject: Subject, suite: tuple[Stage, ...]) -> Evaluation:
    return Evaluation(
        subject.dataset,
        _threat(subject),
        [stage.spec for stage in suite],
        challenge.seed,
        challenge.batch_size,
        challenge.given.data_dir,
        with_effect(load_replacements(challenge.bpda), subject.loaded.module, subject.dataset),
        timeout=challenge.timeout,
    )


def _planned(parent: Record, plan: Plan, by: str) -> Record:
    stages = [StageResult(stage.spec, stage.part, 0, 0, 0, 0, by=by) for stage in plan.suite]
    seed = plan.evaluation.seed
    return plan_challenge(parent, stages, seed, plan.sources, plan.replacements)


def _run(plan: Plan, subject: Subject, store: RunStore, progress: Progress) -> Proven:
    module, evaluation, stand_ins = (
        subject.loaded.module,
        plan.evaluation,
        plan.evaluation.stand_ins,
    )
    images, threat, batch_size = evaluation.dataset, evaluation.threat, evaluation.batch_size
    searched = Replaced(module, stand_ins) if stand_ins else module
    needs = Needs.of(plan.suite)
    learnt = check_set_up(searched, images, threat, needs, evaluation.timeout, batch_size)
    context = evaluation.context(plan.suite, _OnSurvivors(store, subject), progress)
    with one_thread_if_small(device_of(module), learnt.flops):
        verdicts = run_suite(module, plan.suite, context)
    signs = NOTHING
    if subject.record.diagnosis is None:  # the record is from before there was one
        right = np.flatnonzero(np.array(subject.record.verdicts) != WRONG_CLEAN)
        signs = probe(
            searched, images, threat, right, batch_size, evaluation.seed, evaluation.timeout
        )
    with WitnessSpool(images.shape, store.folder) as spool:
        record = plan.conclude(
            verdicts, store.finished(), spool, device_of(module), lambda passes: signs
        )
        return record, spool.read()


def _threat(subject: Subject) -> Threat:
    return Threat.of(subject.record.norm, subject.record.eps)
