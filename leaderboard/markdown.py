"""Pieces of a markdown page: tables, and cells that cannot be read as anything else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
