"""CSV without formulas: a spreadsheet shows its cells as text."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from satbench.core.text.characters import visible

_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""Characters that begin a formula in a spreadsheet (OWASP, *CSV Injection*)."""


def csv_text(lines: Sequence[Mapping[str, object]]) -> str:
    """Return a header with the keys of the first mapping, and one line for each mapping.

    A text that would be a formula in a spreadsheet gets an apostrophe; numbers do not change.
    """
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: csv_cell(value) for name, value in line.items()} for line in lines)
    return file.getvalue()


def csv_cell(value: object) -> object:
    """Return a value as the text of a cell.

    >>> csv_cell("=cmd|'/C calc'!A0"), csv_cell(-0.5)
    ("'=cmd|'/C calc'!A0", -0.5)
    """
    if not isinstance(value, str):
        return value
    apostrophe = "'" if value.lstrip(" ").startswith(_FORMULAS) else ""
    return apostrophe + visible(value)
