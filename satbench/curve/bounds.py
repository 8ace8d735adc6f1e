"""Upper bounds of a curve: records of the same model, and attacks at the marks of the curve.

A minimum-norm search misses points that a search in a ball of fixed size finds.  So the verdicts of
such searches bound the curve: if an image is broken within eps, its distance is at most eps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from satbench.board.definition import board_definitions
from satbench.core.errors import SatbenchError
from satbench.core.schema import read_text
from satbench.core.threat import Threat
from satbench.curve.nearest import Nearest
from satbench.curve.search import without_images
from satbench.data import Dataset, load_dataset
from satbench.engine.ball import size
from satbench.engine.judge import TOLERANCE, predict
from satbench.engine.runner import CLEAN, BatchResult, Context, Journal, SharedJournal, cut
from satbench.engine.searched import joint
from satbench.engine.stage import Stage
from satbench.engine.suite_run import run_suite
from satbench.records.answers import same_model
from satbench.records.curves import CurveBound
from satbench.records.record import SURVIVED, WRONG_CLEAN, ModelInfo, Record, parse_record
from satbench.records.witnesses import Witnesses, find_witnesses, read_witnesses

LAYOUT = "curves"
"""The default folder of curves inside the folder of results; records are looked up in both."""


def record_folders(out: Path) -> list[Path]:
    """Return the folders with records: those of the shipped boards, and the user's folder."""
    boards = [folder for one in board_definitions() for folder in (one.records, one.reference)]
    return [*boards, *([out.parent] if out.name == LAYOUT else []), out]


def records_of(
    info: ModelInfo, data: Dataset, norm: str, folders: Sequence[Path]
) -> Iterator[tuple[Path, Record]]:
    """Yield the records of a model on the images of `data` in the norm `norm`, each once.

    Records with images in a random order have other images, and are left out.  A file that is not a
    valid record is skipped.
    """
    seen: set[str] = set()
    for folder in folders:
        for path in sorted(folder.glob("*.json")):
            try:
                text = read_text(path, "record")
                if info.weights_digest not in text:
                    continue
                record = parse_record(text, str(path))
            except SatbenchError:
                continue
            images = record.dataset
            named = (images.name, images.split, images.population) == (data.name, data.split, 0)
            fits = named and record.norm == norm and _same(record.model, info)
            if fits and record.identity not in seen:
                seen.add(record.identity)
                yield path, record


def name_of(record: Record) -> str:
    """Return the name of a bound by a record."""
    return f"record {record.identity}"


def bound_by_record(
    judged: nn.Module,
    nearest: Nearest,
    path: Path,
    record: Record,
    batch_size: int,
    data_dir: Path | None,
) -> CurveBound:
    """Lower the distances to the verdicts of a record.

    Its witnesses are judged again, and give points.  A verdict that cannot be confirmed here, or
    has no witness, counts if the images are exactly the same.
    """
    threat = Threat.of(record.norm, record.eps)
    verdicts = np.array(record.verdicts[: len(nearest.data)])
    fell = np.flatnonzero((verdicts != SURVIVED) & (verdicts != WRONG_CLEAN))
    lowered = _confirm(judged, nearest, _witnesses(path, record), threat, batch_size)
    due = fell[nearest.distances[fell] > threat.radius]
    if len(due) and _same_images(record, nearest.data, data_dir):
        lowered += nearest.offer_verdicts(due, threat.radius)
    return CurveBound(name_of(record), threat.radius, len(verdicts), lowered, 0, 0)


def bound_by_attack(
    module: nn.Module, nearest: Nearest, suite: Sequence[Stage], context: Context
) -> list[CurveBound]:
    """Attack the images that have no point within eps yet; return a bound for each attack."""
    journal = _Beyond(nearest, context.threat, context.journal)
    run_suite(module, suite, replace(context, journal=journal))
    return [
        journal.bound(spec, [k for k, stage in enumerate(suite, 1) if stage.spec == spec])
        for spec in dict.fromkeys(stage.spec for stage in suite)
    ]


class _Beyond:
    """A journal in which images that have a point within eps are wrong when clean."""

    def __init__(self, nearest: Nearest, threat: Threat, within: Journal) -> None:
        self._nearest, self._threat, self._within = nearest, threat, within
        self._beyond = nearest.beyond(threat.radius)
        self._results: list[BatchResult] = []

    def finished(self) -> Iterator[BatchResult]:
        """Yield that only the others are left, then the batches written before a stop."""
        nothing = np.empty((0, *self._nearest.data.shape), np.float32)
        every = np.arange(len(self._beyond))
        yield BatchResult(CLEAN, every, ~self._beyond, nothing, 0, 0, seconds=0.0)
        yield from self._of_these(self._within.finished())

    def news(self) -> Iterator[BatchResult]:
        """Return the batches of other processes since the last call."""
        yield from self._of_these(cast(SharedJournal, self._within).news())

    def _of_these(self, results: Iterable[BatchResult]) -> Iterator[BatchResult]:
        for result in results:
            proven = len(result.witnesses) == result.broken.sum()
            if proven and self._beyond[result.indices].all():  # else a new record has appeared
                self._take(result)
                yield result

    def write(self, result: BatchResult) -> None:
        """Write a batch down, and take its witnesses."""
        self._within.write(result)
        self._take(result)

    def _take(self, result: BatchResult) -> None:
        broken = result.indices[result.broken]
        lengths = _lengths(self._nearest, broken, result.witnesses, self._threat)
        self._nearest.offer(0, broken, result.witnesses, lengths)
        self._results.append(without_images(result))

    def bound(self, spec: str, stages: Sequence[int]) -> CurveBound:
        """Return the bound by an attack with these stages."""
        mine = [result for result in self._results if result.stage in stages]
        return CurveBound(
            spec,
            self._threat.radius,
            attacked=sum(len(result.indices) for result in mine if result.stage == stages[0]),
            broken=sum(int(result.broken.sum()) for result in mine),
            forwards=sum(result.forwards for result in mine),
            backwards=sum(result.backwards for result in mine),
            search=joint(result.search for result in mine),
        )


def _same(one: ModelInfo, other: ModelInfo) -> bool:
    kinds = (one.architecture, one.activation) == (other.architecture, other.activation)
    return kinds and same_model(one, other)


def _same_images(record: Record, data: Dataset, data_dir: Path | None) -> bool:
    """Return whether the images of a record begin with those of `data`, or the other way round."""
    n, digest = record.dataset.n, record.dataset.digest
    if n <= len(data):
        return data.first(n).digest == digest
    if not data.origin or data.split != "test":
        return False
    try:
        more = load_dataset(data.origin, "test", n, data_dir)
    except SatbenchError:
        return False
    return more.digest == digest and more.first(len(data)).digest == data.digest


def _witnesses(path: Path, record: Record) -> Witnesses | None:
    """Return the witnesses of a record; None if they are missing or changed."""
    file = find_witnesses(path, record.witnesses_digest)
    if not file.is_file():
        return None
    try:
        witnesses = read_witnesses(file)
    except SatbenchError:
        return None
    return witnesses if witnesses.digest == record.witnesses_digest else None


def _confirm(
    judged: nn.Module,
    nearest: Nearest,
    witnesses: Witnesses | None,
    threat: Threat,
    batch_size: int,
) -> int:
    """Judge witnesses of images that have no nearer point; return how many were taken."""
    if witnesses is None or witnesses.images.shape[1:] != nearest.data.shape:
        return 0
    indices, images = witnesses.indices, witnesses.images
    taken = 0
    for rows in cut(_due(nearest, witnesses, threat), None, batch_size):
        _, y = nearest.load(judged, indices[rows])
        wrong = (predict(judged, torch.from_numpy(images[rows]).to(y.device)) != y).cpu().numpy()
        fell = rows[wrong]
        lengths = _lengths(nearest, indices[fell], images[fell], threat)
        taken += nearest.offer(0, indices[fell], images[fell], lengths)
    return taken


def _due(nearest: Nearest, witnesses: Witnesses, threat: Threat) -> NDArray[np.int64]:
    """Return the rows of witnesses that are allowed, of images without a point within eps."""
    known = (witnesses.indices >= 0) & (witnesses.indices < len(nearest.data))
    rows = np.flatnonzero(known)
    rows = rows[nearest.beyond(threat.radius)[witnesses.indices[rows]]]
    images = witnesses.images[rows]
    boxed = ((images >= 0) & (images <= 1)).all((1, 2, 3))  # no NaN either
    clean = nearest.data.pixels(witnesses.indices[rows])
    sizes = size(torch.from_numpy(images).double() - torch.from_numpy(clean).double(), threat)
    return rows[boxed & (sizes <= threat.radius + TOLERANCE[threat.norm]).numpy()]


def _lengths(
    nearest: Nearest, indices: NDArray[np.int64], images: NDArray[np.float32], threat: Threat
) -> NDArray[np.float64]:
    """Measure perturbations, at most eps: the judge's ball is larger by rounding.  -> (M,)."""
    clean = torch.from_numpy(nearest.data.pixels(indices)).double()
    lengths: NDArray[np.float64] = size(torch.from_numpy(images).double() - clean, threat).numpy()
    return lengths.clip(max=threat.radius)
