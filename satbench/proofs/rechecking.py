"""Rechecks: attacks on a random sample of a record's claimed survivors, with an unforeseeable seed.

Witnesses prove that images are broken; that the others survive is only claimed.  If many of them
were breakable, a random sample would contain some.  The hypergeometric distribution gives an exact
bound (`satbench.core.stats.intervals.unseen_bound`).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import satbench
from satbench.attacks import is_own_attack
from satbench.attacks.suites.suite import check_suite, parse_suite
from satbench.board.board import build_board
from satbench.board.definition import BoardDefinition
from satbench.calling.devices import choose_device, moved
from satbench.calling.generators import own_generators
from satbench.core.errors import SatbenchError
from satbench.core.progress.receiver import NoProgress, Progress
from satbench.core.stats.intervals import unseen_bound
from satbench.core.threat import Threat
from satbench.engine.machine.threads import one_thread_if_small
from satbench.engine.runner import CLEAN, SURVIVED, BatchResult
from satbench.engine.stage import Stage
from satbench.engine.suite_run import run_suite
from satbench.evaluation.given import Given
from satbench.evaluation.named_in_files import request_known
from satbench.evaluation.plan import Evaluation
from satbench.evaluation.surrogates import with_surrogates
from satbench.preflight.preflight import Needs, check_set_up
from satbench.proofs.verification import Subject, open_record
from satbench.records.rechecks import RecheckRecord, drawn_survivors, read_rechecks, record_digest
from satbench.records.record import PROTOCOL, ModelInfo, Record

MOST_NAME = 200
"""Most letters in the name of who rechecked."""


@dataclass(frozen=True)
class Recheck:
    """The options of a recheck.

    `images` is how many random claimed survivors are attacked; `attacks` are specs, by default
    those of the record.  `seed` determines the sample and all noise.  Its default is random,
    because somebody who knows it beforehand could prepare a record for it.
    """

    record: Path
    images: int = 50
    attacks: tuple[str, ...] = ()
    seed: int | None = None
    batch_size: int = 250
    device: str = "auto"
    given: Given = field(default_factory=Given)
    timeout: float | None = None

    def __post_init__(self) -> None:
        if self.images < 1:
            raise SatbenchError(f"expected 1 image or more to attack again, got {self.images}")


@dataclass(frozen=True)
class Rechecked:
    """The result of a recheck of some of the `survivors` that a record of `n` images claims.

    `sampled` are their indices in the data set, `broken` those that were broken.
    """

    name: str
    n: int
    survivors: int
    sampled: tuple[int, ...]
    broken: tuple[int, ...]
    attacks: tuple[str, ...]
    seed: int
    record: Record = field(repr=False)

    @property
    def breakable(self) -> int:
        """At most how many of the claimed survivors these attacks would break (95 %)."""
        return unseen_bound(len(self.broken), len(self.sampled), self.survivors)

    @property
    def too_high(self) -> float:
        """At most by how much the robust accuracy is too high, in [0, 1] (95 %)."""
        return self.breakable / self.n

    def __str__(self) -> str:
        return (
            f"{len(self.broken)} of {len(self.sampled)} claimed survivors fell, drawn at random "
            f"from {self.survivors} with seed {self.seed}: with 95 % confidence these attacks "
            f"would break at most {self.breakable}, so that robust accuracy "
            f"{self.survivors / self.n:.1%} is too high by at most {100 * self.too_high:.1f} points"
        )


def recheck_record(asked: Recheck, progress: Progress | None = None) -> Rechecked:
    """Attack a random sample of a record's survivors, and bound how far the record is too high.

    The record is verified first.  Nothing is written.  Raises SatbenchError for a record that does
    not hold or claims no survivors, and if the record's attacks are not built-in and `attacks` is
    empty.
    """
    seed = secrets.randbits(32) if asked.seed is None else asked.seed
    device = choose_device(asked.device)
    with own_generators(device, seed):
        subject = open_record(asked.record, asked.given)
        sample = drawn_survivors(subject.record, asked.images, seed)
        suite = _suite(asked, subject)
        threat = Threat.of(subject.record.norm, subject.record.eps)
        evaluation = Evaluation(
            subject.dataset,
            threat,
            [stage.spec for stage in suite],
            seed,
            asked.batch_size,
            asked.given.data_dir,
            timeout=asked.timeout,
        )
        module, size = subject.loaded.module, asked.batch_size
        with moved([module], device):
            needs, images = Needs.of(suite), subject.dataset
            learnt = check_set_up(module, images, threat, needs, asked.timeout, size)
            journal = _OnSample(subject, sample)
            context = evaluation.context(suite, journal, progress or NoProgress())
            with one_thread_if_small(device, learnt.flops):
                verdicts = run_suite(module, suite, context)
    broken = sample[verdicts[sample] != SURVIVED]
    return Rechecked(
        subject.record.model.name,
        subject.record.n,
        subject.record.surviving(),
        tuple(sample.tolist()),
        tuple(broken.tolist()),
        tuple(dict.fromkeys(stage.spec for stage in suite)),
        seed,
        subject.record,
    )


def kept_recheck(done: Rechecked, by: str = "") -> RecheckRecord:
    """Return a recheck in the form that a board keeps; `by` says who made it, in up to 200 letters.

    Raises SatbenchError for another name.
    """
    if len(by) > MOST_NAME or not (by.isprintable() or not by):
        raise SatbenchError(f"expected a name of up to {MOST_NAME} printable letters, got {by!r}")
    return RecheckRecord(
        record=done.record.identity,
        record_digest=record_digest(done.record),
        model=done.name,
        n=done.n,
        survivors=done.survivors,
        sampled=list(done.sampled),
        broken=list(done.broken),
        attacks=list(done.attacks),
        seed=done.seed,
        breakable=done.breakable,
        by=by,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        satbench=satbench.__version__,
        protocol=PROTOCOL,
    )


def unverified_records(definition: BoardDefinition) -> list[Path]:
    """Return the path of the lowest record of each model of a board without the mark `verified`."""
    records, rechecks = definition.read_records(), read_rechecks(definition.rechecks)
    return lowest_unverified(records, rechecks)


def lowest_unverified(records: Sequence[Record], rechecks: Sequence[RecheckRecord]) -> list[Path]:
    """Return the path of the record of least robust accuracy, for each model without the mark."""
    (benchmark,) = build_board(records, rechecks=rechecks).benchmarks
    lowest: dict[tuple[str, ...], Record] = {}
    for record in sorted(records, key=lambda one: (one.surviving(), one.identity)):
        lowest.setdefault(_model_key(record.model), record)
    wanted = [_model_key(row.model) for row in benchmark.rows if row.mark == "unverified"]
    return [path for key in wanted if (path := lowest[key].path) is not None]


def _model_key(model: ModelInfo) -> tuple[str, ...]:
    return model.weights_digest, model.architecture, model.activation, model.answers_digest


def _suite(asked: Recheck, subject: Subject) -> tuple[Stage, ...]:
    record = subject.record
    threat = Threat.of(record.norm, record.eps)
    if asked.attacks:
        suite = parse_suite(with_surrogates(asked.attacks, record.dataset.name, threat))
    else:
        own = [spec for spec in record.suite if is_own_attack(spec)]
        if not own:
            raise SatbenchError(
                "the record names no built-in attack: give the attack for the recheck, --attack"
            )
        suite = parse_suite(own)
        for name in {name for stage in suite for name in stage.traits.surrogates}:
            request_known(name, "", asked.given.trust)  # a name in a file runs no code
    check_suite(suite, threat)
    return suite


class _OnSample:
    """A journal in which all images outside the sample are wrong when clean: none is attacked."""

    def __init__(self, subject: Subject, sample: NDArray[np.int64]) -> None:
        self._subject, self._sample = subject, sample

    def finished(self) -> Iterator[BatchResult]:
        """Return that only the sample is left."""
        every = np.arange(self._subject.record.n)
        nothing = np.empty((0, *self._subject.dataset.shape), np.float32)
        gone = ~np.isin(every, self._sample)
        yield BatchResult(CLEAN, every, gone, nothing, 0, 0, seconds=0.0)

    def write(self, result: BatchResult) -> None:
        """Keep nothing: broken images are reported, not recorded."""
