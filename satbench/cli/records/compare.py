"""The command `satbench compare`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from satbench.cli import options
from satbench.cli.shell.commands import command
from satbench.cli.shell.paths import FILE
from satbench.core.text.terminal import one_line, tell

if TYPE_CHECKING:
    from satbench.board.comparison import RecordComparison

_SHOWN = 10
"""How many images a line of the terminal lists; --json lists all."""


@command(
    examples="""
    satbench compare results/FIRST.json results/SECOND.json
    satbench compare results/FIRST.json results/SECOND.json --json
    """,
)
@click.argument("first", type=FILE)
@click.argument("second", type=FILE)
@options.as_json
def compare(first: Path, second: Path, as_json: bool) -> None:
    """Compare the robust accuracy of two records, FIRST and SECOND, image by image.

    Both must have the same images, threat model and attacks.  The test is paired (McNemar, exact)
    and the interval is for the difference, at 95 %.  Then follow the images that only one of the
    two has right, and the attacks that broke the other.  Nothing is attacked or verified; see
    `satbench verify`.
    """
    from satbench.board.comparison import compare as compare_records

    done = compare_records(first, second)
    if as_json:
        tell(json.dumps({**asdict(done), "shown": done.shown}, indent=2))
        return
    _tell(done)


def _tell(done: RecordComparison) -> None:
    from satbench.board.comparison import NO_ATTACK

    tell(one_line(done))
    both = done.n - done.only_first - done.only_second
    tell(f"{both} of {done.n} images: after the attacks both are right, or both are wrong")
    for place, count in enumerate((done.only_first, done.only_second)):
        other = one_line(done.names[1 - place])
        tell(f"{count} images: only {one_line(done.names[place])} is right")
        for churn in done.churn:
            if churn.stands == place:
                shown = ", ".join(map(str, churn.images[:_SHOWN]))
                more = ", …" if len(churn.images) > _SHOWN else ""
                fell = f"{other} fell to {one_line(churn.broken_by)}"
                if churn.broken_by == NO_ATTACK:
                    fell = f"{other} is wrong without an attack"
                tell(f"  {fell} on {len(churn.images)}: image {shown}{more}")
