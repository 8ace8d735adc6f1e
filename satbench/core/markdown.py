"""Pieces of a markdown page: tables, and cells that cannot be read as anything else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from satbench.core.errors import SatbenchError

MISSING = "–"

Line = Sequence[str]


def percent(share: float) -> str:
    """Return a share as percent with one decimal: `52.1`."""
    return f"{100 * share:z.1f}".replace("-", "−")


def signed(share: float) -> str:
    """Return a difference of shares in points, with its sign: `−0.4`."""
    return f"{100 * share:+z.1f}".replace("-", "−")


def table(head: Line, lines: Iterable[Line], words: int) -> str:
    """Return a markdown table whose first `words` columns hold words, and the others numbers."""
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))


def cell(text: str) -> str:
    """Return text from a record such that it cannot be read as markdown or HTML."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{letter}" if letter in "\\|`*_[]" else letter for letter in plain)


def title_of(model: str, weights_digest: str) -> str:
    """Return how a page calls a model: its name and the first digits of its weights' digest."""
    return f"{cell(model)} (`{weights_digest[:8]}`)"


def between(text: str, begin: str, end: str, inserted: str, name: object, what: str) -> str:
    """Return a page with `inserted` in the place of what stands between two markers.

    Raises SatbenchError, naming the file `name` and `what` belongs there, unless each marker
    stands once and in order.
    """
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end) or text.count(begin) != 1 or text.count(end) != 1:
        raise SatbenchError(
            f"expected the markers {begin} and {end}, once each and in this order, in {name}; "
            f"put them where {what} should stand"
        )
    return f"{before}{begin}\n\n{inserted}\n{end}{after}"
