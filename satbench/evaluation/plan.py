"""The plan of a run: its inputs, its identity, and how to make the record from its results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from satbench.attacks import suite_digests
from satbench.attacks.suites.suite_parts import is_for_doubt
from satbench.core.errors import SatbenchError
from satbench.core.limits import check_timeout
from satbench.core.progress.receiver import Progress
from satbench.core.threat import Threat, show_fraction
from satbench.data import Dataset
from satbench.diagnosis.diagnose import Findings
from satbench.engine.contract import Prepared
from satbench.engine.machine.flops import PassFlops
from satbench.engine.runner import CLEAN, SURVIVED, BatchResult, Context, Journal, Sharing
from satbench.engine.searched import joint
from satbench.engine.stage import Stage
from satbench.evaluation.cost.stage_costs import costs_of
from satbench.evaluation.cost.units import CPU, images_a_unit
from satbench.evaluation.environment import measured_environment
from satbench.evaluation.replacements import Replacement
from satbench.evaluation.surrogates import NamedSurrogates, surrogate_digest
from satbench.records.flags import (
    Kind,
    flag_not_diagnosed,
    flags_from_assumed,
    flags_from_result,
    flags_from_training_data,
)
from satbench.records.record import (
    DatasetInfo,
    Diagnosis,
    Inputs,
    ModelInfo,
    Record,
    Sequential,
    StageResult,
    identity_of,
    record_stem,
)
from satbench.records.witnesses import WitnessSpool


@dataclass(frozen=True)
class Evaluation:
    """The settings of an evaluation, except the model.

    `attacks` are specs as users write them, in order; `seed` determines all noise; `batch_size` is
    the number of images that go through the model at once (no verdict depends on it), 0 to measure
    the best.  `data_dir` is the folder of the data set, for attacks that query images outside the
    evaluated ones.  `replacements` names layers that have another backward in searches (BPDA, see
    `satbench.engine.bpda`).  With `until`, a share in (0, 1], the data set is the population: its
    images are evaluated in a random order until the 95 % confidence sequence of the robust accuracy
    is no wider.  `timeout` is how many seconds one batch may take, None for no limit; no verdict
    depends on it.  `trained_on` says that the model was trained on these images, and the record is
    flagged.  Without `diagnose`, satbench does not look for signs of masked gradients, and the
    record is flagged.  With `checkpointing`, searches keep fewer activations and recompute them; no
    verdict depends on it.
    """

    dataset: Dataset
    threat: Threat
    attacks: Sequence[str]
    seed: int = 0
    batch_size: int = 250
    data_dir: Path | None = None
    replacements: Mapping[str, Replacement] = field(default_factory=dict)
    until: float | None = None
    timeout: float | None = None
    trained_on: bool = False
    diagnose: bool = True
    checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 0:
            raise SatbenchError(
                f"expected a batch size of 1 or more, or auto, got {self.batch_size}"
            )
        check_timeout(self.timeout)
        if self.checkpointing and self.replacements:
            raise SatbenchError(
                "checkpointing would recompute layers without their replacements: give only one "
                "of bpda and checkpointing"
            )
        if self.until is not None and not 0 < self.until <= 1:
            raise SatbenchError(
                f"expected an interval above 0 and at most 100 %, such as 2%, got {self.until:.4g}"
            )

    @property
    def stand_ins(self) -> dict[str, nn.Module]:
        """The modules whose backward replaces that of a layer, by the layer's name."""
        return {name: one.module for name, one in self.replacements.items()}

    def context(
        self,
        suite: Sequence[Stage],
        journal: Journal,
        progress: Progress,
        sharing: Sharing | None = None,
        flops: PassFlops | None = None,
        device: torch.device = CPU,
    ) -> Context:
        """Return the context in which the units of this evaluation run; its attacks are `suite`.

        `flops` are those of a pass of the model on `device`, None if unknown.
        """
        costs = costs_of(suite, self.dataset.classes)
        return Context(
            images=self.dataset,
            threat=self.threat,
            journal=journal,
            progress=progress,
            seed=self.seed,
            batch_size=self.batch_size,
            surrogates=NamedSurrogates(self.dataset, self.data_dir),
            replacements=self.stand_ins,
            timeout=self.timeout,
            sharing=sharing,
            costs=costs,
            checkpointing=self.checkpointing,
            units=[images_a_unit(cost, flops, device, self.batch_size) for cost in costs],
        )


@dataclass(frozen=True)
class Plan:
    """The inputs of a run, and how its record is made."""

    model: ModelInfo
    evaluation: Evaluation
    suite: tuple[Stage, ...]

    @property
    def specs(self) -> list[str]:
        """The canonical specs of the suite's attacks, in order."""
        return list(dict.fromkeys(stage.spec for stage in self.suite))

    @property
    def dataset(self) -> DatasetInfo:
        """The images, for the record."""
        data = self.evaluation.dataset
        n, digest = len(data), data.digest
        return DatasetInfo(data.name, data.split, n, data.classes, digest, data.population)

    @property
    def eps(self) -> str:
        """The radius as text."""
        return show_fraction(self.evaluation.threat.eps)

    @cached_property
    def sources(self) -> dict[str, str]:
        """The surrogates of the attacks, each with its digest."""
        names = {name for stage in self.suite for name in stage.traits.surrogates}
        return {name: surrogate_digest(name, self.evaluation.dataset) for name in sorted(names)}

    @property
    def replacements(self) -> dict[str, str]:
        """The layers with another backward, each with the source of it."""
        return {name: one.text for name, one in sorted(self.evaluation.replacements.items())}

    @cached_property
    def inputs(self) -> Inputs:
        """Everything that decides the outcome."""
        return Inputs(
            self.model,
            self.dataset,
            self.evaluation.threat.norm,
            self.eps,
            self.evaluation.seed,
            self.specs,
            self.sources,
            self.replacements,
        )

    @cached_property
    def identity(self) -> str:
        """The SHA-256 of the inputs."""
        return identity_of(self.inputs)

    @property
    def file_stem(self) -> str:
        """A readable name, made unique by the first digits of the identity."""
        return record_stem(self.inputs)

    def conclude(
        self,
        verdicts: NDArray[np.int16],
        results: Iterable[BatchResult],
        spool: WitnessSpool,
        device: torch.device,
        diagnosed: Callable[[int], Findings],
        sequential: Sequential | None = None,
        flops: PassFlops | None = None,
        joules: float | None = None,
    ) -> Record:
        """Make the record of a finished run; its witnesses are added to `spool` batch by batch.

        `results` may be in any order, and are iterated once.  `diagnosed` returns the diagnosis of
        a run of a number of passes.  `flops` are those of a pass, `joules` those of the machine in
        all; None if unknown.
        """
        tallies = [_tally(result, spool) for result in results]
        diagnosis = diagnosed(sum(one.forwards + one.backwards for one in tallies))
        stages = [
            self._stage(number, tallies, verdicts) for number in range(1, len(self.suite) + 1)
        ]
        seconds = [
            sum(r.seconds for r in tallies if r.stage == number)
            for number in range(len(self.suite) + 1)
        ]
        return Record(
            identity=self.identity,
            model=self.model,
            dataset=self.dataset,
            norm=self.evaluation.threat.norm,
            eps=self.eps,
            seed=self.evaluation.seed,
            suite=self.specs,
            stages=stages,
            verdicts=verdicts.tolist(),
            witnesses_digest=spool.digest,
            sources=self.sources,
            suites=suite_digests(self.specs),
            replacements=self.replacements,
            diagnosis=Diagnosis(
                [
                    *diagnosis.flags,
                    *([] if self.evaluation.diagnose else [flag_not_diagnosed(len(verdicts))]),
                    *flags_from_assumed(self.model.assumed, len(verdicts)),
                    *(
                        flags_from_training_data(len(verdicts))
                        if self.evaluation.trained_on
                        else []
                    ),
                    *flags_from_result(
                        verdicts.tolist(),
                        self._kinds,
                        self.dataset.classes,
                        in_doubt=in_doubt(self.suite, stages),
                    ),
                ],
                diagnosis.forwards,
                diagnosis.backwards,
                diagnosis.images,
            ),
            sequential=sequential,
            environment=measured_environment(
                device,
                self.evaluation.batch_size,
                seconds[CLEAN],
                seconds[1:],
                _flops(flops, tallies),
                joules,
            ),
        )

    @property
    def _kinds(self) -> list[Kind]:
        return [kind_of(stage) for stage in self.suite]

    def _stage(
        self, number: int, results: list[BatchResult], verdicts: NDArray[np.int16]
    ) -> StageResult:
        mine = [result for result in results if result.stage == number]
        attacked = sum(len(result.indices) for result in mine)
        standing = int(((verdicts == SURVIVED) | (verdicts >= number)).sum())
        return StageResult(
            attack=self.suite[number - 1].spec,
            part=self.suite[number - 1].part,
            attacked=attacked,
            broken=sum(int(result.broken.sum()) for result in mine),
            forwards=sum(result.forwards for result in mine),
            backwards=sum(result.backwards for result in mine),
            source_forwards=sum(result.source_forwards for result in mine),
            source_backwards=sum(result.source_backwards for result in mine),
            passed_over=standing - attacked,
            search=joint(result.search for result in mine),
        )


def _flops(each: PassFlops | None, results: Sequence[BatchResult]) -> float | None:
    """Return the FLOPs of all passes of the model."""
    if each is None:
        return None
    return each.of(sum(one.forwards for one in results), sum(one.backwards for one in results))


def _tally(result: BatchResult, spool: WitnessSpool) -> BatchResult:
    """Move the witnesses of a batch to `spool`; return the batch without its images."""
    if result.stage != CLEAN and result.broken.any():
        spool.add(result.indices[result.broken], result.witnesses)
    nothing = np.empty(0, np.float32)
    return replace(result, witnesses=nothing, points=nothing)


def in_doubt(suite: Sequence[Stage | None], stages: Sequence[StageResult]) -> list[int]:
    """Return how many images each stage attacked that a suite runs only in doubt.

    `suite` has the stages, None if they are not known.
    """
    return [
        told.attacked
        for one, told in zip(suite, stages, strict=True)
        if one and is_for_doubt(one.attack)
    ]


def kind_of(stage: Stage) -> Kind:
    """Return what a stage's attack knows about the model."""
    if isinstance(stage.attack, Prepared) or stage.traits.surrogates:
        return "transfer"
    return "white-box" if stage.uses_gradients else "gradient-free"
