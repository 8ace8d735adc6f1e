"""Boards in a terminal: as many columns as fit beside names that are never broken."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from satbench.board.published import BoardNumbers, ModelNumbers
from satbench.board.rows import COLUMNS, Column
from satbench.core.console import words
from satbench.core.markdown import MISSING, percent

_CAPTION = (
    "percent; robust accuracy is an upper bound; {interval}"
    "ranks: as many as the paired test leaves open"
)
_INTERVAL = "[a, b]: 95 % Wilson interval; "

_BROKEN = {
    "Transfer": "Trans-\nfer",
    "AutoAttack": "Auto-\nAttack",
    "Best known": "Best\nknown",
    "Certified": "Certi-\nfied",
}
"""Titles on two lines, to leave room for long names."""

_LEFT_OUT: tuple[Column | None, ...] = (
    *("transfer", None, "gap", "pgd50", "fast", "autoattack", "certified"),
)
"""The columns that a narrow terminal leaves out, in this order; None is the interval."""


def leaderboard_table(boards: Sequence[BoardNumbers], width: int = 100) -> Table:
    """Return a table of boards that is no wider than `width`, if the names allow it."""
    columns, with_interval = _that_fit(boards, width)
    caption = _CAPTION.format(interval=_INTERVAL if with_interval else "")
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
        caption=words(caption + _marks(boards)),
        caption_justify="left",
    )
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("Model", overflow="fold")
    for column in columns:
        table.add_column(_title(column), justify="right", no_wrap=True)
    room = width - _width(boards, columns, with_interval) + _longest(boards)
    for board in boards:
        heading = words(f"{board.title}, n = {board.n:,}", style="bold")
        if heading.cell_len > room:  # else a line could end with "n ="
            heading = Text("\n").join((words(f"{board.title},"), words(f"n = {board.n:,}")))
            heading.stylize("bold")
        table.add_row("", heading)
        for model in board.models:
            numbers = (_number(model, column, with_interval) for column in columns)
            table.add_row(_rank(model), words(_marked(model)), *numbers)
        table.add_section()
    return table


def _that_fit(boards: Sequence[BoardNumbers], width: int) -> tuple[list[Column], bool]:
    """Return the columns that leave room for the longest name, and whether the interval fits."""
    told = any(model.certified is not None for board in boards for model in board.models)
    columns = [column for column in COLUMNS if told or column != "certified"]
    with_interval = True
    for column in _LEFT_OUT:
        if _width(boards, columns, with_interval) <= width:
            break
        if column is None:
            with_interval = False
        elif column in columns:
            columns.remove(column)
    return columns, with_interval


def _width(boards: Sequence[BoardNumbers], columns: Sequence[Column], with_interval: bool) -> int:
    models = [model for board in boards for model in board.models]
    parts = [max((len(_rank(model)) for model in models), default=1), _longest(boards)]
    for column in columns:
        cells = [str(_number(model, column, with_interval)) for model in models]
        parts.append(max(map(len, (*_title(column).split("\n"), *cells))))
    return sum(parts) + len(parts) - 1


def _longest(boards: Sequence[BoardNumbers]) -> int:
    return max((cell_len(_marked(model)) for board in boards for model in board.models), default=0)


def _title(column: Column) -> str:
    return _BROKEN.get(COLUMNS[column], COLUMNS[column])


def _rank(model: ModelNumbers) -> str:
    best, worst = model.rank, model.rank_worst
    return str(best) if best == worst else f"{best}–{worst}"


def _marked(model: ModelNumbers) -> str:
    flags = len((model.flags or "").split())
    signs = f"†{flags}" * bool(flags) + "✓" * (model.mark == "verified")
    return f"{model.model} {signs}".rstrip()


def _marks(boards: Sequence[BoardNumbers]) -> str:
    models = [model for board in boards for model in board.models]
    flagged = sum(bool(model.flags) for model in models)
    verified = sum(model.mark == "verified" for model in models)
    told = f"; †: how many flags; {flagged} of {len(models)} models have one, see LEADERBOARD.md"
    checked = f"; ✓: {verified} of {len(models)} models are verified, see docs/trust.md"
    return told * bool(flagged) + checked


def _number(model: ModelNumbers, column: Column, with_interval: bool) -> Text:
    value: float | None = getattr(model, column)
    if value is None:
        return Text(MISSING)
    if column == "best_known" and with_interval:
        ends = percent(model.best_known_low), percent(model.best_known_high)
        return Text(f"{percent(value)} [{', '.join(ends)}]")
    return Text(percent(value))
