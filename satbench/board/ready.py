"""The page of a board without records."""

from __future__ import annotations

from collections.abc import Sequence

from satbench.board.definition import BoardDefinition
from satbench.board.imported.page import render_beside
from satbench.board.imported.rows import Imported
from satbench.core.markdown import cell
from satbench.core.templates import fill
from satbench.data import AT_A_PATH

SHIPPED = "fashion-mnist"
"""The data set of the shipped models."""


def fill_command(definition: BoardDefinition) -> str:
    """Return the command that measures a model, or all shipped ones, on a board.

    >>> from satbench.board.definition import board_definition
    >>> fill_command(board_definition("fashion-mnist-l2-1"))
    'satbench leaderboard fill fashion-mnist-l2-1'
    """
    words = ["satbench leaderboard fill", definition.name]
    if definition.dataset != SHIPPED:
        words.append("--model MODEL")
    source = definition.dataset.partition(":")[0]
    if source in AT_A_PATH:
        words.append(f"--dataset {source}:PATH")
    return " ".join(words)


def render_ready(definition: BoardDefinition, imported: Sequence[Imported]) -> str:
    """Return LEADERBOARD.md of a board without records."""
    values = {
        "name": cell(definition.name),
        "summary": cell(definition.summary),
        "n": f"{definition.n:,}",
        "split": cell(definition.split),
        "dataset": definition.dataset,
        "threat": str(definition.threat),
        "suites": "; ".join(", ".join(suite) for suite in definition.suites),
        "command": fill_command(definition),
        "beside": render_beside(imported),
    }
    return fill("board-ready.md", values).rstrip() + "\n"
