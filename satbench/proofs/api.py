"""The Python interface to records: `satbench.verify`, `satbench.challenge`, `satbench.merge`.

A record of a model or of images of one's own names neither so that others could find them: whoever
has them gives them.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from satbench.core.console import say
from satbench.core.errors import SatbenchError
from satbench.evaluation.arguments import attack_list, check_arguments
from satbench.preflight.image_checks import dataset_from_tensors
from satbench.proofs.challenging import Challenge, run_challenge
from satbench.proofs.given import Given
from satbench.proofs.merging import merge_files
from satbench.proofs.verification import Verified, verify_record
from satbench.records.record import Record, read_record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def verify(
    record: Record | str | PathLike[str],
    model: nn.Module | str | None = None,
    x: Tensor | NDArray[np.float32] | None = None,
    y: Tensor | NDArray[np.int64] | None = None,
    *,
    trust: Sequence[str] = (),
) -> Verified:
    """Re-check a record and its witnesses, and return the number that it confirms.

    `record` is one that `satbench.evaluate` returned, or the path of its file; its witnesses lie
    beside the file.  `model` and the images `x` (N, C, H, W) and labels `y` (N,) are those that
    were evaluated; a model or data set that the record names may be left out, where it is known
    here by its digest.  Any other name in a record is taken for what it means only if it is among
    `trust`, for it may mean code to run or a server to ask.  One forward pass an image and a
    witness; no attack is run again.  Confirmed is an upper bound: every image counted as broken is
    broken.

    Raises SatbenchError for a record that cannot be read, and where model or images are missing;
    what else is wrong is in `faults`, a sentence each.

    >>> import satbench, torch
    >>> x, y = torch.rand(20, 1, 8, 8), torch.arange(20) % 2
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    >>> record = satbench.evaluate(model, x, y, attacks="pgd-5", eps="8/255", out=tmp)
    >>> verified = satbench.verify(record, model, x, y)
    >>> verified.confirmed, verified.robust_accuracy == record.surviving() / record.n
    (True, True)
    """
    return verify_record(_path(record), _given(model, x, y, trust))


def challenge(
    record: Record | str | PathLike[str],
    model: nn.Module | str | None = None,
    x: Tensor | NDArray[np.float32] | None = None,
    y: Tensor | NDArray[np.int64] | None = None,
    *,
    attacks: str | Sequence[str] = (),
    images: str | PathLike[str] | None = None,
    by: str = "",
    seed: int = 0,
    batch_size: int = 250,
    device: str | torch.device = "auto",
    out: str | PathLike[str] | None = None,
    bpda: Mapping[str, str | nn.Module] | None = None,
    fresh: bool = False,
    trust: Sequence[str] = (),
) -> Record:
    """Attack what survives in a record, and return a new record of what fell.

    `record`, `model`, `x`, `y` and `trust` are as for `satbench.verify`, which is done first.
    `attacks`, `seed`, `batch_size`, `device`, `bpda` and `fresh` are as for `satbench.evaluate`;
    `images` is a file of adversarial images instead of attacks.  `by` says who challenges.  The new
    record lies in the folder `out`, by default beside the old one, which is left as it is; robust
    accuracy can only fall.

    Raises SatbenchError for a record that does not hold, for one without survivors, and for an
    attack that it has had with the same seed.

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
    )
    asked = Challenge(
        _path(record),
        attack_list(attacks) if attacks else (),
        None if images is None else Path(images),
        by,
        int(seed),
        int(batch_size),
        str(device),
        _given(model, x, y, trust),
        None if out is None else Path(out),
        bpda or {},
        fresh,
    )
    done = run_challenge(asked)
    if done.refused:
        say(f"satbench: {done.refused}")
    if done.found:
        made = done.record.environment.finished
        say(f"satbench: found {done.path}, made {made}; fresh=True runs it anew")
    return _beside(replace(done.record, path=done.path.absolute(), found=done.found), record)


def merge(
    records: Sequence[Record | str | PathLike[str]],
    model: nn.Module | str | None = None,
    x: Tensor | NDArray[np.float32] | None = None,
    y: Tensor | NDArray[np.int64] | None = None,
    *,
    out: str | PathLike[str] | None = None,
    trust: Sequence[str] = (),
) -> Record:
    """Unite records of one model on the same images into a new one, and return it.

    `model`, `x`, `y` and `trust` are as for `satbench.verify`, which is done first for each.  What
    any of them broke is broken.  The new record lies in the folder `out`, by default beside the
    first one.

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
    merged = merge_files(paths, _given(model, x, y, trust), None if out is None else Path(out))
    return _beside(replace(merged.record, path=merged.path.absolute()), *records)


def _path(record: Record | str | PathLike[str]) -> Path:
    """Return where a record lies; one in memory must be the one in its file."""
    check_arguments(record=record)
    if not isinstance(record, Record):
        return Path(record)
    if record.path is None:
        raise SatbenchError(
            "expected a record with its witnesses beside it, got one that lies in no file: "
            "give one that satbench.evaluate returned, or a path"
        )
    if read_record(record.path) != record:
        raise SatbenchError(f"expected the record given at {record.path}, where another lies now")
    return record.path


def _given(
    model: nn.Module | str | None,
    x: Tensor | NDArray[np.float32] | None,
    y: Tensor | NDArray[np.int64] | None,
    trust: Sequence[str],
) -> Given:
    check_arguments(model=model, trust=trust)
    if x is None and y is None:
        return Given(model, trust=tuple(trust))
    if x is None or y is None:
        raise SatbenchError("expected images x together with their labels y")
    return Given(model, dataset_from_tensors(x, y), trust=tuple(trust))


def _beside(new: Record, *old: Record | str | PathLike[str]) -> Record:
    """Return `new`, which may lie in a temporary folder that goes with a record of `old`."""
    weakref.finalize(new, lambda *_: None, *old)  # holds them for as long as `new` is there
    return new
