"""A review as markdown for a comment, with every name escaped."""

from __future__ import annotations

from collections.abc import Iterator

from satbench.board.rows import COLUMNS, Row
from satbench.board.tables import mark_text
from satbench.core.markdown import MISSING, cell, code, percent, table, title_of
from satbench.submissions.change import BoardChange
from satbench.submissions.reviewing import Review

_MOST = 20
"""The most sentences and rank changes that a comment lists."""


def render_review(found: Review) -> str:
    """Return a comment on a submission: the refusals, the row, and the changes of the board."""
    return "\n\n".join(_parts(found)) + "\n"


def _parts(found: Review) -> Iterator[str]:
    name, manifest = cell(found.folder.name), found.manifest
    if found.refusals:
        yield f"**{name} is refused**"
        yield _list(found.refusals)
        return
    assert manifest is not None  # noqa: S101 (one without is refused)
    yield (
        f"**{name} can be accepted** to the board {cell(manifest.board)}, {manifest.division} "
        f"division, by {cell(manifest.by)}"
    )
    if found.confirmed:
        broken = sum(one.broken for one in found.confirmed)
        yield (
            f"{len(found.confirmed)} records: {broken} of {broken} broken images proven broken. "
            "The survival of the others is only claimed until the maintainer rechecks them."
        )
    if found.notes:
        yield "A person has to look at this:\n\n" + _list(found.notes)
    if found.change:
        yield from _change(found.change)
    if manifest.supersedes:
        yield "It supersedes " + ", ".join(code(one[:12]) for one in manifest.supersedes)
    if manifest.note:
        yield f"Note: {cell(manifest.note[:500])}"


def _change(change: BoardChange) -> Iterator[str]:
    lines = [_line("now", change.before)] if change.before else []
    yield _row_table([*lines, _line("with this submission", change.row)])
    if not change.moved:
        yield f"No other rank of the {change.models} models changes."
        return
    moves = [
        (title_of(one.model, one.weights_digest), str(one.before), str(one.after))
        for one in change.moved[:_MOST]
    ]
    more = len(change.moved) - len(moves)
    yield table(("Model", "Rank now", "then"), moves, 1) + (
        f"\n\n… and {more} more" if more else ""
    )


def _row_table(lines: list[tuple[str, ...]]) -> str:
    head = ("", "Model", "Mark", "Rank", *COLUMNS.values())
    return table(head, lines, 3)


def _line(when: str, row: Row | None) -> tuple[str, ...]:
    assert row is not None  # noqa: S101 (called only if there is one)
    values = (row.value(column) for column in COLUMNS)
    numbers = (MISSING if value is None else percent(value) for value in values)
    title = title_of(row.model.name, row.model.weights_digest)
    return when, title, mark_text(row), str(row.rank), *numbers


def _list(sentences: tuple[str, ...]) -> str:
    lines = [f"- {cell(one[:500])}" for one in sentences[:_MOST]]
    more = len(sentences) - len(lines)
    return "\n".join(lines) + (f"\n- … and {more} more" if more else "")
