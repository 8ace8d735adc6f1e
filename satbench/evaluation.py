"""Evaluate a model: preflight, the suite on the survivors, and the record."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import satbench
from satbench.attacks.borrow import borrowed
from satbench.attacks.engine import CLEAN, BatchResult, Progress, run_suite
from satbench.attacks.suite import Stage, parse_suite
from satbench.core.digests import digest_arrays
from satbench.core.errors import SatbenchError
from satbench.core.files import sweep
from satbench.core.threat import Threat, show_fraction
from satbench.data import Dataset
from satbench.leaderboard.record import (
    DatasetInfo,
    Environment,
    ModelInfo,
    Record,
    StageResult,
    Witnesses,
    identity_of,
    read_record,
    witnesses_path,
    write_record,
    write_witnesses,
)
from satbench.preflight import check_set_up
from satbench.runs import RunStore

ANSWERS = 16  # images whose logits tell two models of the user's own code apart


@dataclass(frozen=True)
class Evaluation:
    """What is to be evaluated, apart from the model.

    `attacks` are specs as people write them, in order; `seed` keys all noise; `batch_size` is
    how many images go through the model at once (no verdict depends on it).
    """

    dataset: Dataset
    threat: Threat
    attacks: Sequence[str]
    seed: int = 0
    batch_size: int = 250

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise SatbenchError(f"expected a batch size of 1 or more, got {self.batch_size}")


@dataclass(frozen=True)
class Finished:
    """A record, where it lies, and whether it was already there."""

    record: Record
    path: Path
    found: bool


class Silent:
    """Progress that nobody is told of."""

    def stage(self, title: str, total: int, done: int) -> None:
        """A stage begins."""

    def advance(self, images: int, survivors: int) -> None:
        """A batch is finished."""


def run_evaluation(
    module: nn.Module,
    info: ModelInfo,
    evaluation: Evaluation,
    device: torch.device,
    out: Path,
    progress: Progress | None = None,
) -> Finished:
    """Evaluate a model, or go on where an evaluation of the same inputs stopped.

    The record and its witnesses are written to the folder `out`; if the record of the same
    inputs is there already, it is returned.  The model comes back as it was, on its own device.
    Raises SatbenchError from preflight, the judge, or a bad attack spec.
    """
    suite = parse_suite(evaluation.attacks)
    home = next((p.device for p in module.parameters()), torch.device("cpu"))
    module.to(device)
    try:
        uses_gradients = any(stage.uses_gradients for stage in suite)
        check_set_up(module, evaluation.dataset, evaluation.threat, uses_gradients)
        if info.source in ("factory", "python"):
            answers = _answers_digest(module, evaluation.dataset, device)
            info = replace(info, answers_digest=answers)
        plan = _Plan(info, evaluation, suite)
        path = out / f"{plan.file_stem}.json"
        if path.exists() and (record := read_record(path)).identity == plan.identity:
            return Finished(record, path, found=True)
        store = RunStore(out, plan.identity)
        with store.claimed():
            verdicts = run_suite(
                module,
                evaluation.dataset,
                evaluation.threat,
                suite,
                evaluation.seed,
                evaluation.batch_size,
                store,
                progress or Silent(),
            )
            results = sorted(store.finished(), key=lambda r: (r.stage, int(r.indices[0])))
            record, witnesses = plan.conclude(verdicts, results, device)
            for file in (path, witnesses_path(path)):
                sweep(file)
            write_witnesses(witnesses, witnesses_path(path))
            write_record(record, path)
            store.remove()
    finally:
        module.to(home)
    return Finished(record, path, found=False)


@dataclass(frozen=True)
class _Plan:
    """The inputs of a run, and how its record is made of them."""

    model: ModelInfo
    evaluation: Evaluation
    suite: tuple[Stage, ...]

    @property
    def specs(self) -> list[str]:
        return list(dict.fromkeys(stage.spec for stage in self.suite))

    @property
    def dataset(self) -> DatasetInfo:
        data = self.evaluation.dataset
        return DatasetInfo(data.name, data.split, len(data), data.classes, data.digest)

    @property
    def eps(self) -> str:
        return show_fraction(self.evaluation.threat.eps)

    @property
    def identity(self) -> str:
        threat = self.evaluation.threat
        seed = self.evaluation.seed
        return identity_of(self.model, self.dataset, threat.norm, self.eps, seed, self.specs)

    @property
    def file_stem(self) -> str:
        """A name that people can read, and the identity's first digits, which make it unique."""
        threat = f"{self.evaluation.threat.norm}-{self.eps.replace('/', 'over')}"
        words = (self.model.name, self.dataset.name, threat, self.identity[:8])
        safe = (c if c.isalnum() or c in "-._" else "-" for c in "-".join(words))
        return "".join(safe).strip("-.")

    def conclude(
        self, verdicts: NDArray[np.int16], results: list[BatchResult], device: torch.device
    ) -> tuple[Record, Witnesses]:
        """Make the record and the witnesses of a finished run."""
        stages = [self._stage(number, results) for number in range(1, len(self.suite) + 1)]
        witnesses = _collect_witnesses(results, self.evaluation.dataset.shape)
        seconds = [
            sum(r.seconds for r in results if r.stage == number)
            for number in range(len(self.suite) + 1)
        ]
        record = Record(
            identity=self.identity,
            model=self.model,
            dataset=self.dataset,
            norm=self.evaluation.threat.norm,
            eps=self.eps,
            seed=self.evaluation.seed,
            suite=self.specs,
            stages=stages,
            verdicts=verdicts.tolist(),
            witnesses_digest=witnesses.digest,
            environment=Environment(
                satbench=satbench.__version__,
                torch=str(torch.__version__),
                python=platform.python_version(),
                platform=f"{platform.system()} {platform.machine()}",
                device=_device_name(device),
                threads=torch.get_num_threads(),
                batch_size=self.evaluation.batch_size,
                finished=datetime.now(UTC).isoformat(timespec="seconds"),
                clean_seconds=round(seconds[CLEAN], 3),
                stage_seconds=[round(second, 3) for second in seconds[1:]],
            ),
        )
        return record, witnesses

    def _stage(self, number: int, results: list[BatchResult]) -> StageResult:
        mine = [result for result in results if result.stage == number]
        return StageResult(
            attack=self.suite[number - 1].spec,
            part=self.suite[number - 1].part,
            attacked=sum(len(result.indices) for result in mine),
            broken=sum(int(result.broken.sum()) for result in mine),
            forwards=sum(result.forwards for result in mine),
            backwards=sum(result.backwards for result in mine),
        )


def _collect_witnesses(results: list[BatchResult], shape: tuple[int, int, int]) -> Witnesses:
    proofs = [result for result in results if result.stage != CLEAN and result.broken.any()]
    if not proofs:
        return Witnesses(np.empty(0, np.int64), np.empty((0, *shape), np.float32))
    indices = np.concatenate([result.indices[result.broken] for result in proofs])
    images = np.concatenate([result.witnesses for result in proofs])
    order = np.argsort(indices)
    return Witnesses(indices[order], images[order])


def _answers_digest(module: nn.Module, dataset: Dataset, device: torch.device) -> str:
    x = torch.from_numpy(dataset.pixels(np.arange(min(ANSWERS, len(dataset))))).to(device)
    with borrowed(module), torch.no_grad():
        logits = module(x).float().cpu().numpy()
    return digest_arrays(np.round(logits, 3) + 0.0)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
