"""Verify a file: a record by its witnesses, a certificate by its proofs."""

from __future__ import annotations

from pathlib import Path

from satbench.board.definition import board_definitions
from satbench.core.schema import read_text
from satbench.evaluation.given import Given
from satbench.proofs.certificates import VerifiedCertificate, verify_certificate
from satbench.proofs.verification import Verified, committed_records, verify_record
from satbench.records.certificates import is_certificate


def committed_files() -> list[Path]:
    """Return the records and the certificates that ship with satbench."""
    boards = board_definitions()
    certificates = [path for one in boards for path in sorted(one.certificates.glob("*.json"))]
    return [*committed_records(), *certificates]


def not_verified(path: Path, error: Exception) -> Verified | VerifiedCertificate:
    """Return the result for a committed file that could not be checked; its folder says the kind.

    Without this, one unreadable certificate would count among the records.
    """
    if any(path.parent == board.certificates for board in board_definitions()):
        return VerifiedCertificate(path, 0, 0, [str(error)])
    return Verified(path, 0, 0, [str(error)])


def verify_file(
    path: Path, given: Given | None = None, device: str = "cpu"
) -> Verified | VerifiedCertificate:
    """Verify the record or the certificate at `path`; raises the errors of both.

    A certificate is always verified on the CPU, in double precision.
    """
    if is_certificate(read_text(path, "record")):
        return verify_certificate(path, given)
    return verify_record(path, given, device)
