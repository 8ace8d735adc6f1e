"""The board in a terminal of 100 columns."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from satbench.leaderboard.board import Board
from satbench.leaderboard.rows import COLUMNS, Column, Row
from satbench.leaderboard.tables import MISSING, percent

_CAPTION = (
    "percent; robust accuracy is an upper bound; [a, b]: 95 % Wilson interval; "
    "models of equal rank are not told apart"
)


def leaderboard_table(board: Board) -> Table:
    """Return the models by benchmark, each benchmark ordered by best known accuracy."""
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        caption=Text(_CAPTION),
        caption_justify="left",
    )
    table.add_column("Rank", justify="right")
    table.add_column("Model", overflow="fold")
    for title in COLUMNS.values():
        table.add_column(title, justify="right", no_wrap=True)
    for benchmark in board.benchmarks:
        table.add_row("", Text(f"{benchmark.title}, n = {benchmark.dataset.n:,}", style="bold"))
        for row in benchmark.rows:
            # As Text, for rich would take a [name] for markup.
            name = Text(row.model.name)
            table.add_row(str(row.rank), name, *(_number(row, column) for column in COLUMNS))
        table.add_section()
    return table


def _number(row: Row, column: Column) -> Text:
    value = row.value(column)
    if value is None:
        return Text(MISSING)
    if column == "best_known":
        low, high = row.best_known.interval
        return Text(f"{percent(value)} [{percent(low)}, {percent(high)}]")
    return Text(percent(value))
