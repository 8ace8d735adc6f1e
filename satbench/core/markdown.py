"""Parts of a markdown page: tables, and cells in which names are only text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from satbench.core.errors import SatbenchError
from satbench.core.text.characters import visible

MISSING = "–"

MOST_LINES = 200
"""The most rows of a table on a page: GitHub shows no page above 512 KiB."""

Line = Sequence[str]

_ADDRESS = re.compile(r"(\b(?:https?|ftp|www|mailto|xmpp))([:.])", re.I)


def percent(share: float) -> str:
    """Return a share as percent with one decimal: `52.1`."""
    return f"{100 * share:z.1f}".replace("-", "−")


def signed(share: float) -> str:
    """Return a difference of shares in points, with its sign: `−0.4`."""
    return f"{100 * share:+z.1f}".replace("-", "−")


def table(head: Line, lines: Iterable[Line], words: int) -> str:
    """Return a markdown table whose first `words` columns are text and the others numbers."""
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))


def long_table(head: Line, lines: Iterable[Line], words: int, file: str) -> str:
    """Return a table of the first `MOST_LINES` rows, and below it how many more are in `file`."""
    found = list(lines)
    shown = table(head, found[:MOST_LINES], words)
    more = len(found) - MOST_LINES
    return shown if more <= 0 else f"{shown}\n\nThe other {more:,} rows are in `{file}`."


def long_list(names: Sequence[str], file: str) -> str:
    """Return the first `MOST_LINES` names in one line, and how many more are in `file`."""
    shown = ", ".join(names[:MOST_LINES])
    more = len(names) - MOST_LINES
    return shown if more <= 0 else f"{shown} and {more:,} more in `{file}`"


def cell(text: str) -> str:
    """Return text from a record, escaped so that it is not markdown or HTML.

    It is no address either, because GitHub would turn it into a link.
    """
    plain = visible(" ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;")
    escaped = "".join(f"\\{letter}" if letter in "\\|`*_[]~" else letter for letter in plain)
    return _ADDRESS.sub(lambda found: f"{found[1]}&#{ord(found[2])};", escaped)


def address(text: str) -> str:
    """Return an address from a card as a link; any other text as `cell` does."""
    return text if is_address(text) else cell(text)


def is_address(text: str) -> bool:
    """Whether a text is a web address and nothing else."""
    return re.fullmatch(r"https://[\w./%+-]+", text, re.ASCII) is not None


def code(text: str) -> str:
    """Return text from a record as code that it cannot end: `` `pgd(steps=50)` ``.

    A backtick becomes an apostrophe and a bar | a broken bar, because code in a table cannot have
    them.
    """
    plain = visible(" ".join(text.split())).replace("`", "'").replace("|", "¦")
    return f"`{plain}`"


def title_of(model: str, weights_digest: str) -> str:
    """Return a model's title on a page: its name and the first digits of its weights' digest."""
    return f"{cell(model)} (`{weights_digest[:8]}`)"


def between(text: str, begin: str, end: str, inserted: str, name: object, what: str) -> str:
    """Return a page with `inserted` between two markers, instead of the old text.

    Raises SatbenchError, naming the file `name` and its content `what`, unless each marker occurs
    once and in order.
    """
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end) or text.count(begin) != 1 or text.count(end) != 1:
        raise SatbenchError(
            f"expected the markers {begin} and {end}, once each and in this order, in {name}; "
            f"put them where {what} should stand"
        )
    return f"{before}{begin}\n\n{inserted}\n{end}{after}"
