"""`satbench demo`."""

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
    """Attack three shipped models, live, in under a minute.

    The models are one trained without an adversary, and a ReLU and a SILU network trained against
    one. PGD-50 and the fast suite attack them on the first 200 test images.

    With --all, PGD-20 attacks every shipped model on the first 1,000 test images, and AutoAttack
    two of them on the first 50; then the leaderboard that ships with satbench is printed. This
    takes minutes; the start says how many.
    """
    from satbench.evaluation.demo import run_demo, run_whole_demo

    run = run_whole_demo if everything else run_demo
    if not as_json:
        run(out, device, quiet)
        return
    from satbench.evaluation.report import summary_of

    with redirect_stdout(io.StringIO()):  # the tables, which are for people
        done = run(out, device, quiet)
    tell(json.dumps([summary_of(record, str(record.path)) for record in done], indent=2))
