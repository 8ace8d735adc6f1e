"""The differences between a record and a repetition of its run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from satbench.board.comparison import broken_by
from satbench.records.record import SURVIVED, Record, StageResult
from satbench.records.witnesses import Witnesses

_COUNTS = (
    "attacked",
    "broken",
    "passed_over",
    "forwards",
    "backwards",
    "source_forwards",
    "source_backwards",
)
_SURROUNDINGS = ("satbench", "torch", "python", "platform", "device", "threads")


@dataclass(frozen=True)
class Differing:
    """An image whose verdict differs: the attack that broke it `then` and `now`, or `nothing`."""

    image: int
    then: str
    now: str


@dataclass(frozen=True)
class Reproduced:
    """The differences; if all fields are empty there are none.

    `record` is the given one, `again` the one that its inputs give here.  `images` are the verdicts
    that differ, `witnesses` the images that were broken both times with different pixels, None if
    the record's witnesses cannot be read.  `counts` and `flags` have one sentence each.
    `surroundings` has the differences of machine and versions, name to then and now; they do not
    count as differences of the result.
    """

    record: Record
    again: Record
    images: tuple[Differing, ...]
    witnesses: tuple[int, ...] | None
    counts: tuple[str, ...]
    flags: tuple[str, ...]
    surroundings: dict[str, tuple[str, str]]

    @property
    def is_same(self) -> bool:
        """Whether verdicts, witnesses, counts and flags are those of the record."""
        return not (self.images or self.counts or self.flags) and self.witnesses == ()

    def __str__(self) -> str:
        n, then, now = self.record.n, self.record.surviving(), self.again.surviving()
        unread = "; its witnesses cannot be read, and are not compared"
        what = (
            f"{len(self.images)} of {n} verdicts differ; robust accuracy {then / n:.1%} in the "
            f"record, {now / n:.1%} here"
        )
        if self.is_same:
            return f"nothing differs: {n} verdicts, the witnesses, the passes; {now / n:.1%} robust"
        if self.witnesses:
            what += f"; {len(self.witnesses)} images broken by other witnesses"
        return what + (unread if self.witnesses is None else "")


def compare_runs(
    record: Record, again: Record, kept: Witnesses | None, found: Witnesses
) -> Reproduced:
    """Compare a record and its witnesses `kept`, if they can be read, with the repeated run."""
    then, now = np.array(record.verdicts), np.array(again.verdicts)
    images = [
        Differing(index, _fate(record, index), _fate(again, index))
        for index in np.flatnonzero(then != now).tolist()
    ]
    others: tuple[int, ...] | None = None
    if kept is not None:
        mine = dict(zip(kept.indices.tolist(), kept.images, strict=True))
        theirs = zip(found.indices.tolist(), found.images, strict=True)
        others = tuple(
            index
            for index, image in theirs
            if index in mine and then[index] == now[index] and (mine[index] != image).any()
        )
    surroundings = {
        name: (str(old), str(new))
        for name in _SURROUNDINGS
        if (old := getattr(record.environment, name)) != (new := getattr(again.environment, name))
    }
    counts = tuple(_other_counts(record.stages, again.stages))
    return Reproduced(
        record,
        again,
        tuple(images),
        others,
        counts,
        tuple(_other_flags(record, again)),
        surroundings,
    )


def _fate(record: Record, index: int) -> str:
    verdict = record.verdicts[index]
    return "nothing" if verdict == SURVIVED else broken_by(record, verdict)


def _other_counts(then: Sequence[StageResult], now: Sequence[StageResult]) -> Iterator[str]:
    for number, (old, new) in enumerate(zip(then, now, strict=True), 1):
        for name in _COUNTS:
            before, here = getattr(old, name), getattr(new, name)
            if before != here:
                title = f"stage {number}, {old.attack.partition('(')[0]}/{old.part}".rstrip("/")
                yield f"{title}: {name} {before} in the record, {here} here"


def _other_flags(record: Record, again: Record) -> Iterator[str]:
    if record.diagnosis is None or again.diagnosis is None:
        return
    then, now = (
        {flag.name: flag.images for flag in one.diagnosis.flags if flag.name != "training-data"}
        for one in (record, again)
        if one.diagnosis
    )
    for name in sorted(then.keys() | now.keys()):
        if then.get(name) != now.get(name):
            yield (
                f"flag {name}: {then.get(name, 0)} images in the record, {now.get(name, 0)} here"
            )
