"""Verification of a record: digests, schema, sums, clean predictions, and every witness.

It takes one forward pass per image and per witness, and runs the diagnosis again; no attack is run.
It proves an upper bound: every image that counts as broken is broken.  It does not prove that no
stronger attack exists, or that a survivor was attacked as the suite says.  docs/trust.md has the
list.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from satbench.board.definition import board_definitions
from satbench.calling.borrow import borrowed
from satbench.calling.devices import choose_device, device_of, moved
from satbench.calling.generators import own_generators
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.evaluation.given import (
    Given,
    ModelAndImages,
    check_surrogates,
    find_images,
    find_model,
)
from satbench.evaluation.own_code import answers_of
from satbench.models import LoadedModel, is_of_own_code
from satbench.preflight.preflight import Needs, check_set_up
from satbench.proofs.checking import check_verdicts
from satbench.proofs.claims import OpenedRecord, check_claims, check_flags, flags_here
from satbench.records.answers import Difference, difference
from satbench.records.certificates import Certificate
from satbench.records.check import check_record
from satbench.records.record import WRONG_CLEAN, Record, read_record
from satbench.records.witnesses import Witnesses, find_witnesses, read_witnesses


@dataclass(frozen=True)
class Verified:
    """The result of a verification: the number that it confirms, or what is wrong.

    `images` verdicts and `witnesses` were checked; `faults` has a sentence for everything that is
    wrong.  According to the record, `clean_correct` images are right without an attack, and
    `surviving` after its attacks.  If nothing is wrong, `broken` images are proven broken; the
    survival of the others is only claimed.
    """

    path: Path
    images: int
    witnesses: int
    faults: list[str]
    clean_correct: int = 0
    surviving: int = 0

    @property
    def confirmed(self) -> bool:
        """Whether nothing is wrong: robust accuracy is at most what the record says."""
        return not self.faults

    @property
    def broken(self) -> int:
        """How many images do not survive according to the record, with those wrong when clean."""
        return self.images - self.surviving

    @property
    def robust_accuracy(self) -> float | None:
        """The share of images that survive, in [0, 1]; None unless it is confirmed."""
        return self.surviving / self.images if self.confirmed and self.images else None

    def __str__(self) -> str:
        share = self.robust_accuracy
        if share is None:
            return f"not confirmed: {self.faults[0] if self.faults else 'no image'}"
        return (
            f"robust accuracy {100 * share:.1f} %, {self.surviving} of {self.images}, confirmed as "
            f"an upper bound: {self.broken} of {self.broken} broken images proven broken; "
            f"{self.surviving} survivors are claimed, not proven"
        )


@dataclass(frozen=True)
class Subject:
    """A record that holds, with its witnesses, and its model and images as found here.

    `other_gradients` says that the model here has the record's logits but other gradients.
    """

    record: Record
    witnesses: Witnesses
    dataset: Dataset
    loaded: LoadedModel
    other_gradients: bool


def verify_record(path: Path, given: Given | None = None, device: str = "cpu") -> Verified:
    """Verify the record at `path` and its witnesses; the module's docstring says what it proves.

    The model runs on `device`, and is moved back afterwards.  Raises SatbenchError for a record
    that cannot be read, or a missing model or data set.  Everything else that is wrong is in the
    result, one sentence each.
    """
    return _examine(path, given or Given(), choose_device(device))[0]


def open_record(path: Path, given: Given | None = None) -> Subject:
    """Verify a record before it is used.  Raises SatbenchError if anything is wrong."""
    verified, subject = _examine(path, given or Given())
    if subject is None:
        more = len(verified.faults) - 1
        rest = f" (satbench verify lists {more} more faults)" if more else ""
        raise SatbenchError(f"the record {path} does not hold: {verified.faults[0]}{rest}")
    return subject


def committed_records() -> list[Path]:
    """Return the records that ship with satbench: those of its boards, and others in their folders.

    The others are reference runs and withdrawn records.
    """
    folders = [
        folder
        for board in board_definitions()
        for folder in (board.records, board.reference, board.superseded)
    ]
    return [path for folder in folders for path in sorted(folder.glob("*.json"))]


def _examine(
    path: Path, given: Given, device: torch.device | None = None
) -> tuple[Verified, Subject | None]:
    with own_generators(device or torch.device("cpu"), 0):  # a randomised model's answers count
        return _examine_seeded(path, given, device)


def _examine_seeded(
    path: Path, given: Given, device: torch.device | None
) -> tuple[Verified, Subject | None]:
    record = read_record(path)
    faults = check_record(record)
    verified = Verified(path, record.n, 0, faults, record.clean_correct, record.surviving())
    try:
        witnesses = read_witnesses(find_witnesses(path, record.witnesses_digest), most=record.n)
    except SatbenchError as error:
        return replace(verified, faults=[*faults, str(error)]), None
    verified = replace(verified, witnesses=len(witnesses.indices))
    faults += check_witness_list(record, witnesses)
    dataset = find_images(record, given)
    if dataset is None or dataset.digest != record.dataset.digest:
        faults.append(
            f"the images are not the record's: the first {record.dataset.n} of "
            f"{dataset.name if dataset else record.dataset.name} here have another digest than "
            f"{record.dataset.digest[:12]}…"
        )
    loaded = find_model(record, given)
    faults += check_model(record, loaded)
    faults += check_surrogates(record, dataset, given) if dataset else ()
    if faults or dataset is None:
        return verified, None
    found = OpenedRecord(record, witnesses, dataset, loaded)
    faults += check_claims(found, given)
    with moved([loaded.module], device or device_of(loaded.module)):
        differing = differing_answers(record, dataset, loaded)
        if differing == "logits":
            faults.append(
                f"the model is not the record's: {loaded.info.name} here has the same weights, but "
                "gives other logits on the record's first images"
            )
        with borrowed(loaded.module) as judged:
            faults += check_verdicts(record, dataset, witnesses, judged)
        if not faults and not differing:
            faults += _check_diagnosis(found, given)
    if faults:
        return verified, None
    return verified, Subject(record, witnesses, dataset, loaded, differing == "gradients")


def _check_diagnosis(found: OpenedRecord, given: Given) -> list[str]:
    try:
        here = flags_here(found, given)
    except SatbenchError as error:
        return [f"the diagnosis cannot be made here: {error}"]
    return [] if here is None else list(check_flags(found.record, here))


def differing_answers(
    record: Record | Certificate, dataset: Dataset, loaded: LoadedModel
) -> Difference:
    """Return in what a user's own model differs from that of the record."""
    if is_of_own_code(loaded.info.source):
        threat = Threat.of(record.norm, record.eps)
        check_set_up(loaded.module, dataset, threat, Needs(gradients=False))
    if not record.model.answers:
        return ""
    here = answers_of(loaded.module, dataset, device_of(loaded.module))
    return difference(record.model.answers, here)


def check_model(record: ModelAndImages, loaded: LoadedModel, file: str = "record") -> Iterator[str]:
    """Yield the differences between the model found here and that of a record or certificate.

    `file` says which of the two it is.
    """
    recorded, here = record.model, loaded.info
    if here.weights_digest != recorded.weights_digest:
        yield (
            f"the weights are not the {file}'s: {here.name} here has digest "
            f"{here.weights_digest[:12]}…, the {file} {recorded.weights_digest[:12]}…"
        )
        return
    fields = ["parameters"]
    if loaded.card and recorded.source in ("zoo", "user-zoo"):
        fields = ["name", "architecture", "activation", "parameters", "training"]
    elif loaded.card and recorded.training:
        fields = ["parameters", "training"]
    for name in fields:
        if getattr(here, name) != getattr(recorded, name):
            yield (
                f"the model is not as in the {file}: its {name} here is "
                f"{getattr(here, name)!r}, in the {file} {getattr(recorded, name)!r}"
            )


def check_witness_list(record: Record, witnesses: Witnesses) -> list[str]:
    """Return where witnesses do not match a record's broken verdicts, one sentence each."""
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
