"""Repetitions of a record's run, with a report of every image whose result differs.

Noise is a function of seed, attack, restart and image.  So with the same machine and versions
nothing differs.  On another machine rounding may change a few images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from tempfile import gettempdir

import numpy as np
import torch
from numpy.typing import NDArray

from satbench.attacks import is_given, is_own_attack, suite_digests
from satbench.attacks.suites.suite import check_suite, parse_suite
from satbench.calling.devices import choose_device, moved
from satbench.calling.generators import own_generators
from satbench.calling.threads import with_threads
from satbench.core.errors import SatbenchError
from satbench.core.progress.receiver import NoProgress, Progress
from satbench.core.specs import split_spec
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.diagnosis.diagnose import NOTHING, Findings, images_to_examine, probe
from satbench.engine.bpda import Replaced
from satbench.engine.runner import CLEAN, SURVIVED, BatchResult
from satbench.engine.stage import Stage
from satbench.engine.suite_run import run_suite
from satbench.evaluation.given import Given, check_surrogates, find_images, find_model
from satbench.evaluation.own_code import with_effect
from satbench.evaluation.plan import Evaluation, Plan
from satbench.evaluation.replacements import IDENTITY, load_replacements
from satbench.evaluation.run import CHUNK
from satbench.models import LoadedModel
from satbench.preflight.preflight import Needs, check_set_up
from satbench.proofs.challenging import with_result_flags
from satbench.proofs.reproduced import Reproduced, compare_runs
from satbench.proofs.verification import check_model, differing_answers
from satbench.records.check import check_record
from satbench.records.flags import not_diagnosed
from satbench.records.join import Proven, add_challenge
from satbench.records.record import PROTOCOL, WRONG_CLEAN, Record, read_record
from satbench.records.witnesses import WitnessSpool, find_witnesses, read_witnesses


@dataclass(frozen=True)
class Reproduction:
    """The options of a repetition: the record, and others as for `challenging.Challenge`.

    Batch size and threads are those of the record.
    """

    record: Path
    device: str = "auto"
    given: Given = field(default_factory=Given)
    timeout: float | None = None


def reproduce_record(asked: Reproduction, progress: Progress | None = None) -> Reproduced:
    """Repeat the run of a record; nothing is written.

    Challenges are repeated after the run that they challenged.  Raises SatbenchError if the model,
    the images, an attack or a surrogate is not that of the record, and for records that do not say
    enough: those of another protocol, merged ones, and those with images from elsewhere.
    """
    record = read_record(asked.record)
    if faults := check_record(record):
        raise SatbenchError(f"the record {asked.record} does not hold: {faults[0]}")
    parts = _parts(record, asked.given)
    device = choose_device(asked.device)
    with own_generators(device, record.seed), with_threads(record.environment.threads):
        dataset, loaded = _found(record, asked.given)
        run = _Again(record, dataset, loaded, asked)
        with moved([loaded.module, *run.stand_ins.values()], device):
            again, found = run.run(parts, device, progress or NoProgress())
    try:
        path = find_witnesses(asked.record, record.witnesses_digest)
        read = read_witnesses(path, most=record.n)
    except SatbenchError:
        return compare_runs(record, again, None, found)
    kept = read if read.digest == record.witnesses_digest else None
    return compare_runs(record, again, kept, found)


@dataclass(frozen=True)
class _Part:
    """Stages that ran together: those of one evaluation, or of one challenge."""

    specs: tuple[str, ...]
    seed: int
    by: str


def _parts(record: Record, given: Given) -> list[_Part]:
    """Return the parts to run, in order.  Raises SatbenchError if one cannot be repeated."""
    for why, holds in (
        (
            "is merged from others: reproduce those, because each ran on different images",
            any(stage.apart for stage in record.stages),
        ),
        (
            "has images from elsewhere, and keeps only those that broke the model: satbench "
            "verify checks them",
            any(stage.attack.startswith("images(") for stage in record.stages),
        ),
        (
            f"is of an older protocol than {PROTOCOL}: other code ran its attacks; "
            "make a new record with satbench eval",
            any((stage.protocol or record.protocol) != PROTOCOL for stage in record.stages),
        ),
    ):
        if holds:
            raise SatbenchError(f"the record cannot be reproduced: it {why}")
    for spec in record.suite:
        name = split_spec(spec)[0]
        if not (is_own_attack(spec) or is_given(spec) or name in given.trust):
            raise SatbenchError(
                f"the record ran the attack {name!r}, which satbench does not have: if you know "
                f"what it does, give --trust {name}"
            )
    here = suite_digests(record.suite)
    for name, digest in record.suites.items():
        if here.get(name, digest) != digest:
            raise SatbenchError(f"the suite {name} here is not the one of the record")
    parts = [
        _Part(tuple(dict.fromkeys(one.attack for one in stages)), seed, by)
        for (_, seed, by), stages in (
            (key, list(found))
            for key, found in groupby(
                record.stages,
                lambda one: (one.origin, record.seed if one.seed is None else one.seed, one.by),
            )
        )
    ]
    if record.replacements and len(parts) > 1:
        raise SatbenchError(
            "the record cannot be reproduced: it does not say which of its runs replaced the "
            f"gradients of {', '.join(record.replacements)}"
        )
    return parts


def _found(record: Record, given: Given) -> tuple[Dataset, LoadedModel]:
    """Return images and model.  Raises SatbenchError if they are not those of the record."""
    dataset = find_images(record, given)
    if dataset is None or dataset.digest != record.dataset.digest:
        raise SatbenchError(
            f"the images are not the record's: those of {record.dataset.name} here have another "
            f"digest than {record.dataset.digest[:12]}…"
        )
    loaded = find_model(record, given)
    faults = [*check_model(record, loaded), *check_surrogates(record, dataset, given)]
    if not faults and (differing := differing_answers(record, dataset, loaded)):
        faults = [f"the model is not the record's: it gives other {differing}"]
    if faults:
        raise SatbenchError(faults[0])
    return dataset, loaded


class _Again:
    """The repetition of a record's runs."""

    def __init__(
        self, record: Record, dataset: Dataset, loaded: LoadedModel, asked: Reproduction
    ) -> None:
        self.record, self.dataset, self.loaded, self.asked = record, dataset, loaded, asked
        self.threat = Threat.of(record.norm, record.eps)
        texts = {layer: text.partition(" ")[0] for layer, text in record.replacements.items()}
        for layer, text in texts.items():
            if text != IDENTITY and text not in asked.given.trust:
                raise SatbenchError(
                    f"the record replaced the gradient of the layer {layer} by the code {text!r}: "
                    f"if you want to run it, give --trust {text}"
                )
        made = load_replacements(texts)
        self.replacements = with_effect(made, loaded.module, dataset)
        for layer, one in self.replacements.items():
            if one.text != record.replacements[layer]:
                raise SatbenchError(
                    f"the replacement of the gradient of {layer} is other code here"
                )

    @property
    def stand_ins(self) -> dict[str, torch.nn.Module]:
        return {name: one.module for name, one in self.replacements.items()}

    def run(self, parts: Sequence[_Part], device: torch.device, progress: Progress) -> Proven:
        """Run the parts in order, each on the survivors of the last; return record, witnesses."""
        done = self._run(parts[0], device, progress, None)
        for part in parts[1:]:
            run = self._run(part, device, progress, np.array(done[0].verdicts))
            done = add_challenge(done, run, part.by)
            done = with_result_flags(done[0]), done[1]
        return done

    def _run(
        self,
        part: _Part,
        device: torch.device,
        progress: Progress,
        before: NDArray[np.int64] | None,
    ) -> Proven:
        suite = parse_suite(part.specs)
        check_suite(suite, self.threat)
        evaluation = self._evaluation(part, suite)
        module = self.loaded.module
        searched = Replaced(module, self.stand_ins) if self.stand_ins else module
        size, timeout = evaluation.batch_size, self.asked.timeout
        check_set_up(searched, self.dataset, self.threat, Needs.of(suite), timeout, size)
        journal = _InMemory(self.dataset.shape, before)
        context = evaluation.context(suite, journal, progress)
        n = len(self.dataset)
        step = CHUNK if self.record.sequential and before is None else n
        verdicts = np.empty(0, np.int16)
        for start in range(0, n, step):
            span = slice(start, min(start + step, n))
            verdicts = np.concatenate([verdicts, run_suite(module, suite, context, span)[span]])

        def diagnosed(passes: int) -> Findings:
            if before is not None or not evaluation.diagnose:
                return NOTHING
            right = np.flatnonzero(verdicts != WRONG_CLEAN)
            most = images_to_examine(passes, len(right), int((verdicts == SURVIVED).sum()))
            return probe(
                searched, self.dataset, self.threat, right, size, part.seed, timeout, most=most
            )

        plan = Plan(self.record.model, evaluation, suite)
        with WitnessSpool(self.dataset.shape, Path(gettempdir())) as spool:
            sequential = self.record.sequential
            made = plan.conclude(verdicts, journal.results, spool, device, diagnosed, sequential)
            return made, spool.read()

    def _evaluation(self, part: _Part, suite: Sequence[Stage]) -> Evaluation:
        return Evaluation(
            self.dataset,
            self.threat,
            [stage.spec for stage in suite],
            part.seed,
            self.record.environment.batch_size,
            self.asked.given.data_dir,
            self.replacements,
            timeout=self.asked.timeout,
            diagnose=not not_diagnosed(
                self.record.diagnosis.flags if self.record.diagnosis else []
            ),
        )


class _InMemory:
    """A journal in memory; images broken `before`, (N,) verdicts or None, are not attacked."""

    def __init__(self, shape: tuple[int, ...], before: NDArray[np.int64] | None) -> None:
        self.results: list[BatchResult] = []
        self._shape, self._before = shape, before

    def finished(self) -> Iterator[BatchResult]:
        """Return the batches so far."""
        if self._before is not None:
            every = np.arange(len(self._before))
            nothing = np.empty((0, *self._shape), np.float32)
            gone = self._before != SURVIVED
            yield BatchResult(CLEAN, every, gone, nothing, 0, 0, seconds=0.0)
        yield from list(self.results)

    def write(self, result: BatchResult) -> None:
        """Keep one batch."""
        self.results.append(result)
