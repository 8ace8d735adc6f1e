"""The comparison of two records on the same images, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from satbench.core.errors import SatbenchError
from satbench.core.stats.intervals import matched_interval, mcnemar_p
from satbench.core.stats.shown import ALPHA
from satbench.records.record import SURVIVED, WRONG_CLEAN, Record, read_record

NO_ATTACK = "no attack"
"""What broke an image that is wrong when clean."""


@dataclass(frozen=True)
class Churn:
    """Images that one model gets right after the attacks, and the other does not.

    `stands` is the position of the model that gets them right, 0 or 1; `broken_by` is what broke
    the other: a part of an attack, or `no attack` if it is wrong when clean.  `images` are the
    indices of the images in the data set.
    """

    stands: int
    broken_by: str
    images: tuple[int, ...]


@dataclass(frozen=True)
class RecordComparison:
    """How much more robust one model is than another on the same `n` images.

    `robust` are the two robust accuracies, shares in [0, 1]; `difference` is the first minus the
    second, with its 95 % `interval`.  `only_first` images are right after the attacks only for the
    first model, `only_second` only for the second; `p` is that of the exact McNemar test.  `churn`
    has each of these images once, by what broke it.
    """

    names: tuple[str, str]
    n: int
    robust: tuple[float, float]
    difference: float
    interval: tuple[float, float]
    only_first: int
    only_second: int
    p: float
    churn: tuple[Churn, ...] = ()

    @property
    def shown(self) -> bool:
        """Whether a difference is shown, at p < 0.05: one comparison, no correction."""
        return self.p < ALPHA

    def __str__(self) -> str:
        first, second = self.names
        low, high = (100 * end for end in self.interval)
        better = first if self.difference > 0 else second
        verdict = f"{better} is shown to be more robust" if self.shown else "no difference is shown"
        return (
            f"{first} {self.robust[0]:.1%}, {second} {self.robust[1]:.1%}: "
            f"{100 * self.difference:+.1f} points ({low:+.1f} to {high:+.1f}) on {self.n} images; "
            f"{verdict} (p = {self.p:.2g})"
        )


def compare(
    first: Record | str | PathLike[str], second: Record | str | PathLike[str]
) -> RecordComparison:
    """Compare the robust accuracy of two models on the same images, under the same threat model.

    `first` and `second` are records or the paths of their files.  The test is paired, by image
    (McNemar, 1947).  Raises SatbenchError for records with different images, threat models or
    attacks, because the difference would not be due to the models.

    >>> import satbench
    >>> records = [
    ...     satbench.evaluate(f"fmnist-sat-tiny-{name}-s0", attacks="pgd-2", n_examples=50, out=tmp)
    ...     for name in ("silu", "relu")
    ... ]
    >>> satbench.compare(*records).n
    50
    """
    one, other = (_read(record) for record in (first, second))
    for what, values in (
        ("images", (one.dataset.digest, other.dataset.digest)),
        ("threat model", (f"{one.norm}:{one.eps}", f"{other.norm}:{other.eps}")),
        ("attacks", (_attacks(one), _attacks(other))),
    ):
        if values[0] != values[1]:
            shown = " and ".join(text if len(text) < 60 else f"{text[:12]}…" for text in values)
            raise SatbenchError(f"expected two records of the same {what}, got {shown}")
    stands = [np.array(record.verdicts) == SURVIVED for record in (one, other)]
    compared = _compared((one.model.name, other.model.name), stands)
    return replace(compared, churn=(*_churn(0, stands[0], other), *_churn(1, stands[1], one)))


def broken_by(record: Record, verdict: int) -> str:
    """Return what broke an image with a verdict above -1, for people.

    >>> from satbench.board.publish import published_records
    >>> broken_by(published_records()[0], 0)
    'no attack'
    """
    if verdict == WRONG_CLEAN:
        return NO_ATTACK
    stage = record.stages[verdict - 1]
    name = stage.attack.partition("(")[0]
    by = f" by {stage.by}" if stage.by else ""
    return (f"{name}/{stage.part}" if stage.part else name) + by


def _churn(stands: int, right: NDArray[np.bool_], other: Record) -> list[Churn]:
    """Return the images that are `right`, (N,), and wrong in `other`, by what broke them there."""
    found: dict[int, list[int]] = {}
    for index in np.flatnonzero(right).tolist():
        if (verdict := other.verdicts[index]) != SURVIVED:
            found.setdefault(verdict, []).append(index)
    return [
        Churn(stands, broken_by(other, verdict), tuple(images))
        for verdict, images in sorted(found.items())
    ]


def _read(record: Record | str | PathLike[str]) -> Record:
    return record if isinstance(record, Record) else read_record(Path(record))


def _attacks(record: Record) -> str:
    return " then ".join(stage.attack for stage in record.stages)


def _compared(names: tuple[str, str], stands: Sequence[NDArray[np.bool_]]) -> RecordComparison:
    first, second = stands
    robust = float(first.mean()), float(second.mean())
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return RecordComparison(
        names,
        len(first),
        robust,
        robust[0] - robust[1],
        matched_interval(only_first, only_second, len(first)),
        only_first,
        only_second,
        mcnemar_p(first, second),
    )
