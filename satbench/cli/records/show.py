"""The command `satbench show`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from satbench.cli import options
from satbench.cli.shell.commands import command
from satbench.cli.shell.paths import FILE
from satbench.core.text.terminal import tell


@command(
    examples="""
    satbench show results/RECORD.json
    satbench show results/RECORD.json --json
    """,
)
@click.argument("record", type=FILE)
@options.as_json
def show(record: Path, as_json: bool) -> None:
    """Print RECORD on one page: what was run, the numbers, what is proven, how to verify it.

    The page says what the record claims. Nothing is checked or run; see `satbench verify` and
    `satbench recheck`.
    """
    from satbench.evaluation.record_page import record_lines, record_summary
    from satbench.records.record import read_record

    read = read_record(record)
    if as_json:
        tell(json.dumps(record_summary(read, record), indent=2))
    else:
        tell("\n".join(record_lines(read, record)))
