"""The board in a terminal of 100 columns."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from satbench.board.board import Board
from satbench.board.rows import COLUMNS, Column, Row
from satbench.board.tables import flag_mark
from satbench.core.console import words
from satbench.core.markdown import MISSING, percent

_CAPTION = (
    "percent; robust accuracy is an upper bound; [a, b]: 95 % Wilson interval; "
    "ranks: as many as the paired test leaves open"
)

_BROKEN = {"Transfer": "Trans-\nfer", "AutoAttack": "Auto-\nAttack"}
"""Titles on two lines, to leave names of 38 letters their room."""


def leaderboard_table(board: Board) -> Table:
    """Return the models by benchmark, each benchmark ordered by best known accuracy."""
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
        caption=words(_CAPTION + _flagged(board)),
        caption_justify="left",
    )
    table.add_column("#", justify="right")
    table.add_column("Model", overflow="fold")
    for title in COLUMNS.values():
        table.add_column(_BROKEN.get(title, title), justify="right", no_wrap=True)
    for benchmark in board.benchmarks:
        table.add_row("", words(f"{benchmark.title}, n = {benchmark.dataset.n:,}", style="bold"))
        for row in benchmark.rows:
            name = words(_marked(row))
            table.add_row(str(row.rank), name, *(_number(row, column) for column in COLUMNS))
        table.add_section()
    return table


def _marked(row: Row) -> str:
    signs = flag_mark(row).strip() + "✓" * (row.mark == "verified")
    return f"{row.model.name} {signs}".rstrip()


def _flagged(board: Board) -> str:
    rows = [row for benchmark in board.benchmarks for row in benchmark.rows]
    count = sum(bool(row.flags) for row in rows)
    told = f"; †: {count} of {len(rows)} models have a flag, see LEADERBOARD.md" if count else ""
    verified = sum(row.mark == "verified" for row in rows)
    return f"{told}; ✓: {verified} of {len(rows)} models are verified, see docs/trust.md"


def _number(row: Row, column: Column) -> Text:
    value = row.value(column)
    if value is None:
        return Text(MISSING)
    if column == "best_known":
        low, high = row.best_known.interval
        return Text(f"{percent(value)} [{percent(low)}, {percent(high)}]")
    return Text(percent(value))
