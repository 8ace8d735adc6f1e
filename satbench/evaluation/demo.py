"""The demo: the shipped models, attacked live, and the committed leaderboard beside them."""

from __future__ import annotations

from pathlib import Path

import click

from satbench.board.board import build_board
from satbench.board.publish import published_board
from satbench.board.tables import render_markdown
from satbench.board.terminal import leaderboard_table
from satbench.core.console import BarProgress, results
from satbench.core.files import write_text
from satbench.evaluation.api import evaluate_config
from satbench.evaluation.config import eval_config
from satbench.evaluation.report import brief_table_of, table_of
from satbench.model_zoo.card import board_names
from satbench.records.record import Record

PGD = "pgd-20"
PGD_EXAMPLES = 1000
AUTOATTACK_EXAMPLES = 50
AUTOATTACK_MODELS = ("fmnist-sat-tiny-relu-s0", "fmnist-sat-tiny-silu-s0")

_LIVE = "> **Live**: what this machine has just computed, by `satbench demo`."
_COMMITTED = (
    "> **Committed**: the full leaderboard that came with satbench; nothing was run for it here."
)


def run_demo(out: Path, device: str, quiet: bool) -> None:
    """Evaluate the shipped models, print and write what came of it; see `satbench demo --help`."""
    console = results()
    with BarProgress(quiet) as progress:
        live = [_evaluate(name, PGD, PGD_EXAMPLES, out, device, progress) for name in board_names()]
        strong = [
            _evaluate(name, "autoattack", AUTOATTACK_EXAMPLES, out, device, progress)
            for name in AUTOATTACK_MODELS
        ]
    console.rule(f"live: {PGD} on the first {PGD_EXAMPLES} images")
    console.print(brief_table_of(live))
    console.rule(f"live: AutoAttack on the first {AUTOATTACK_EXAMPLES} images")
    console.print(table_of(strong))
    console.rule("committed with satbench: the full leaderboard")
    committed = published_board()
    console.print(leaderboard_table(committed))
    path = out / "LEADERBOARD.md"
    here, there = render_markdown(build_board([*live, *strong])), render_markdown(committed)
    write_text(path, f"{_LIVE}\n\n{here}\n{_COMMITTED}\n\n{there}")
    click.echo(
        "PGD alone makes a model look more robust than it is: compare the columns above.\n"
        f"wrote both leaderboards, the live one first, to {path}, the live records beside it"
    )


def _evaluate(
    name: str, attack: str, n: int, out: Path, device: str, progress: BarProgress
) -> Record:
    progress.model(name)
    config = eval_config(name, attacks=[attack], n_examples=n, device=device, out=out)
    return evaluate_config(config, progress).record
