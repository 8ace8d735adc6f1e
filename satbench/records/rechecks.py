"""Recheck records: attacks on a random sample of a record's survivors.

They are in the folder `rechecks` of a board, into which only the board's maintainer puts files.
Everything in one, except which images were broken, follows from its seed and its record, so it can
be checked without attacking.  The attack itself can be repeated with the seed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from satbench.core.errors import SatbenchError
from satbench.core.files import write_text
from satbench.core.noise import generator_for
from satbench.core.schema import convert, parse_schema, read_text
from satbench.core.stats.intervals import unseen_bound
from satbench.records.record import SURVIVED, Record

KIND = "recheck"
SCHEMA = 1


@dataclass(frozen=True)
class RecheckRecord:
    """A recheck of a random sample of a record's claimed survivors.

    `record` is that record's identity and `record_digest` the SHA-256 of its text; `model` is for
    people.  Of the `survivors` among `n` images, those at `sampled` were attacked by `attacks` with
    `seed`, which determines the sample and all noise, and those at `broken` were broken.  With 95 %
    confidence these attacks would break at most `breakable` of the survivors.  `by` says who
    rechecked, `finished` when.
    """

    record: str
    record_digest: str
    model: str
    n: int
    survivors: int
    sampled: list[int]
    broken: list[int]
    attacks: list[str]
    seed: int
    breakable: int
    by: str
    finished: str
    satbench: str
    protocol: int
    kind: str = KIND
    schema: int = SCHEMA
    path: Path | None = None

    def to_json(self) -> str:
        """Return it as JSON text; `read_recheck` is the inverse."""
        values = asdict(self)
        del values["path"]
        places = {name: values.pop(name) for name in ("sampled", "broken")}
        lines = json.dumps(values | {name: f"@{name}@" for name in places}, indent=1)
        for name, found in places.items():  # one line each
            lines = lines.replace(f'"@{name}@"', json.dumps(found, separators=(",", ":")))
        return lines + "\n"


def record_digest(record: Record) -> str:
    """Return the SHA-256 of a record's text: a recheck is of exactly these bytes."""
    return sha256(record.to_json().encode()).hexdigest()


def drawn_survivors(record: Record, images: int, seed: int) -> NDArray[np.int64]:
    """Return the indices of `images` random claimed survivors, drawn by `seed`, ascending.

    If there are fewer survivors, all.  Raises SatbenchError if the record claims none.
    """
    survivors = np.flatnonzero(np.array(record.verdicts) == SURVIVED)
    if not len(survivors):
        raise SatbenchError("the record claims no survivor that could be attacked again")
    drawn = generator_for("recheck", str(seed)).permutation(survivors)
    chosen: NDArray[np.int64] = np.sort(drawn[:images])
    return chosen


def read_recheck(path: Path) -> RecheckRecord:
    """Read a recheck record.  Raises SatbenchError for a missing or malformed one."""
    text = read_text(path, "recheck record")
    values = parse_schema(text, "recheck record", str(path), (SCHEMA,), KIND)
    if "path" in values:
        raise SatbenchError(f"the recheck record {path} has a field that is in no file, path")
    return replace(convert(values, RecheckRecord, "recheck record", str(path)), path=path)


def write_recheck(recheck: RecheckRecord, path: Path) -> None:
    """Write a recheck record atomically."""
    write_text(path, recheck.to_json())


def read_rechecks(folder: Path, left_out: list[str] | None = None) -> list[RecheckRecord]:
    """Read the recheck records of a folder, which need not exist, ordered by file name.

    Raises SatbenchError for the first bad one; with a list `left_out`, bad ones are left out
    instead, and the list gets a sentence for each.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(read_recheck(path))
        except SatbenchError as error:
            if left_out is None:
                raise
            left_out.append(str(error))
    return found


def check_recheck(recheck: RecheckRecord, record: Record) -> Iterator[str]:
    """Yield what in a recheck does not follow from its record and its seed, one sentence each."""
    if recheck.record_digest != record_digest(record):
        yield "the record that it rechecked is another: its digest differs"
        return
    survivors = record.surviving()
    if (recheck.n, recheck.survivors) != (record.n, survivors):
        yield (
            f"it has {recheck.survivors} survivors of {recheck.n} images, the record of "
            f"{survivors} of {record.n}"
        )
        return
    if not survivors:
        yield "the record claims no survivor"
        return
    drawn = drawn_survivors(record, len(recheck.sampled), recheck.seed).tolist()
    if not drawn or recheck.sampled != drawn:
        yield f"its sample is not the one that the seed {recheck.seed} draws"
        return
    if not set(recheck.broken) <= set(drawn) or len(set(recheck.broken)) < len(recheck.broken):
        yield "images are said to have fallen that were not in the sample, or twice"
        return
    bound = unseen_bound(len(recheck.broken), len(drawn), survivors)
    if recheck.breakable != bound:
        yield f"its bound is {recheck.breakable} images, where the sample gives {bound}"
