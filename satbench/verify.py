"""Re-check a record: digests, schema, sums, clean predictions, and every witness.

One forward pass per image and per witness; no attack is run again.  What is proven is the upper
bound: every image counted as broken is broken.  What is not: that no stronger attack exists, that
a survivor was attacked as the suite says, and what passes, times, flags and the diagnosis tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from satbench.attacks.borrow import borrowed
from satbench.attacks.judge import check_allowed, predict
from satbench.attacks.suite import parse_suite
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.data import Dataset, load_dataset
from satbench.generators import own_generators
from satbench.leaderboard.check import check_record
from satbench.leaderboard.definition import board_definitions
from satbench.leaderboard.record import WRONG_CLEAN, Record, read_record
from satbench.leaderboard.witnesses import Witnesses, read_witnesses, witnesses_path
from satbench.lending import pinned_surrogates, source_digest
from satbench.models import LoadedModel, has_a_name, load_model, request_model

BATCH = 250


@dataclass(frozen=True)
class Verified:
    """What a check came to: how much was checked, and what is wrong (nothing, if all is well)."""

    path: Path
    images: int
    witnesses: int
    faults: list[str]


@dataclass(frozen=True)
class Subject:
    """A record that holds, with its witnesses and what it speaks of, as it was found here."""

    record: Record
    witnesses: Witnesses
    dataset: Dataset
    loaded: LoadedModel


def verify_record(path: Path, model: str | None = None, data_dir: Path | None = None) -> Verified:
    """Re-check the record at `path` and its witnesses; see the module's head for what that proves.

    `model` names the model where the record's own name is not one that satbench knows.
    Raises SatbenchError for a record that cannot be read at all, or a model or data set that
    cannot be had; everything else that is wrong is in the result, a sentence each.
    """
    with own_generators(torch.device("cpu"), 0):
        return _examine(path, model, data_dir)[0]


def open_record(path: Path, model: str | None = None, data_dir: Path | None = None) -> Subject:
    """Re-check a record in order to go on from it.  Raises SatbenchError if anything is wrong."""
    verified, subject = _examine(path, model, data_dir)
    if subject is None:
        more = len(verified.faults) - 1
        rest = f" (and {more} faults more, which satbench verify names)" if more else ""
        raise SatbenchError(f"the record {path} does not hold: {verified.faults[0]}{rest}")
    return subject


def committed_records() -> list[Path]:
    """Return the records that ship with satbench: those of its boards, and their reference runs."""
    boards = board_definitions()
    folders = [folder for board in boards for folder in (board.records, board.reference)]
    return [path for folder in folders for path in sorted(folder.glob("*.json"))]


def _examine(
    path: Path, model: str | None, data_dir: Path | None
) -> tuple[Verified, Subject | None]:
    record = read_record(path)
    faults = check_record(record)
    try:
        witnesses = read_witnesses(witnesses_path(path))
    except SatbenchError as error:
        return Verified(path, record.n, 0, [*faults, str(error)]), None
    faults += _check_witness_list(record, witnesses)
    dataset = _dataset(record, data_dir)
    if dataset is None or dataset.digest != record.dataset.digest:
        faults.append(
            f"the images are not the record's: the first {record.dataset.n} of "
            f"{record.dataset.name} here have another digest than {record.dataset.digest[:12]}…"
        )
    loaded = load_model(request_model(model or _model_name(record)), record.dataset.classes)
    faults += _check_model(record, loaded)
    faults += _check_sources(record)
    subject = None
    if not faults and dataset is not None:
        with borrowed(loaded.module) as judged:
            faults += _check_predictions(record, dataset, judged)
            faults += _check_proofs(record, dataset, witnesses, judged)
        subject = None if faults else Subject(record, witnesses, dataset, loaded)
    return Verified(path, record.n, len(witnesses.indices), faults), subject


def _check_model(record: Record, loaded: LoadedModel) -> Iterator[str]:
    told, here = record.model, loaded.info
    if here.weights_digest != told.weights_digest:
        yield (
            f"the weights are not the record's: {here.name} here has digest "
            f"{here.weights_digest[:12]}…, the record {told.weights_digest[:12]}…"
        )
    elif told.source == "zoo" and loaded.card:
        for field in ("architecture", "activation", "parameters", "training"):
            if getattr(here, field) != getattr(told, field):
                yield (
                    f"the model is not as the record tells: its {field} here is "
                    f"{getattr(here, field)!r}, in the record {getattr(told, field)!r}"
                )


def _check_sources(record: Record) -> Iterator[str]:
    """Check that the models which attacks borrowed are those of the same names here."""
    for name, digest in record.sources.items():
        try:
            pinned = pinned_surrogates(record.dataset.name, Threat.of(record.norm, record.eps))
            here = pinned.get(name) or source_digest(name, record.dataset.classes)
        except SatbenchError as error:
            yield f"the source {name} cannot be checked: {error}"
            continue
        if here != digest:
            yield (f"the source {name} here has weights {here[:12]}…, in the record {digest[:12]}…")
    for name in sorted(_named_sources(record) - set(record.sources)):
        yield f"the suite borrows {name}, but the record does not say with which weights"


def _named_sources(record: Record) -> set[str]:
    names: set[str] = set()
    for spec in record.suite:
        try:
            names.update(name for stage in parse_suite([spec]) for name in stage.traits.sources)
        except SatbenchError:  # a spec of an older protocol, or a third party's images
            continue
    return names


def _model_name(record: Record) -> str:
    if has_a_name(record.model.source):
        return record.model.name
    raise SatbenchError(
        f"the record is of {record.model.name!r}, a model given as a {record.model.source}; "
        "name it with --model"
    )


def _dataset(record: Record, data_dir: Path | None) -> Dataset | None:
    if record.dataset.name == "tensors":
        raise SatbenchError(
            "the record is of images given as tensors, which only their owner can check"
        )
    whole = load_dataset(record.dataset.name, "test", None, data_dir)
    n, population = record.dataset.n, record.dataset.population
    if not 1 <= n <= (population or n) <= len(whole):
        return None
    return whole.first(population).shuffled().first(n) if population else whole.first(n)


def _check_witness_list(record: Record, witnesses: Witnesses) -> list[str]:
    faults = []
    if witnesses.digest != record.witnesses_digest:
        faults.append("the witnesses are not the record's: their digest differs")
    wanted = np.flatnonzero(np.array(record.verdicts) > WRONG_CLEAN)
    if not np.array_equal(wanted, witnesses.indices):
        missing = np.setdiff1d(wanted, witnesses.indices)
        extra = np.setdiff1d(witnesses.indices, wanted)
        faults.append(
            f"the witnesses do not match the broken verdicts: {len(missing)} verdicts have no "
            f"witness, {len(extra)} witnesses have no verdict"
            + (f" (first: image {(*missing, *extra)[0]})" if len(missing) + len(extra) else "")
        )
    return faults


def _check_predictions(record: Record, dataset: Dataset, model: nn.Module) -> Iterator[str]:
    wrong = np.zeros(record.n, bool)
    for rows in _batches(np.arange(record.n)):
        x = torch.from_numpy(dataset.pixels(rows))
        wrong[rows] = predict(model, x).numpy() != dataset.labels[rows]
    told = np.array(record.verdicts) == WRONG_CLEAN
    for index in np.flatnonzero(wrong != told):
        word = "wrong" if told[index] else "right"
        yield f"image {index}: the record says {word} when clean, the model says otherwise"


def _check_proofs(
    record: Record, dataset: Dataset, witnesses: Witnesses, model: nn.Module
) -> Iterator[str]:
    threat = Threat.of(record.norm, record.eps)
    for rows in _batches(np.arange(len(witnesses.indices))):
        indices = witnesses.indices[rows]
        x = torch.from_numpy(dataset.pixels(indices))
        x_adv = torch.from_numpy(witnesses.images[rows])
        allowed = np.ones(len(rows), bool)
        for row, index in enumerate(indices):
            try:
                check_allowed(x[row : row + 1], x_adv[row : row + 1], threat)
            except SatbenchError as error:
                allowed[row] = False
                yield f"image {index}: its witness is not allowed: {error}"
        indices, images = indices[allowed], x_adv[torch.from_numpy(allowed)]
        right = predict(model, images).numpy() == dataset.labels[indices]
        for index in indices[right]:
            yield f"image {index}: the model is right about its witness, so it is not broken"


def _batches(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]
