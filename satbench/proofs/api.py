"""The Python interface to records: `satbench.verify`, `challenge`, `merge` and `load_record`.

A record of a user's own model or images does not say where to find them, so the caller passes them.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import overload

import torch
from torch import Tensor, nn

from satbench.certification.run import Certified
from satbench.core.console import progress_of, say
from satbench.core.errors import SatbenchError
from satbench.core.schema import read_text
from satbench.evaluation.arguments import (
    AttackGiven,
    attack_list,
    check_arguments,
    checked_model,
    images_at_once,
)
from satbench.evaluation.config import DEFAULT_BATCH
from satbench.evaluation.given import Given
from satbench.evaluation.python.result import Result
from satbench.preflight.reading import Images, Labels, Loader, images_given
from satbench.proofs.certificates import VerifiedCertificate, verify_certificate
from satbench.proofs.challenging import Challenge, run_challenge
from satbench.proofs.merging import merge_files
from satbench.proofs.verification import Verified, verify_record
from satbench.records.certificates import is_certificate
from satbench.records.record import Record, read_record


@overload
def verify(
    record: Record,
    model: Callable[[Tensor], object] | str | None = None,
    x: Images | Loader | str | None = None,
    y: Labels | None = None,
    *,
    trust: Sequence[str] = (),
) -> Verified: ...


@overload
def verify(
    record: Certified,
    model: Callable[[Tensor], object] | str | None = None,
    x: Images | Loader | str | None = None,
    y: Labels | None = None,
    *,
    trust: Sequence[str] = (),
) -> VerifiedCertificate: ...


@overload
def verify(
    record: str | PathLike[str],
    model: Callable[[Tensor], object] | str | None = None,
    x: Images | Loader | str | None = None,
    y: Labels | None = None,
    *,
    trust: Sequence[str] = (),
) -> Verified | VerifiedCertificate: ...


def verify(
    record: Record | Certified | str | PathLike[str],
    model: Callable[[Tensor], object] | str | None = None,
    x: Images | Loader | str | None = None,
    y: Labels | None = None,
    *,
    trust: Sequence[str] = (),
) -> Verified | VerifiedCertificate:
    """Verify a record and its witnesses, and return the number that this confirms.

    `record` is one that `satbench.evaluate` returned, or the path of its file; its witnesses are
    next to the file.  `model`, the images `x` and the labels `y` are those that were evaluated, as
    for `satbench.evaluate`.  They can be left out if the result still has them, or if the record
    names a model or data set that is known here by its digest.  Any other name in a record is
    ignored unless it is among `trust`, because it could run code or ask a server.  There is one
    forward pass per image and witness; no attack runs.  This confirms an upper bound: every image
    that counts as broken is broken.

    What `satbench.certify` returned, or the path of a certificate, is verified by its proofs: the
    bounds are computed again.  That confirms a lower bound.

    Raises SatbenchError for a record that cannot be read, and for a missing model or images.
    Everything else that is wrong is in `faults`, one sentence each.

    >>> import satbench, torch
    >>> x, y = torch.rand(20, 1, 8, 8), torch.arange(20) % 2
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    >>> record = satbench.evaluate(model, x, y, attacks="pgd-5", eps="8/255", out=tmp)
    >>> verified = satbench.verify(record)
    >>> verified.confirmed, verified.robust_accuracy == record.robust_accuracy
    (True, True)
    """
    given = _given(model, x, y, trust)
    if isinstance(record, Certified):
        return verify_certificate(record.path, given)
    path = _path(record)
    if not isinstance(record, Record) and is_certificate(read_text(path, "record")):
        return verify_certificate(path, given)
    return verify_record(path, _given_with(record, given))


def load_record(
    path: str | PathLike[str],
    model: Callable[[Tensor], object] | str | None = None,
    x: Images | Loader | str | None = None,
    y: Labels | None = None,
    *,
    trust: Sequence[str] = (),
) -> Result:
    """Read a record, and return it as a result like that of `satbench.evaluate`.

    `model`, `x`, `y` and `trust` are as for `satbench.verify`.  They are needed only for methods
    such as `.show(8)`, and only if the record does not name them.  Only the form of the file is
    checked; `satbench.verify` checks the rest.  Raises SatbenchError for a file that is missing or
    is not a record.

    >>> import satbench
    >>> name = "fmnist-sat-tiny-silu-s0"
    >>> record = satbench.evaluate(name, attacks="pgd-2", n_examples=20, out=tmp)
    >>> satbench.load_record(record.path) == record
    True
    """
    check_arguments(record=path)
    place = Path(path)
    return Result.of(replace(read_record(place), path=place.absolute()), _given(model, x, y, trust))


def challenge(
    record: Record | str | PathLike[str],
    model: Callable[[Tensor], object] | str | None = None,
    x: Images | Loader | str | None = None,
    y: Labels | None = None,
    *,
    attacks: AttackGiven | Sequence[AttackGiven] = (),
    images: str | PathLike[str] | None = None,
    by: str = "",
    seed: int = 0,
    batch_size: int = 250,
    device: str | torch.device = "auto",
    out: str | PathLike[str] | None = None,
    bpda: Mapping[str, str | nn.Module] | None = None,
    fresh: bool = False,
    progress: bool = True,
    trust: Sequence[str] = (),
) -> Result:
    """Attack the survivors of a record, and return a new record with the result.

    `record`, `model`, `x`, `y` and `trust` are as for `satbench.verify`, which runs first.
    `attacks`, `seed`, `batch_size`, `device`, `bpda` and `fresh` are as for `satbench.evaluate`;
    `images` is a file of adversarial images, instead of attacks.  `by` says who challenges.  The
    new record is written to the folder `out`, by default that of the old one, which does not
    change.  Robust accuracy can only fall.

    Raises SatbenchError for a record that does not hold, for one without survivors, and for an
    attack that it already has with the same seed.

    >>> import satbench, torch
    >>> x, y = torch.rand(20, 1, 8, 8), torch.arange(20) % 2
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    >>> weak = satbench.evaluate(model, x, y, attacks="pgd-1", eps="1/255", out=tmp)
    >>> strong = satbench.challenge(weak, model, x, y, attacks="pgd-20")
    >>> strong.surviving() <= weak.surviving()
    True
    """
    check_arguments(
        attacks=attacks,
        images=images,
        by=by,
        seed=seed,
        batch_size=batch_size,
        device=device,
        out=out,
        bpda=bpda,
        fresh=fresh,
        progress=progress,
    )
    given = _given_with(record, _given(model, x, y, trust))
    asked = Challenge(
        _path(record),
        attack_list(attacks) if attacks else (),
        None if images is None else Path(images),
        by,
        int(seed),
        images_at_once(batch_size, DEFAULT_BATCH),
        str(device),
        given,
        None if out is None else Path(out),
        bpda or {},
        fresh,
    )
    with progress_of("challenge", progress) as shown:
        done = run_challenge(asked, shown)
    if done.refused:
        say(f"satbench: {done.refused}")
    if done.found:
        made = done.record.environment.finished
        say(f"satbench: found {done.path}, made {made}: nothing was run; fresh=True runs it again")
    plain = replace(done.record, path=done.path.absolute(), found=done.found)
    return _beside(Result.of(plain, given), record)


def merge(
    records: Sequence[Record | str | PathLike[str]],
    model: Callable[[Tensor], object] | str | None = None,
    x: Images | Loader | str | None = None,
    y: Labels | None = None,
    *,
    out: str | PathLike[str] | None = None,
    trust: Sequence[str] = (),
) -> Result:
    """Merge records of one model on the same images into a new one, and return it.

    `model`, `x`, `y` and `trust` are as for `satbench.verify`, which runs first for each.  An image
    is broken if it is broken in any of them.  The new record is written to the folder `out`, by
    default that of the first one.

    Raises SatbenchError for records that do not hold, or do not belong together.

    >>> import satbench, torch
    >>> x, y = torch.rand(20, 1, 8, 8), torch.arange(20) % 2
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    >>> given = {"eps": "2/255", "out": tmp}
    >>> one = satbench.evaluate(model, x, y, attacks="pgd-2", **given)
    >>> other = satbench.evaluate(model, x, y, attacks="square(queries=10)", **given)
    >>> both = satbench.merge([one, other], model, x, y)
    >>> both.surviving() <= min(one.surviving(), other.surviving())
    True
    """
    check_arguments(records=records, out=out)
    paths = [_path(record) for record in records]
    given = _given(model, x, y, trust)
    if records:
        given = _given_with(records[0], given)
    merged = merge_files(paths, given, None if out is None else Path(out))
    plain = replace(merged.record, path=merged.path.absolute())
    return _beside(Result.of(plain, given), *records)


def _path(record: Record | str | PathLike[str]) -> Path:
    """Return the path of a record; a record in memory must equal the one in its file."""
    check_arguments(record=record)
    if not isinstance(record, Record):
        return Path(record)
    if record.path is None:
        raise SatbenchError(
            "expected a record file with witnesses next to it, got a record without a file: "
            "pass one that satbench.evaluate returned, or a path"
        )
    if read_record(record.path) != record:
        raise SatbenchError(
            f"expected the given record at {record.path}, but the file was replaced"
        )
    return record.path


def _given(
    model: Callable[[Tensor], object] | str | None,
    x: Images | Loader | str | None,
    y: Labels | None,
    trust: Sequence[str],
) -> Given:
    check_arguments(model=model, trust=trust)
    module = model if model is None or isinstance(model, str) else checked_model(model)
    if x is None and y is None:
        return Given(module, trust=tuple(trust))
    if x is None:
        raise SatbenchError("expected images x together with their labels y")
    return Given(module, x if isinstance(x, str) else images_given(x, y), trust=tuple(trust))


def _given_with(record: Record | str | PathLike[str], given: Given) -> Given:
    """Return `given`, completed by the model and images that a result of `evaluate` has."""
    if not isinstance(record, Result):
        return given
    known = record.given
    model = known.model if given.model is None else given.model
    dataset = known.dataset if given.dataset is None else given.dataset
    return replace(known, model=model, dataset=dataset, trust=(*known.trust, *given.trust))


def _beside(new: Result, *old: Record | str | PathLike[str]) -> Result:
    """Return `new`, which may be in a temporary folder that is removed with a record of `old`."""
    weakref.finalize(new, lambda *_: None, *old)  # keeps them alive as long as `new`
    return new
