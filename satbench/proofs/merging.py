"""Merging of record files of one model into a new record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from satbench.core.errors import SatbenchError
from satbench.core.files import check_folder
from satbench.evaluation.given import Given
from satbench.proofs.challenging import with_result_flags, write_proven
from satbench.proofs.verification import open_record
from satbench.records.join import merge_records
from satbench.records.record import Record, inputs_of, read_record, record_stem


@dataclass(frozen=True)
class Merged:
    """The new record, its path, and how many images survived in each of the old ones."""

    record: Record
    path: Path
    before: tuple[int, ...]


def merge_files(
    paths: Sequence[Path], given: Given | None = None, out: Path | None = None
) -> Merged:
    """Verify the records at `paths`, merge them, and write the new record to the folder `out`.

    The default of `out` is the folder of the first record.  Raises SatbenchError for fewer than two
    records, one that does not hold, one given twice, and records that do not belong together.
    """
    if len(paths) < 2:
        raise SatbenchError(f"expected two records or more to merge, got {len(paths)}")
    folder = out or paths[0].parent
    check_folder(folder)
    subjects = [open_record(path, given) for path in paths]
    seen: dict[str, Path] = {}
    for path, subject in zip(paths, subjects, strict=True):
        if subject.record.identity in seen:
            raise SatbenchError(
                f"{seen[subject.record.identity]} and {path} are the same record: give it once"
            )
        seen[subject.record.identity] = path
    merged, witnesses = merge_records([(one.record, one.witnesses) for one in subjects])
    record = with_result_flags(merged)
    path = folder / f"{record_stem(inputs_of(record))}.json"
    write_proven((record, witnesses), path)
    return Merged(
        read_record(path), path, tuple(subject.record.surviving() for subject in subjects)
    )
