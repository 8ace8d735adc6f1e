"""The execution of a plan: find or train each model, evaluate it, measure it, keep the results."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import torch

from satbench.attacks.suites.suite import parse_suite
from satbench.calling.devices import choose_device, moved
from satbench.calling.generators import own_generators
from satbench.core.console import BarProgress
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.evaluation.own_code import identified
from satbench.evaluation.plan import Evaluation
from satbench.evaluation.run import run_evaluation
from satbench.evaluation.surrogates import surrogate_digest
from satbench.models import LoadedModel, load_model, request_model
from satbench.records.answers import difference
from satbench.records.record import DatasetInfo, Inputs, ModelInfo
from satbench.studies.attempts import Attempts
from satbench.studies.images import DatasetCache
from satbench.studies.measures import MEASURED_IMAGES, measure_model
from satbench.studies.plan import EVALUATION_SEED, Cell, StudyPlan, Wanted
from satbench.studies.run_file import StudyRun
from satbench.studies.store import Model, Models, Places, Records, covering, outcome_of
from satbench.training.loop import EpochMetrics
from satbench.training.run import default_name, run_training

Part = Literal["all", "train", "evaluate", "page"]

PATIENCE = 2.0
"""Seconds between two checks of a run that another process does."""


@dataclass(frozen=True)
class Machine:
    """The machine to compute on.  `threads` is None for torch's choice; `say` reports progress."""

    device: str = "auto"
    threads: int | None = None
    quiet: bool = False
    say: Callable[[str], None] = lambda text: None


class Runner:
    """Executes a plan; a second process with the same plan takes a share of the runs."""

    def __init__(
        self, plan: StudyPlan, places: Places, images: DatasetCache, machine: Machine
    ) -> None:
        self.plan, self.places, self.images, self.machine = plan, places, images, machine
        self.models, self.records = Models(places), Records(places)
        self._surrogates: dict[tuple[str, str], str] = {}
        if machine.threads:  # here, so that an estimate is made with as many as the work
            torch.set_num_threads(machine.threads)

    def carry_out(
        self,
        part: Part,
        seconds: Callable[[Cell], float] | None = None,
        attempts: Attempts | None = None,
    ) -> None:
        """Do the missing work of a part, run by run.

        `seconds` estimates the remaining time of a run, for the progress report.  Raises
        SatbenchError if a run fails; all earlier work is kept.  With `attempts` the error is
        reported there, and the other runs are made.
        """
        for cell in self.plan.cells:
            self._refuse_other_code(cell)
        done: set[str] = set()
        reported: set[str] = set()
        while waiting := [
            c for c in self.plan.cells if c.key not in done and self.is_open(c, part)
        ]:
            worked = False
            for place, cell in enumerate(waiting):
                with self.places.claimed(cell.key) as mine:
                    if not mine:
                        continue  # another process does it: check again after the others
                    if self.is_open(cell, part) and not (attempts and attempts.spent(cell.key)):
                        self._say(cell, len(done), waiting[place:], seconds)
                        made = attempts.made(cell.key, cell.label) if attempts else nullcontext()
                        with made:
                            self._carry_out(cell, part)
                done.add(cell.key)
                worked = True
            if not worked:
                for cell in waiting:
                    who = f"waiting for {self.places.worker(cell.key)}, which does {cell.label}"
                    if who not in reported:
                        self.machine.say(who)
                        reported.add(who)
                time.sleep(PATIENCE)

    def is_open(self, cell: Cell, part: Part) -> bool:
        """Whether there is work for a cell that the part can do."""
        if part == "page" or self.is_complete(cell):
            return False
        found = bool(cell.model) or self.models.find(cell) is not None
        return not found if part == "train" else found or part == "all"

    def is_complete(self, cell: Cell) -> bool:
        """Whether all results for a cell are kept."""
        run = self.places.run(cell.key)
        return run is not None and not self.missing(cell, run) and not self._unmeasured(cell, run)

    def missing(self, cell: Cell, run: StudyRun | None) -> list[Wanted]:
        """Return the missing evaluations of a run."""
        n = self.plan.n
        name = self.images.test(cell.dataset, n).name
        return [
            one
            for one in cell.wanted
            if run is None or run.outcome(one.suite, str(one.threat), name, n) is None
        ]

    def _unmeasured(self, cell: Cell, run: StudyRun) -> bool:
        return self.plan.study.measured and not run.measures

    def _refuse_other_code(self, cell: Cell) -> None:
        run = self.places.run(cell.key)
        if run and run.answers and difference(run.answers, cell.answers):
            raise SatbenchError(
                f"the results of {cell.label} ({cell.key}) are those of other code: the model "
                "found has the same weights but other answers; give --results another folder for "
                "your own results"
            )

    def _carry_out(self, cell: Cell, part: Part) -> None:
        model = None if cell.model else self.models.find(cell)
        if model is None and not cell.model:
            self._train(cell)
            model = self.models.find(cell)
            if model is None:
                raise SatbenchError(
                    f"the training of {cell.label} left no model in {self.places.trained}"
                )
        if part != "train":
            self._evaluate(cell, model)

    def _train(self, cell: Cell) -> None:
        config = cell.config
        if config is None:
            raise SatbenchError(f"{cell.label} is a given model, and cannot be trained")

        def tell(metrics: EpochMetrics) -> None:
            self.machine.say(
                f"  epoch {metrics.epoch}/{config.epochs}: held-out clean "
                f"{metrics.held_out_clean:.1%}, PGD-10 {metrics.held_out_pgd10:.1%}"
            )

        machine, folder = self.machine, self.places.trained
        name = stored_name(cell)
        data_dir = self.images.data_dir
        run_training(
            config, name, folder, data_dir, machine.device, machine.threads, tell, machine.quiet
        )

    def _evaluate(self, cell: Cell, model: Model | None) -> None:
        n = self.plan.n
        dataset = self.images.test(cell.dataset, n)
        device = choose_device(self.machine.device)
        loaded = load_model(request_model(model.text if model else cell.model), dataset.classes)
        with moved([loaded.module], device):
            info = identified(loaded.info, loaded.module, dataset, device, self.records.models)
        loaded = replace(loaded, info=info)
        run = self.places.run(cell.key) or _fresh_run(cell, loaded, model)
        here = loaded.info.weights_digest
        if run.weights_digest != here:
            raise SatbenchError(
                f"the results of {cell.label} ({cell.key}) are those of weights "
                f"{run.weights_digest[:12]}…, but the model found has {here[:12]}…: "
                "give --results another folder for your own results"
            )
        missing = self.missing(cell, run)
        for threat in dict.fromkeys(one.threat for one in missing):
            asked = [one.suite for one in missing if one.threat == threat]
            for suite in covering(self._open(asked, Wanted((), threat), loaded, cell)):
                self._run_suite(loaded, cell, Wanted(suite, threat), device)
        for one in missing:
            record = self.records.find(self._inputs(one, loaded.info, cell))
            if record is None:
                raise SatbenchError(f"the evaluation of {cell.label} left no record")
            run = run.with_outcome(outcome_of(record, one.suite))
            self.places.write(run)
        if self._unmeasured(cell, run):
            images = self.images.first(cell.dataset, MEASURED_IMAGES)
            threat = Threat.parse(self.plan.base.threat)
            run = replace(run, measures=measure_model(loaded.module, images, threat, device))
        self.places.write(run)

    def is_recorded(self, wanted: Wanted, model: Model, cell: Cell) -> bool:
        """Whether a record has the result of an evaluation of a trained model."""
        card = model.card
        info = ModelInfo(
            card.name,
            "file",
            card.architecture,
            card.activation,
            card.parameters,
            card.weights_digest,
            {},
        )
        return self.records.find(self._inputs(wanted, info, cell)) is not None

    def _open(
        self, suites: list[tuple[str, ...]], within: Wanted, loaded: LoadedModel, cell: Cell
    ) -> list[tuple[str, ...]]:
        return [
            suite
            for suite in suites
            if self.records.find(self._inputs(replace(within, suite=suite), loaded.info, cell))
            is None
        ]

    def _run_suite(
        self, loaded: LoadedModel, cell: Cell, wanted: Wanted, device: torch.device
    ) -> None:
        dataset = self.images.test(cell.dataset, self.plan.n)
        evaluation = Evaluation(
            dataset,
            wanted.threat,
            wanted.suite,
            EVALUATION_SEED,
            data_dir=self.images.data_dir,
        )
        with BarProgress(self.machine.quiet) as progress:
            progress.model(cell.label)
            with own_generators(device, EVALUATION_SEED):
                finished = run_evaluation(
                    loaded.module, loaded.info, evaluation, device, self.places.records, progress
                )
        self.records.add(finished.record)

    def _inputs(self, wanted: Wanted, info: ModelInfo, cell: Cell) -> Inputs:
        data = self.images.test(cell.dataset, self.plan.n)
        return Inputs(
            info,
            DatasetInfo(data.name, data.split, len(data), data.classes, data.digest),
            wanted.threat.norm,
            str(wanted.threat).partition(":")[2],
            EVALUATION_SEED,
            list(wanted.suite),
            self._borrowed(wanted.suite, data),
        )

    def _borrowed(self, suite: tuple[str, ...], data: Dataset) -> dict[str, str]:
        """Return the surrogates of a suite, each with its digest."""
        names = {name for stage in parse_suite(suite) for name in stage.traits.surrogates}
        for name in names:
            if (name, data.digest) not in self._surrogates:
                self._surrogates[name, data.digest] = surrogate_digest(name, data)
        return {name: self._surrogates[name, data.digest] for name in sorted(names)}

    def _say(
        self,
        cell: Cell,
        done: int,
        left: Sequence[Cell],
        seconds: Callable[[Cell], float] | None,
    ) -> None:
        found = cell.model or self.models.find(cell)
        what = "evaluating" if found else "training"
        time_left = f", about {duration(sum(map(seconds, left)))} left" if seconds else ""
        number, total = done + 1, done + len(left)
        self.machine.say(f"run {number} of {total}: {what} {cell.label}{time_left}")


def duration(seconds: float) -> str:
    """Return a length of time in words: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def stored_name(cell: Cell) -> str:
    """Return the name of a cell's model in the store."""
    return f"{default_name(cell.config)}-{cell.key[:8]}" if cell.config else cell.model


def _fresh_run(cell: Cell, loaded: LoadedModel, model: Model | None) -> StudyRun:
    training = model.card.training if model else None
    info = loaded.info
    return StudyRun(
        key=cell.key,
        model=cell.model or (model.text if model and model.origin == "zoo" else stored_name(cell)),
        architecture=info.architecture,
        activation=info.activation,
        parameters=info.parameters,
        seed=cell.seed,
        training={**training.config, "data_digest": training.data_digest} if training else {},
        weights_digest=info.weights_digest,
        command=training.command if training else f"satbench eval --model {cell.model}",
        held_out=dict(training.held_out) if training else {},
        environment={"torch": training.torch, "satbench": training.satbench} if training else {},
        answers=cell.answers,
        notes=tuple(training.notes) if training else (),
    )
