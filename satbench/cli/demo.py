"""The command `satbench demo`."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import click

from satbench.cli import options
from satbench.cli.shell.commands import command
from satbench.core.text.terminal import tell


@command(
    examples="""
    satbench demo
    satbench demo --all --out everything
    """,
)
@options.out("demo", "the records and the leaderboard")
@options.device
@click.option(
    "--all", "everything", is_flag=True, help="Every shipped model, and the whole leaderboard."
)
@options.how_to_tell
def demo(out: Path, device: str, everything: bool, as_json: bool, quiet: bool) -> None:
    """Attack three shipped models in under a minute.

    One model was trained without attacks; the other two, a ReLU and a SILU network, were trained
    adversarially. PGD-50 and the fast suite attack them on the first 200 test images.

    With --all, PGD-20 attacks every shipped model on the first 1,000 test images, AutoAttack
    attacks two of them on the first 50, and the leaderboard that ships with satbench is printed.
    This takes several minutes; the command says at the start how many.
    """
    from satbench.evaluation.demo import run_demo, run_whole_demo

    run = run_whole_demo if everything else run_demo
    if not as_json:
        run(out, device, quiet)
        return
    from satbench.evaluation.report import summary_of

    with redirect_stdout(io.StringIO()):  # drop the tables, which are for people
        done = run(out, device, quiet)
    tell(json.dumps([summary_of(record, str(record.path)) for record in done], indent=2))
