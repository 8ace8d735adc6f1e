"""RobustBench's entries: reading them as imported rows, and their form for writing.

RobustBench (Croce et al., 2021, arXiv:2010.09670) keeps a JSON file for each entry of its
leaderboards, `model_info/DATASET/THREAT/NAME.json`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from satbench.board.imported.activations import activation_table
from satbench.board.imported.rows import Imported, ImportedRow, check_percent
from satbench.core.errors import SatbenchError
from satbench.core.schema import check_count, convert, parse_object, read_text
from satbench.core.text.terminal import one_line
from satbench.core.threat import Threat

THREATS = ("Linf", "L2", "L1", "corruptions")
"""The folders of threat models; a fourth kind would need a number of its own."""

_WHAT = "entry of RobustBench"


@dataclass(frozen=True)
class RobustBenchEntry:
    """An entry in the form of RobustBench's files; fields with UNSET are optional.

    Accuracies are percent as text.  `autoattack_acc` is for attacked images, `corruptions_acc` for
    corrupted ones.
    """

    link: str
    name: str
    authors: str
    additional_data: bool
    number_forward_passes: int
    dataset: str
    venue: str
    architecture: str
    eps: str | None
    clean_acc: str
    reported: str | None
    autoattack_acc: str | UnsetType = UNSET
    corruptions_acc: str | UnsetType = UNSET
    corruptions_acc_3d: str | UnsetType = UNSET
    corruptions_mce: str | UnsetType = UNSET
    corruptions_mce_3d: str | UnsetType = UNSET
    external: str | UnsetType = UNSET
    footnote: str | UnsetType | None = UNSET
    unreliable: bool | UnsetType = UNSET


def entry_of(values: object, where: str) -> RobustBenchEntry:
    """Return plain values as an entry.  Raises SatbenchError naming `where` and the field."""
    entry = convert(values, RobustBenchEntry, _WHAT, where)
    for field in ("clean_acc", "autoattack_acc", "external", "corruptions_acc"):
        value = getattr(entry, field)
        if value is not UNSET:
            check_percent(value, field, f"the {_WHAT} {where} is wrong")
    return entry


def plain_entry(entry: RobustBenchEntry) -> dict[str, Any]:
    """Return an entry in the form of its JSON, without the keys that are not set."""
    plain: dict[str, Any] = msgspec.to_builtins(entry)
    return plain


def import_robustbench(folder: Path, left_out: list[str]) -> Imported:
    """Read a folder of RobustBench's entries, `DATASET/THREAT/NAME.json`, into imported rows.

    The folder decides the leaderboard of an entry, as in RobustBench's own code, because some files
    name another data set.  An entry that cannot be read is left out, and `left_out` gets a
    sentence. Raises SatbenchError for a folder without entries.
    """
    if not folder.is_dir():
        raise SatbenchError(f"expected a folder with RobustBench's model_info, got {folder}")
    files = sorted(folder.glob("*/*/*.json"))
    if not files:
        raise SatbenchError(
            f"expected entries DATASET/THREAT/NAME.json in {folder}, found none; give the folder "
            "model_info of a checkout of RobustBench"
        )
    table = activation_table()
    rows = []
    for path in files:
        try:
            rows.append(_row(path, table))
        except SatbenchError as error:
            left_out.append(one_line(error))
    if not rows:
        raise SatbenchError(f"no entry in {folder} can be read; the first: {left_out[0]}")
    return Imported(
        "RobustBench",
        "Croce et al., 2021, arXiv:2010.09670",
        "https://robustbench.github.io",
        tuple(sorted(rows, key=_order)),
    )


def _row(path: Path, table: Any) -> ImportedRow:
    dataset, threat = path.parts[-3:-1]
    where = str(path)
    entry = entry_of(_parsed(read_text(path, _WHAT), where), where)
    if threat not in THREATS:
        raise SatbenchError(
            f"the {_WHAT} {where} is in the folder {threat!r}: expected {', '.join(THREATS)}"
        )
    corrupted = threat == "corruptions"
    robust = entry.corruptions_acc if corrupted else entry.autoattack_acc
    if robust is UNSET:
        wanted = "corruptions_acc" if corrupted else "autoattack_acc"
        raise SatbenchError(f"the {_WHAT} {where} is wrong: missing field {wanted}")
    if not corrupted:
        _check_eps(threat, entry.eps, where)
    known = table.get(f"{dataset}/{threat}/{path.stem}")
    return ImportedRow(
        name=path.stem,
        dataset=dataset,
        norm=threat.lower(),
        eps=None if corrupted else entry.eps,
        architecture=entry.architecture,
        clean=entry.clean_acc,
        attack="corruptions" if corrupted else "AutoAttack",
        robust=robust,
        lower=entry.external or None,
        activation=known.activation if known else None,
        activation_source=known.source if known else "",
        beside=known.beside if known else (),
        extra_data=entry.additional_data,
        doubted=entry.unreliable is True,
        note=entry.footnote or "",
        where="" if entry.dataset == dataset else f"its file says {entry.dataset}",
        paper=entry.name,
        authors=entry.authors,
        venue=entry.venue,
        link=entry.link,
    )


def _parsed(text: str, where: str) -> dict[str, Any]:
    """Read an entry's JSON; one of RobustBench's entries has a name twice, with the same value."""
    check_count(text, _WHAT, where)
    with suppress(ValueError, TypeError, RecursionError):  # the reader below has a better message
        pairs = json.loads(text, object_pairs_hook=list)
        different = {repr(pair): pair for pair in pairs}
        if len({name for name, _ in different.values()}) == len(different) < len(pairs):
            text = json.dumps(dict(different.values()))
    return parse_object(text, _WHAT, where)


def _check_eps(threat: str, eps: str | None, where: str) -> None:
    try:
        Threat.parse(f"{threat.lower()}:{eps}")
    except SatbenchError as error:
        raise SatbenchError(f"the {_WHAT} {where} is wrong: eps: {error}") from None


def _order(row: ImportedRow) -> tuple[str, int, float, str]:
    place = [threat.lower() for threat in THREATS].index(row.norm)
    return row.dataset, place, -float(row.robust or 0), row.name


def papers(rows: Sequence[ImportedRow]) -> int:
    """Return the number of papers of the rows."""
    return len({row.link or row.paper for row in rows})
