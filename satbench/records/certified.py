"""Certificates beside records: which images are certified, and whether a record contradicts it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from satbench.core.threat import Threat
from satbench.records.certificates import CERTIFIED, Certificate
from satbench.records.limits import check_certificate_limits
from satbench.records.record import SURVIVED, Record


def certified_of(certificates: Sequence[Certificate]) -> NDArray[np.bool_] | None:
    """Return which images one of the certificates of a model covers, (N,); None without any."""
    masks = [np.equal(one.verdicts, CERTIFIED) for one in certificates]
    return np.logical_or.reduce(masks) if masks else None


def certificates_of(
    records: Sequence[Record], certificates: Sequence[Certificate]
) -> list[Certificate]:
    """Return the certificates of the model and the images of `records`, within the same ball."""
    return [one for one in certificates if any(_same_subject(one, record) for record in records)]


def certificates_without_row(
    certificates: Sequence[Certificate], records: Sequence[Record]
) -> list[str]:
    """Return a sentence for each certificate of no model, images and ball of `records`."""
    used = certificates_of(records, certificates)
    return [
        f"the certificate {one.identity[:12]} of {one.model.name} within {one.threat} is of no "
        "row: no record on the board has its weights, images and threat model"
        for one in certificates
        if one not in used
    ]


def countable_certificates(
    certificates: Sequence[Certificate], records: Sequence[Record]
) -> tuple[list[Certificate], list[str]]:
    """Return the certificates that no record contradicts, and a sentence for each other.

    One with values that no certification would have written does not count either.
    A record contradicts a certificate if it has broken a certified image of the same model within
    the same ball or a smaller one.
    """
    found, faults = [], []
    for one in certificates:
        fault = next(check_certificate_limits(one), "")
        if fault:
            faults.append(f"the certificate of {one.model.name} does not count: {fault}")
        elif fault := next(filter(None, (contradiction(one, record) for record in records)), ""):
            faults.append(fault)
        else:
            found.append(one)
    return found, faults


def contradiction(certificate: Certificate, record: Record) -> str:
    """Return a sentence about an image that is certified and broken; empty if there is none."""
    if not _same_model(certificate, record) or record.norm != certificate.norm:
        return ""
    if Threat.of(record.norm, record.eps).eps > certificate.threat.eps:
        return ""
    broken = np.not_equal(record.verdicts, SURVIVED)
    both = np.flatnonzero(np.equal(certificate.verdicts, CERTIFIED) & broken)
    if not len(both):
        return ""
    return (
        f"image {both[0]} of {certificate.model.name} is certified within {certificate.threat} and "
        f"broken within {record.norm}:{record.eps} (record {record.identity[:12]}): one of the two "
        "is wrong; please report it"
    )


def _same_subject(certificate: Certificate, record: Record) -> bool:
    return (
        _same_model(certificate, record)
        and Threat.of(record.norm, record.eps) == certificate.threat
    )


def _same_model(certificate: Certificate, record: Record) -> bool:
    mine, other = certificate.model, record.model
    return (
        (mine.weights_digest, mine.architecture, mine.activation)
        == (other.weights_digest, other.architecture, other.activation)
        and mine.answers_digest == other.answers_digest
        and certificate.dataset.digest == record.dataset.digest
        and certificate.n == record.n
    )
