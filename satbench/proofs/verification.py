"""Re-check a record: digests, schema, sums, clean predictions, and every witness.

One forward pass per image and per witness; no attack is run again.  What is proven is the upper
bound: every image counted as broken is broken.  What is not: that no stronger attack exists, that
a survivor was attacked as the suite says, and what passes, times, flags and the diagnosis tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from satbench.attacks.suites.suite import parse_suite
from satbench.board.definition import board_definitions
from satbench.calling.borrow import borrowed
from satbench.calling.generators import own_generators
from satbench.calling.modules import check_module
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.data import USER, Dataset, completed, load_dataset
from satbench.engine.judge import check_allowed, predict
from satbench.engine.runner import device_of
from satbench.evaluation.lending import pinned_surrogates, source_digest
from satbench.evaluation.own_code import answers_of
from satbench.models import (
    FileOptions,
    LoadedModel,
    describe_module,
    has_a_name,
    is_of_own_code,
    load_model,
    request_model,
)
from satbench.preflight.preflight import Needs, check_set_up
from satbench.records.answers import Difference, difference, same_source
from satbench.records.check import check_record
from satbench.records.record import WRONG_CLEAN, Record, read_record
from satbench.records.witnesses import Witnesses, find_witnesses, read_witnesses

BATCH = 250


@dataclass(frozen=True)
class Verified:
    """What a check of a record came to: the number that it confirms, or what is wrong.

    `images` verdicts and `witnesses` were checked; `faults` has a sentence for each thing that is
    wrong.  By the record, `clean_correct` images are right when nobody attacks, and `surviving`
    after its attacks.
    """

    path: Path
    images: int
    witnesses: int
    faults: list[str]
    clean_correct: int = 0
    surviving: int = 0

    @property
    def confirmed(self) -> bool:
        """Whether nothing is wrong: robust accuracy is no more than the record says."""
        return not self.faults

    @property
    def robust_accuracy(self) -> float | None:
        """The share of images that survive, in [0, 1]; None unless it is confirmed."""
        return self.surviving / self.images if self.confirmed and self.images else None

    def __str__(self) -> str:
        share = self.robust_accuracy
        if share is None:
            return f"not confirmed: {self.faults[0] if self.faults else 'no image'}"
        return f"robust accuracy {100 * share:.1f} %, {self.surviving} of {self.images}, confirmed"


@dataclass(frozen=True)
class Given:
    """What somebody gives for what a record names, or cannot name.

    `model` is a name that `--model` takes, or the model itself; `dataset` is the name of a data
    set, or the images.  `data_dir` is where a named one lies; `file` says what a file of weights
    is, where `model` is one.
    """

    model: str | nn.Module | None = None
    dataset: str | Dataset | None = None
    data_dir: Path | None = None
    file: FileOptions = field(default_factory=FileOptions)


@dataclass(frozen=True)
class Subject:
    """A record that holds, with its witnesses and what it speaks of, as it was found here.

    `other_gradients` says that the model here gives other gradients than the record's did, though
    the same logits.
    """

    record: Record
    witnesses: Witnesses
    dataset: Dataset
    loaded: LoadedModel
    other_gradients: bool


def verify_record(path: Path, given: Given | None = None) -> Verified:
    """Re-check the record at `path` and its witnesses; see the module's head for what that proves.

    Raises SatbenchError for a record that cannot be read at all, or a model or data set that
    cannot be had; everything else that is wrong is in the result, a sentence each.
    """
    with own_generators(torch.device("cpu"), 0):
        return _examine(path, given or Given())[0]


def open_record(path: Path, given: Given | None = None) -> Subject:
    """Re-check a record in order to go on from it.  Raises SatbenchError if anything is wrong."""
    verified, subject = _examine(path, given or Given())
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


def _examine(path: Path, given: Given) -> tuple[Verified, Subject | None]:
    record = read_record(path)
    faults = check_record(record)
    told = Verified(path, record.n, 0, faults, record.clean_correct, record.surviving())
    try:
        witnesses = read_witnesses(find_witnesses(path, record.witnesses_digest))
    except SatbenchError as error:
        return replace(told, faults=[*faults, str(error)]), None
    told = replace(told, witnesses=len(witnesses.indices))
    faults += _check_witness_list(record, witnesses)
    dataset = _dataset(record, given)
    if dataset is None or dataset.digest != record.dataset.digest:
        faults.append(
            f"the images are not the record's: the first {record.dataset.n} of "
            f"{dataset.name if dataset else record.dataset.name} here have another digest than "
            f"{record.dataset.digest[:12]}…"
        )
    loaded = _loaded(record, given)
    faults += _check_model(record, loaded)
    faults += _check_sources(record, dataset) if dataset else ()
    if faults or dataset is None:
        return told, None
    differing = _differing(record, dataset, loaded)
    if differing == "logits":
        faults.append(
            f"the model is not the record's: {loaded.info.name} here has the same weights, but "
            "gives other logits on the record's first images"
        )
    with borrowed(loaded.module) as judged:
        faults += _check_predictions(record, dataset, judged)
        faults += _check_proofs(record, dataset, witnesses, judged)
    if faults:
        return told, None
    return told, Subject(record, witnesses, dataset, loaded, differing == "gradients")


def _loaded(record: Record, given: Given) -> LoadedModel:
    if isinstance(given.model, nn.Module):
        info = describe_module(check_module(given.model), record.model.name, "python")
        return LoadedModel(given.model, info, None)
    request = request_model(given.model or _model_name(record), **vars(given.file))
    # Labels of somebody's own images may leave classes out; the weights' digest tells the rest.
    return load_model(request, record.dataset.classes, exactly=False)


def _differing(record: Record, dataset: Dataset, loaded: LoadedModel) -> Difference:
    """Say in what a model of somebody's own code differs from that of the record."""
    if is_of_own_code(loaded.info.source):
        threat = Threat.of(record.norm, record.eps)
        check_set_up(loaded.module, dataset, threat, Needs(gradients=False))
    if not record.model.answers:
        return ""
    here = answers_of(loaded.module, dataset, device_of(loaded.module))
    return difference(record.model.answers, here)


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


def _check_sources(record: Record, dataset: Dataset) -> Iterator[str]:
    """Check that the models which attacks borrowed are those of the same names here."""
    for name, told in record.sources.items():
        try:
            pinned = pinned_surrogates(record.dataset.name, Threat.of(record.norm, record.eps))
            here = pinned.get(name) or source_digest(name, dataset)
        except SatbenchError as error:
            yield f"the source {name} cannot be checked: {error}"
            continue
        if here.partition(" ")[0] != told.partition(" ")[0]:
            yield f"the source {name} here has weights {here[:12]}…, in the record {told[:12]}…"
        elif not same_source(here, told):
            yield f"the source {name} here answers otherwise than the record's: it has other code"
    for name in sorted(_named_sources(record) - set(record.sources)):
        yield f"the suite borrows {name}, but the record does not say with which weights"


def _named_sources(record: Record) -> set[str]:
    names: set[str] = set()
    for spec in record.suite:
        try:
            names |= _sources_in(spec)
        except SatbenchError:  # a spec of an older protocol, or a third party's images
            continue
    return names


@cache
def _sources_in(spec: str) -> frozenset[str]:
    return frozenset(name for stage in parse_suite([spec]) for name in stage.traits.sources)


def _model_name(record: Record) -> str:
    if has_a_name(record.model.source):
        return record.model.name
    raise SatbenchError(
        f"the record is of {record.model.name!r}, a model given as a {record.model.source}; "
        "name it with --model, or give it to satbench.verify(record, model, x, y)"
    )


def _dataset(record: Record, given: Given) -> Dataset | None:
    """Return the record's images, where they are those of its digest: the nearest thing else."""
    told, whole = record.dataset, given.dataset
    n, population = told.n, told.population
    if not isinstance(whole, Dataset):
        if whole is None and told.split == USER:
            raise SatbenchError(
                f"the record is of images of a user's own ({told.name}): give them with --data "
                "FILE, or to satbench.verify(record, model, x, y)"
            )
        wanted = max(population or n, 1)
        name = completed(whole or told.name, told.name, told.classes)
        try:
            whole = load_dataset(name, "test", wanted, given.data_dir, or_fewer=True)
        except SatbenchError as error:
            if whole or ":" not in told.name:
                raise
            raise SatbenchError(
                f"{error}; say where {told.name} lies here, --dataset KIND:PATH"
            ) from None
    if not 1 <= n <= (population or n) <= len(whole):
        return None
    cut = whole.first(population or n)
    stored = (one.shuffled().first(n) if population else one for one in _ways_to_store(cut))
    first = next(stored)
    if first.digest == told.digest:
        return first
    return next((one for one in stored if one.digest == told.digest), first)


def _ways_to_store(dataset: Dataset) -> Iterator[Dataset]:
    """Yield a data set as it is, and with the same pixels as bytes or floats if they can be."""
    yield dataset
    pixels = dataset.pixels(np.arange(len(dataset)))
    grey = np.rint(255 * pixels).astype(np.uint8)
    if dataset.images.dtype == np.uint8:
        yield replace(dataset, images=pixels)
    elif np.array_equal(grey.astype(np.float32) / np.float32(255), pixels):
        yield replace(dataset, images=grey)


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
        x = torch.from_numpy(dataset.pixels(rows)).to(device_of(model))
        wrong[rows] = predict(model, x).cpu().numpy() != dataset.labels[rows]
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
        seen = predict(model, images.to(device_of(model)))
        right = seen.cpu().numpy() == dataset.labels[indices]
        for index in indices[right]:
            yield f"image {index}: the model is right about its witness, so it is not broken"


def _batches(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]
