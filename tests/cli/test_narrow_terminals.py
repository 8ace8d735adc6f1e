"""No table on a terminal of 80 columns breaks the name of a shipped model."""

from __future__ import annotations

import io

import pytest
from command_line import Run
from rich.console import Console
from rich.table import Table

from satbench.core.console import FittingTable
from satbench.model_zoo.card import zoo_names

LONGEST = "fmnist-standard-tiny-parametric-softplus-s0"


def printed(table: FittingTable, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def table() -> FittingTable:
    table = Table()
    table.add_column("model", overflow="fold")
    for heading in ("clean", "robust", "time"):
        table.add_column(heading, no_wrap=True)
    table.add_row(LONGEST, "90.0 %", "60.0 %", "1 h")
    return FittingTable(table, ("time", "clean"))


@pytest.mark.parametrize(
    ("width", "headings"),
    [(72, "clean robust time"), (71, "clean robust"), (62, "robust"), (40, "robust")],
)
def test_a_table_leaves_out_what_matters_less(
    table: FittingTable, width: int, headings: str
) -> None:
    shown = printed(table, width)
    left = [heading for heading in ("clean", "robust", "time") if heading in shown]

    assert " ".join(left) == headings
    assert (LONGEST in shown) == (width > 40)
    assert max(map(len, shown.splitlines())) <= width


COMMANDS = {
    "models": (),
    "certify": (LONGEST, "--eps", "0.0005", "--method", "ibp", "--limit", "2", "--quiet"),
    "transfer": ("--target", LONGEST, "--limit", "2", "--quiet"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_name_is_broken_at_80_columns(
    command: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, width=80)
    monkeypatch.setattr("satbench.core.console.results", lambda: terminal)
    assert run(command, *COMMANDS[command]).code == 0
    lines = [line for line in screen.getvalue().splitlines() if LONGEST in line]

    assert len(lines) == 1
    assert "…" not in screen.getvalue()
    names = zoo_names() if command == "models" else [LONGEST]
    assert [name for name in names if name not in screen.getvalue()] == []
    if command == "models":
        assert "fmnist-standard" in lines[0].replace(LONGEST, "")


def test_a_table_is_the_same_when_it_is_printed_again(table: FittingTable) -> None:
    printed(table, 62)

    assert printed(table, 100) == printed(table, 100)
    assert "time" in printed(table, 100)
