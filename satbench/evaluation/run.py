"""The run of an evaluation: preflight, the suite, the diagnosis, and the record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from satbench.attacks import suite_digests
from satbench.attacks.suites.suite import check_suite, parse_suite
from satbench.calling.borrow import borrowed
from satbench.calling.devices import moved
from satbench.core.errors import SatbenchError
from satbench.core.files import sweep
from satbench.core.progress.receiver import NoProgress, Progress
from satbench.core.stats.intervals import confidence_sequence
from satbench.data import Dataset
from satbench.diagnosis.diagnose import NOTHING, Findings, images_to_examine, probe
from satbench.engine.bpda import Replaced
from satbench.engine.claims import Leading, Member, found_if_concluded, member_of
from satbench.engine.journal import RunStore, known_models
from satbench.engine.machine.best_batch import best_batch_size
from satbench.engine.machine.checkpointing import Checkpointed
from satbench.engine.machine.energy import meter_of
from satbench.engine.machine.flops import PassFlops, pass_flops
from satbench.engine.machine.threads import one_thread_if_small
from satbench.engine.machine.ways import PRECISIONS, WAYS, Way, chosen_way
from satbench.engine.runner import SURVIVED, BatchResult
from satbench.engine.suite_run import run_suite
from satbench.evaluation.config import DEFAULT_BATCH
from satbench.evaluation.own_code import identified, with_effect
from satbench.evaluation.plan import Evaluation, Plan
from satbench.evaluation.surrogates import with_surrogates
from satbench.preflight.preflight import Learnt, Needs, check_set_up
from satbench.records.flags import not_diagnosed
from satbench.records.record import (
    WRONG_CLEAN,
    ModelInfo,
    Record,
    Sequential,
    read_record,
    write_record,
)
from satbench.records.witnesses import WitnessSpool, witnesses_path

CHUNK = 250
"""Images between two checks of the interval: a block of AutoAttack, so that none is cut."""


@dataclass(frozen=True)
class Finished:
    """A record, its path, and whether it already existed."""

    record: Record
    path: Path
    found: bool


@found_if_concluded
def run_evaluation(
    module: nn.Module,
    info: ModelInfo,
    evaluation: Evaluation,
    device: torch.device,
    out: Path,
    progress: Progress | None = None,
    fresh: bool = False,
    shared: bool | Member = False,
) -> Finished:
    """Evaluate a model, or continue a stopped evaluation of the same inputs.

    The record and its witnesses are written to the folder `out`.  If the record of the same inputs
    already exists there, it is returned, unless `fresh`.  Other processes may work on a `shared`
    run: each does units that no other does, and one of them writes the record.  The model is
    unchanged afterwards, and on its own device.  Raises SatbenchError from preflight, the judge, or
    a bad attack spec.
    """
    if evaluation.until is not None:
        evaluation = replace(evaluation, dataset=evaluation.dataset.shuffled())
    attacks = with_surrogates(evaluation.attacks, evaluation.dataset.name, evaluation.threat)
    suite = parse_suite(attacks)
    check_suite(suite, evaluation.threat)
    way = chosen_way(device)
    stand_ins = evaluation.stand_ins
    with moved([module, *stand_ins.values()], device):
        searched = _as_searched(module, evaluation)
        needs = Needs.of(suite)
        learnt = check_set_up(
            searched,
            evaluation.dataset,
            evaluation.threat,
            needs,
            evaluation.timeout,
            evaluation.batch_size or DEFAULT_BATCH,
        )
        info = replace(info, parameters=info.parameters + learnt.parameters)
        replacements = with_effect(evaluation.replacements, module, evaluation.dataset)
        evaluation = replace(evaluation, replacements=replacements)
        known = known_models(out, info.name)
        asked = Checkpointed(module) if evaluation.checkpointing else module
        info = identified(info, asked, evaluation.dataset, device, known, learnt.look)
        plan = Plan(info, evaluation, suite)
        store = RunStore(out, plan.identity, evaluation.dataset.images.shape)
        if not fresh and (found := _found(plan, out, way)) is not None:
            store.sweep()
            return found
        with store.claimed(shared), one_thread_if_small(device, learnt.flops):
            if shared and (found := _found(plan, out, way)) is not None:
                store.remove()  # another process wrote the record while this one started
                return found
            store.begin(info, fresh, suite_digests(plan.specs))
            shown = progress or NoProgress()
            if not evaluation.batch_size:
                plan = _with_good_batches(plan, module, store, device, shown)
            run = _Run(module, plan, store, device, shown, learnt, shared, way)
            run.attack()
            with store.concluding(shared, run.progress.note):
                if shared and (found := _found(plan, out, way)) is not None:
                    store.remove()  # this process has created the folder again since
                    return replace(found, found=False)
                path = run.conclude(out)
                store.remove()
    return Finished(read_record(path), path, found=False)


class _Run:
    """One run in progress."""

    def __init__(
        self,
        module: nn.Module,
        plan: Plan,
        store: RunStore,
        device: torch.device,
        progress: Progress,
        learnt: Learnt,
        shared: bool | Member,
        way: Way,
    ) -> None:
        self.module, self.plan, self.store = module, plan, store
        self.device, self.progress, self.learnt = device, progress, learnt
        self.shared, self.member = shared, member_of(shared) or Member()
        self.flops = learnt.flops or _flops_of(module, plan.evaluation.dataset, device)
        self.spent = _spent_from_now_on(store, device, shared)
        self.way: Way = WAYS[store.agreed("way", WAYS.index(way) + 1) - 1]
        self.verdicts = np.empty(0, np.int16)
        self.sequential: Sequential | None = None

    def attack(self) -> None:
        """Run the suite on all images, or until the interval is narrow enough."""
        if self.plan.evaluation.until is None:
            for span in self.member.spans(self.plan.suite, len(self.plan.evaluation.dataset)):
                self.verdicts = self._suite(span)
        else:
            self.verdicts, self.sequential = self._until(self.plan.evaluation.until)
            self.plan = _of_first(self.plan, len(self.verdicts))

    def conclude(self, out: Path) -> Path:
        """Write witnesses and record to `out`, and return the record's path."""
        plan, verdicts = self.plan, self.verdicts
        self._check_attacked(verdicts)
        path = out / f"{plan.file_stem}.json"
        for file in (path, witnesses_path(path)):
            sweep(file)
        with WitnessSpool(plan.evaluation.dataset.shape, self.store.folder) as spool:
            record = plan.conclude(
                verdicts,
                self._results(),
                spool,
                self.device,
                self._diagnosed,
                self.sequential,
                self.flops,
                self.spent(),
            )
            spool.write(witnesses_path(path))
        write_record(replace(record, notes=list(self.learnt.notes)), path)
        return path

    def _diagnosed(self, passes: int) -> Findings:
        """Look for signs of masked gradients after `passes` passes."""
        evaluation, verdicts = self.plan.evaluation, self.verdicts
        if not evaluation.diagnose:
            return NOTHING
        right = np.flatnonzero(verdicts != WRONG_CLEAN)
        return probe(
            _as_searched(self.module, evaluation),
            evaluation.dataset,
            evaluation.threat,
            right,
            evaluation.batch_size,
            evaluation.seed,
            evaluation.timeout,
            most=images_to_examine(passes, len(right), int((verdicts == SURVIVED).sum())),
        )

    def _results(self) -> Iterator[BatchResult]:
        """Yield the units of the images that were run.

        A stopped run of the same inputs may have had a narrower interval as its goal.
        """
        n = len(self.verdicts)
        return (r for r in self.store.finished() if (r.indices < n).all())

    def _check_attacked(self, verdicts: NDArray[np.int16]) -> None:
        """Raise SatbenchError if images survive because no attack tried any."""
        survive = bool((verdicts == SURVIVED).any())
        if survive and not any(r.stage and len(r.indices) for r in self.store.finished()):
            raise SatbenchError(
                f"expected attacks on the images, got {' and '.join(self.plan.specs)}, which "
                "selected none of them: add an attack that does not select, such as pgd-50"
            )

    def _until(self, width: float) -> tuple[NDArray[np.int16], Sequential]:
        """Run chunk by chunk until the interval is no wider; return the verdicts so far."""
        population = len(self.plan.evaluation.dataset)
        for start in range(0, population, CHUNK):
            stop = min(start + CHUNK, population)
            verdicts = self._suite(slice(start, stop))[:stop]
            survived = int((verdicts == SURVIVED).sum())
            low, high = confidence_sequence(survived, stop, population)
            if high - low <= width:
                break
        return verdicts, Sequential(width, low, high)

    def _suite(self, span: slice) -> NDArray[np.int16]:
        suite, sharing = self.plan.suite, self.store.sharing(self.shared)
        context = replace(
            self.plan.evaluation.context(
                suite, self.store, self.progress, sharing, self.flops, self.device
            ),
            predictions=self.learnt.predictions,
            way=self.way,
        )
        return run_suite(self.module, self.member.stages(suite), context, span)


def _as_searched(module: nn.Module, evaluation: Evaluation) -> nn.Module:
    """Return the model with the gradients that searches use."""
    if evaluation.checkpointing:
        return Checkpointed(module)
    stand_ins = evaluation.stand_ins
    return Replaced(module, stand_ins) if stand_ins else module


def network_name(info: ModelInfo) -> str:
    """Return the name of a network in the files of measured speeds."""
    return f"{info.architecture or info.name} {info.activation} {info.parameters} parameters"


def _with_good_batches(
    plan: Plan, module: nn.Module, store: RunStore, device: torch.device, progress: Progress
) -> Plan:
    """Return the plan with a measured batch size; all processes of a run use the same one."""
    evaluation, info = plan.evaluation, plan.model
    count = min(DEFAULT_BATCH, len(evaluation.dataset))
    x = torch.from_numpy(evaluation.dataset.pixels(np.arange(count))).to(device)
    with borrowed(module) as model:
        found = best_batch_size(model, x, network_name(info), evaluation.checkpointing)
    size = store.agreed("batch_size", found.size)
    if size == found.size:
        progress.note(str(found))
    return replace(plan, evaluation=replace(evaluation, batch_size=size))


def _flops_of(module: nn.Module, dataset: Dataset, device: torch.device) -> PassFlops | None:
    with borrowed(module) as model:
        x = torch.from_numpy(dataset.pixels(np.zeros(1, np.int64))).to(device)
        return pass_flops(model, x)


def _spent_from_now_on(
    store: RunStore, device: torch.device, shared: bool | Member
) -> Callable[[], float | None]:
    """Return a function that returns the joules spent from now on; None if unknown.

    It returns None for a run that was resumed or that other machines may work on.
    """
    alone = not shared or isinstance(shared, Leading)
    meter = meter_of(device)
    before = meter.read()
    whole = alone and bool(before) and not any(True for _ in store.finished())
    return lambda: meter.since(before) if whole else None


def _found(plan: Plan, out: Path, way: Way) -> Finished | None:
    """Return the record of the same inputs, if the folder already has it.

    A record of searches in lower precision counts only for such a `way`.
    """
    width, n = plan.evaluation.until, len(plan.evaluation.dataset)
    for count in [n] if width is None else [*range(CHUNK, n, CHUNK), n]:
        smaller = plan if width is None else _of_first(plan, count)
        path = out / f"{smaller.file_stem}.json"
        if not path.exists():
            continue
        record = read_record(path)
        _check_suites(record, plan, path)
        reached = record.sequential.width if record.sequential else None
        if plan.evaluation.diagnose and record.diagnosis and not_diagnosed(record.diagnosis.flags):
            continue
        if any(
            stage.search == other
            for stage in record.stages
            for other in {*PRECISIONS[1:]} - {way.precision}
        ):
            continue
        if record.identity == smaller.identity and reached == width:
            return Finished(record, path, found=True)
    return None


def _check_suites(record: Record, plan: Plan, path: Path) -> None:
    """Raise SatbenchError if a suite of a record had other parts than the suite of its name now."""
    here = suite_digests(plan.specs)
    for name, digest in record.suites.items():
        if here.get(name, digest) != digest:
            raise SatbenchError(
                f"expected {path} to be of the suite {name} as it is now, got a record of other "
                "parts under the same name and version: give --out another folder, or remove the "
                "record"
            )


def _of_first(plan: Plan, n: int) -> Plan:
    evaluation = replace(plan.evaluation, dataset=plan.evaluation.dataset.first(n))
    return replace(plan, evaluation=evaluation)
