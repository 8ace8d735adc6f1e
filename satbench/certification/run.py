"""A certification: every image of a data set is tried, one after the other, and stored."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import floor, isfinite
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from satbench.calling.borrow import borrowed
from satbench.calling.devices import choose_device, device_of
from satbench.calling.generators import own_generators
from satbench.certification.bounding.crown import Deadline
from satbench.certification.bounding.region import Region
from satbench.certification.network import check_answers, prover_of
from satbench.certification.packing import packed, unpacked
from satbench.certification.proving import Attempt, ImageProof, Prover
from satbench.core.errors import SatbenchError
from satbench.core.noise import Noise
from satbench.core.progress.receiver import NoProgress, Progress
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.engine.ball import random_point
from satbench.engine.journal import RunStore, known_models
from satbench.engine.judge import predict
from satbench.engine.machine.threads import one_thread_if_small
from satbench.evaluation.config import EvalConfig, first_examples
from satbench.evaluation.environment import measured_environment
from satbench.evaluation.own_code import identified
from satbench.evaluation.trained_on import check_not_trained_on
from satbench.models import load_model
from satbench.preflight.preflight import Needs, check_set_up
from satbench.records.certificates import (
    CERTIFIED,
    MARGIN_STEP,
    METHODS,
    OPEN,
    WRONG_CLEAN,
    Certificate,
    Proofs,
    certificate_identity,
    certificate_stem,
    proofs_path,
    read_certificate,
    write_certificate,
    write_proofs,
)
from satbench.records.record import DatasetInfo, ModelInfo

_TOGETHER = 50
"""Images in one forward, before the first one is tried."""


@dataclass(frozen=True)
class CertificationPlan:
    """The settings of a certification, apart from the model.

    Each image goes through the methods up to `method`, for at most `seconds` (None: no limit).
    """

    dataset: Dataset
    threat: Threat
    method: str = "alpha-crown"
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise SatbenchError(f"expected a method {', '.join(METHODS)}, got {self.method!r}")
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise SatbenchError(f"expected a time above 0 seconds an image, got {self.seconds:g}")


@dataclass(frozen=True)
class Certified:
    """A certificate, its path, and whether it already existed."""

    certificate: Certificate
    path: Path
    found: bool

    @property
    def certified_accuracy(self) -> float:
        """The share of images that no adversary can break, in [0, 1]: a lower bound."""
        return self.certificate.certified / self.certificate.n

    @property
    def clean_accuracy(self) -> float:
        """The share of images that are right without an attack, in [0, 1]."""
        return self.certificate.clean_correct / self.certificate.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of the certified accuracy."""
        return self.certificate.interval

    @property
    def images(self) -> NDArray[np.bool_]:
        """Which images are certified.  (N,)."""
        return np.equal(self.certificate.verdicts, CERTIFIED)

    def __str__(self) -> str:
        told = self.certificate
        return (
            f"{told.model.name} on {told.n} images of {told.dataset.name}, {told.threat}: clean "
            f"{self.clean_accuracy:.1%}, certified {self.certified_accuracy:.1%} "
            f"({told.method})"
        )


def certify_config(
    config: EvalConfig,
    method: str,
    seconds: float | None,
    progress: Progress | None = None,
    images: Dataset | None = None,
) -> Certified:
    """Certify as the command line says, with `images` instead of its own.

    The attacks of `config` are unused.
    """
    device = choose_device(config.device)
    dataset = images or first_examples(config.dataset, config.n_examples, config.data_dir)
    with own_generators(device, config.seed):
        loaded = load_model(config.model, dataset.classes, exactly=not dataset.more_classes)
        loaded.check_images(dataset.shape, dataset.name)
        check_not_trained_on(loaded.info, images.name if images else config.dataset, dataset)
        plan = CertificationPlan(dataset, config.threat, method, seconds)
        module = loaded.module.to(device)
        return certify_model(module, loaded.info, plan, config.out, progress, config.fresh)


def certify_model(
    module: nn.Module,
    info: ModelInfo,
    plan: CertificationPlan,
    out: Path,
    progress: Progress | None = None,
    fresh: bool = False,
) -> Certified:
    """Certify the images of a model; write the certificate and its proofs to the folder `out`.

    If the certificate of the same inputs already exists, it is returned, unless `fresh`; a stopped
    certification continues after its last image.  The model is not changed.  Raises SatbenchError
    from preflight, and for a network without known bounds.
    """
    data, told = plan.dataset, progress or NoProgress()
    learnt = check_set_up(module, data, plan.threat, Needs(gradients=False))
    prover = prover_of(module, data.shape)
    info = identified(info, module, data, device_of(module), known_models(out, info.name))
    images = DatasetInfo(data.name, data.split, len(data), data.classes, data.digest)
    identity = certificate_identity(info, images, plan.threat, plan.method, plan.seconds)
    stem = certificate_stem(info.name, images.name, plan.threat, identity)
    path, store = out / f"{stem}.json", RunStore(out, identity, data.images.shape)
    if not fresh and (known := _found(path, identity)):
        store.sweep()
        return Certified(known, path, found=True)
    with store.claimed(), one_thread_if_small(device_of(module), learnt.flops):
        store.begin(info, fresh)
        begun = time.perf_counter()
        with borrowed(module) as judged:
            right = answered_right(prover, judged, data, plan.threat)
        clean_seconds = time.perf_counter() - begun
        attempts = list(_attempts(prover, plan, right, store, told))
        proofs = {i: one.proof for i, one in attempts if one.proof is not None}
        together = packed(proofs, prover.program.neurons)
        margins = dict.fromkeys(range(len(data)), None) | {
            i: told_margin(one.margin) for i, one in attempts
        }
        certificate = Certificate(
            identity=identity,
            model=info,
            dataset=images,
            norm=plan.threat.norm,
            eps=str(plan.threat).partition(":")[2],
            method=plan.method,
            seconds=plan.seconds,
            verdicts=[
                CERTIFIED if i in proofs else OPEN if ok else WRONG_CLEAN
                for i, ok in enumerate(right.tolist())
            ],
            margins=list(margins.values()),
            out_of_time=sum(one.out_of_time for _, one in attempts),
            proofs_digest=together.digest,
            environment=measured_environment(
                torch.device("cpu"), 1, clean_seconds, [time.perf_counter() - begun]
            ),
        )
        write_proofs(together, proofs_path(path))
        write_certificate(certificate, path)
        store.remove()
    return Certified(certificate, path, found=False)


def answered_right(
    prover: Prover, judged: nn.Module, data: Dataset, threat: Threat
) -> NDArray[np.bool_]:
    """Return which images a model has right, as the judge decides.  (N,).

    Raises SatbenchError if its answers differ from those of its program, at an image or at a random
    point of its region.
    """
    right = np.zeros(len(data), bool)
    for first in range(0, len(data), _TOGETHER):
        places = np.arange(first, min(first + _TOGETHER, len(data)))
        x = torch.from_numpy(data.pixels(places))
        near = random_point(x, threat, Noise(0, "certificate", tuple(places.tolist())))
        for some in (x, near):
            check_answers(prover, judged, some.to(device_of(judged)), first)
        seen = predict(judged, x.to(device_of(judged))).cpu().numpy()
        right[places] = seen == data.labels[places]
    return right


def region_of(data: Dataset, index: int, threat: Threat) -> Region:
    """Return the region around an image that the judge allows."""
    x = torch.from_numpy(data.pixels(np.array([index]))).double()
    return Region.judged(x, threat)


def told_margin(margin: float) -> float | None:
    """Return a margin in the form of a certificate: rounded down; None for one that is not finite.

    >>> told_margin(0.0123456789), told_margin(float("-inf"))
    (0.012345, None)
    """
    return round(floor(margin / MARGIN_STEP) * MARGIN_STEP, 6) if isfinite(margin) else None


def _found(path: Path, identity: str) -> Certificate | None:
    """Return the certificate of an identity, if it and its proofs exist."""
    if not (path.exists() and proofs_path(path).exists()):
        return None
    certificate = read_certificate(path)
    return certificate if certificate.identity == identity else None


def _attempts(
    prover: Prover,
    plan: CertificationPlan,
    right: NDArray[np.bool_],
    store: RunStore,
    told: Progress,
) -> Iterator[tuple[int, Attempt]]:
    """Yield the attempt for each image that is right; those of an earlier start are on disk."""
    due = np.flatnonzero(right).tolist()
    kept = {i: one for i in due if (one := _kept(store, i)) is not None}
    told.stage(plan.method, total=len(due), done=len(kept))
    certified = sum(one.proof is not None for one in kept.values())
    for index in due:
        if index in kept:
            yield index, kept[index]
            continue
        deadline = Deadline() if plan.seconds is None else Deadline.after(plan.seconds)
        region, label = region_of(plan.dataset, index, plan.threat), int(plan.dataset.labels[index])
        found = prover.prove(region, label, METHODS.index(plan.method), deadline)
        _keep(store, index, found, prover.program.neurons)
        certified += found.proof is not None
        told.advance(1, certified)
        yield index, found


def _keep(store: RunStore, index: int, found: Attempt, neurons: int) -> None:
    """Store an attempt atomically."""
    known: dict[int, ImageProof] = {} if found.proof is None else {index: found.proof}
    store.keep(
        f"{index:09d}",
        margin=found.margin,
        out_of_time=found.out_of_time,
        **vars(packed(known, neurons)),
    )


def _kept(store: RunStore, index: int) -> Attempt | None:
    """Return an attempt of an earlier start."""
    found = store.kept(f"{index:09d}")
    if found is None:
        return None
    margin, out_of_time = float(found.pop("margin")), bool(found.pop("out_of_time"))
    proofs = dict(unpacked(Proofs(**found)))
    return Attempt(proofs.get(index), margin, out_of_time)
