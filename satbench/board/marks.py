"""The mark of a row: how far its numbers were checked by a second person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from satbench.records.rechecks import RecheckRecord, check_recheck
from satbench.records.record import Record

Mark = Literal["verified", "unverified", "imported"]

PROMISES: Mapping[Mark, str] = {
    "verified": "each broken image has a witness, and the board's maintainer attacked a random "
    "sample of the claimed survivors again: with 95 % confidence the number is too high by at most "
    "the points shown, for those attacks",
    "unverified": "each broken image has a witness; the survival of the others is only claimed",
    "imported": "the numbers are those of another publication; satbench measured nothing",
}
"""The promise of each mark, the strongest first."""

LEAST_IMAGES = 50
"""The size of a sample that earns the mark; if there are fewer survivors, all."""

MOST_POINTS = 0.05
"""By how much a verified number can be too high, at most, as a share of all images."""

STRONG = ("autoattack(", "autoattack-reference(", "fast(", "strongest(")
"""One attack of a recheck must begin with one of these: a weak attack breaks nothing anywhere."""


@dataclass(frozen=True)
class Checked:
    """The result of rechecks of a row: of `sampled` survivors, `broken` were broken.

    With 95 % confidence the `attacks` would break at most `breakable` of the images that survive in
    the row; `too_high` is that as a share of all images.
    """

    sampled: int
    broken: int
    breakable: int
    too_high: float
    attacks: tuple[str, ...]


def checked_of(
    robust: NDArray[np.bool_], records: Sequence[Record], rechecks: Sequence[RecheckRecord]
) -> Checked | None:
    """Return the check of a row whose `robust` images (N,) survive in all its `records`.

    The recheck with the largest sample counts, whatever it broke.  Its bound is for all survivors
    that its record claims.  These include images that it broke and that a record has proven broken
    since, which are no longer among the row's survivors.  None if no recheck is of these records,
    large enough, and with a strong attack.
    """
    ours = {record.identity for record in records}
    found = [
        one
        for one in rechecks
        if one.record in ours
        and len(one.sampled) >= min(LEAST_IMAGES, one.survivors)
        and any(spec.startswith(STRONG) for spec in one.attacks)
    ]
    if not found:
        return None
    largest = max(found, key=lambda one: (len(one.sampled), one.finished, one.seed))
    proven = sum(not robust[image] for image in largest.broken)
    breakable = min(largest.breakable - proven, int(robust.sum()))
    return Checked(
        len(largest.sampled),
        len(largest.broken),
        breakable,
        breakable / len(robust),
        tuple(largest.attacks),
    )


def mark_of(robust: NDArray[np.bool_], checked: Checked | None) -> Mark:
    """Return the mark of a row with records; without survivors there is nothing to trust."""
    if not robust.any():
        return "verified"
    return "verified" if checked and checked.too_high <= MOST_POINTS else "unverified"


def countable_rechecks(
    rechecks: Sequence[RecheckRecord], records: Sequence[Record]
) -> tuple[list[RecheckRecord], list[str]]:
    """Return the rechecks that follow from a board's records, and a sentence for each other."""
    by_identity = {record.identity: record for record in records}
    good, faults = [], []
    for one in rechecks:
        record = by_identity.get(one.record)
        wrong = ["its record is not on the board"] if record is None else []
        wrong += check_recheck(one, record) if record else []
        good += [] if wrong else [one]
        place = one.path or one.record[:12]
        faults += [f"the recheck {place} does not count: {wrong[0]}"] if wrong else []
    return good, faults
