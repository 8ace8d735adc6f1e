"""Re-check a certificate: digests, verdicts, clean answers, and every proof.

The bounds of each proof are computed again from the weights, in float64, minus all rounding errors.
Slopes and trees come from the file, and no search runs.  This proves the lower bound: no adversary
of the threat model can break an image that counts as certified, with any attack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from satbench.calling.borrow import borrowed
from satbench.calling.generators import own_generators
from satbench.certification.network import prover_of
from satbench.certification.packing import unpacked
from satbench.certification.proving import BadProofError, ImageProof, Prover
from satbench.certification.run import answered_right, region_of
from satbench.core.errors import SatbenchError
from satbench.data import Dataset
from satbench.evaluation.given import Given, find_images, find_model
from satbench.models import LoadedModel
from satbench.proofs.claims import check_images
from satbench.proofs.verification import check_model, differing_answers
from satbench.records.certificates import (
    CERTIFIED,
    MARGIN_STEP,
    METHODS,
    WRONG_CLEAN,
    Certificate,
    Proofs,
    proofs_path,
    read_certificate,
    read_proofs,
)
from satbench.records.limits import check_certificate_limits


@dataclass(frozen=True)
class VerifiedCertificate:
    """The result of a check of a certificate: the number that it confirms, or what is wrong.

    Of `images` images, `proofs` were checked; `faults` has a sentence for everything that is wrong.
    """

    path: Path
    images: int
    proofs: int
    faults: list[str]
    clean_correct: int = 0
    certified: int = 0

    @property
    def confirmed(self) -> bool:
        """Whether nothing is wrong: robust accuracy is at least what the certificate says."""
        return not self.faults

    @property
    def certified_accuracy(self) -> float | None:
        """The share of certified images, in [0, 1]; None unless it is confirmed."""
        return self.certified / self.images if self.confirmed and self.images else None

    def __str__(self) -> str:
        share = self.certified_accuracy
        if share is None:
            return f"not confirmed: {self.faults[0] if self.faults else 'no image'}"
        return (
            f"certified accuracy {100 * share:.1f} %, {self.certified} of {self.images}, confirmed "
            f"as a lower bound: {self.proofs} proofs hold"
        )


def verify_certificate(
    path: Path, given: Given | None = None, seen: Callable[[int], None] = lambda done: None
) -> VerifiedCertificate:
    """Check the certificate at `path` and its proofs; the module docstring says what it proves.

    `seen` is called with the number of proofs that were checked.  Raises SatbenchError for a
    certificate that cannot be read, and for a missing model or data set; everything else that is
    wrong is in the result, one sentence each.
    """
    with own_generators(torch.device("cpu"), 0):
        return _examined(path, given or Given(), seen)


def _examined(path: Path, given: Given, seen: Callable[[int], None]) -> VerifiedCertificate:
    told = read_certificate(path)
    faults = list(check_certificate_limits(told))
    checked = VerifiedCertificate(path, told.n, 0, faults, told.clean_correct, told.certified)
    try:
        proofs = read_proofs(proofs_path(path), most=told.n)
    except SatbenchError as error:
        return replace(checked, faults=[*faults, str(error)])
    faults += _against_proofs(told, proofs)
    dataset = find_images(told, given)
    if dataset is None or dataset.digest != told.dataset.digest:
        faults.append(
            f"the images are not the certificate's: the first {told.n} here have another digest "
            f"than {told.dataset.digest[:12]}…"
        )
    loaded = find_model(told, given)
    faults += check_model(told, loaded, "certificate")
    faults += check_images(told.dataset, dataset, given, "certificate") if dataset else ()
    if faults or dataset is None:
        return checked
    if differing_answers(told, dataset, loaded) == "logits":
        faults.append(
            f"the model is not the certificate's: {loaded.info.name} here has the same weights, "
            "but gives other logits on the first images"
        )
        return checked
    found = _Opened(told, proofs, dataset, loaded)
    faults += _check_images(found, seen)
    return replace(checked, proofs=len(proofs.indices))


@dataclass(frozen=True)
class _Opened:
    certificate: Certificate
    proofs: Proofs
    dataset: Dataset
    loaded: LoadedModel


def _against_proofs(told: Certificate, proofs: Proofs) -> Iterator[str]:
    """Yield the differences between a certificate and the proofs next to it."""
    if proofs.digest != told.proofs_digest:
        yield "the proofs are not the certificate's: their digest differs"
    certified = np.flatnonzero(np.array(told.verdicts) == CERTIFIED)
    if not np.array_equal(certified, proofs.indices):
        missing, extra = (
            np.setdiff1d(*pair)
            for pair in ((certified, proofs.indices), (proofs.indices, certified))
        )
        yield (
            f"the proofs do not match the certified images: {len(missing)} images have no proof, "
            f"{len(extra)} proofs have no image"
        )
    if (proofs.methods > METHODS.index(told.method)).any():
        yield f"there are proofs of a method beyond {told.method}"


def _check_images(found: _Opened, seen: Callable[[int], None]) -> Iterator[str]:
    """Yield a sentence for each image with a wrong verdict."""
    told, data = found.certificate, found.dataset
    module = found.loaded.module
    try:
        prover = prover_of(module, data.shape)
        with borrowed(module) as judged:
            right = answered_right(prover, judged, data, told.threat)
    except SatbenchError as error:
        yield f"the model cannot be bounded here: {error}"
        return
    said = np.array(told.verdicts) != WRONG_CLEAN
    for index in np.flatnonzero(right != said).tolist():
        word = "right" if said[index] else "wrong"
        yield f"image {index}: the certificate says {word} when clean, the model says otherwise"
    for count, (index, proof) in enumerate(unpacked(found.proofs), 1):
        if fault := _fault(prover, found, index, proof):
            yield f"image {index}: {fault}"
        seen(count)


def _fault(prover: Prover, found: _Opened, index: int, proof: ImageProof) -> str:
    """Return why a proof is not valid; empty if it is."""
    told, data = found.certificate, found.dataset
    region = region_of(data, index, told.threat)
    try:
        shown = prover.check(region, int(data.labels[index]), proof)
    except BadProofError as error:
        return f"its proof is none: {error}"
    if not shown > 0:
        return f"its proof shows a margin of {shown:.6g}, not one above 0"
    claimed = told.margins[index]
    # Sums of another order differ in their last digits; a step is far more than that.
    if claimed is None or shown < claimed - MARGIN_STEP * (1 + abs(claimed)):
        return f"its proof shows a margin of {shown:.6g}, the certificate says {claimed}"
    return ""
