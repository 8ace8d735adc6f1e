"""CSV that a spreadsheet shows and does not run."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from satbench.core.text.characters import visible

_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula (OWASP, *CSV Injection*)."""


def csv_text(lines: Sequence[Mapping[str, object]]) -> str:
    """Return one line for each mapping, and the names of the first one's keys above.

    A text that a spreadsheet would take for a formula begins with an apostrophe; numbers stay.
    """
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: csv_cell(value) for name, value in line.items()} for line in lines)
    return file.getvalue()


def csv_cell(value: object) -> object:
    """Return a value as a cell holds it.

    >>> csv_cell("=cmd|'/C calc'!A0"), csv_cell(-0.5)
    ("'=cmd|'/C calc'!A0", -0.5)
    """
    if not isinstance(value, str):
        return value
    apostrophe = "'" if value.lstrip(" ").startswith(_FORMULAS) else ""
    return apostrophe + visible(value)
