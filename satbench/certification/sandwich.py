"""Robust accuracy between two bounds: a certificate from below, a record of attacks from above."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from satbench.certification.asked import Asked
from satbench.certification.run import Certified, certify_config
from satbench.core.console import BarProgress
from satbench.core.errors import SatbenchError
from satbench.core.progress.receiver import Progress
from satbench.evaluation.api import evaluate_config
from satbench.records.record import SURVIVED, Record


@dataclass(frozen=True)
class Sandwich:
    """Both bounds for one model, at one eps, on the same images; `record` is None without attacks.

    The robust accuracy lies between the share of certified images and that of survivors.
    """

    certified: Certified
    record: Record | None

    @property
    def open(self) -> int:
        """The number of images that are right, but neither certified nor broken."""
        told = self.certified.certificate
        upper = told.clean_correct if self.record is None else self.record.surviving()
        return upper - told.certified


def measure(asked: Asked, progress: Progress | None = None) -> Sandwich:
    """Certify, and attack if that was requested.

    Raises SatbenchError if an image is both certified and broken, which is impossible.
    """
    config = asked.config
    if isinstance(progress, BarProgress):
        progress.model(f"{config.model.text} {config.threat}")
    certified = certify_config(config, asked.method, asked.seconds, progress)
    if not asked.attacked:
        return Sandwich(certified, None)
    record = evaluate_config(config, progress).record
    check_agreement(certified, record)
    return Sandwich(certified, record)


def check_agreement(certified: Certified, record: Record) -> None:
    """Raise SatbenchError if an image is both certified and broken."""
    broken = np.array(record.verdicts) != SURVIVED
    both = np.flatnonzero(certified.images & broken[: certified.certificate.n]).tolist()
    if both:
        raise SatbenchError(
            f"image {both[0]} is certified in {certified.path} and broken in a record of the same "
            "model, threat model and images: one of the two is wrong; please report it"
        )
