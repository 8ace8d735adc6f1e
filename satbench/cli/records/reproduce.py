"""The command `satbench reproduce`."""

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
    from satbench.models import FileOptions
    from satbench.proofs.reproduced import Reproduced


@command(
    examples="""
    satbench reproduce results/RECORD.json
    satbench reproduce results/RECORD.json --model my_module:model
    """,
)
@click.argument("record", type=FILE)
@options.what_a_record_is_of
@options.device
@options.timeout
@options.how_to_tell
@click.pass_context
def reproduce(
    ctx: click.Context,
    record: Path,
    model: str | None,
    file: FileOptions,
    dataset: str | None,
    data_dir: Path | None,
    trust: tuple[str, ...],
    device: str,
    timeout: float | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run the evaluation of RECORD again, and report every image whose result differs.

    With the same machine and versions nothing differs.  On another machine rounding may change a
    few images; the report lists the differences between the machines.  Nothing is written.
    Exits 1 if a verdict, a witness, a count of passes or a flag differs.
    """
    from satbench.core.console import BarProgress
    from satbench.evaluation.given import Given
    from satbench.proofs.reproducing import Reproduction, reproduce_record

    given = Given(model, dataset, data_dir, file, trust)
    with BarProgress(quiet) as progress:
        progress.model(record.name)
        done = reproduce_record(Reproduction(record, device, given, timeout), progress)
    if as_json:
        tell(json.dumps(_summary(done), indent=2))
    else:
        _tell(done)
    if not done.is_same:
        ctx.exit(1)


def _summary(done: Reproduced) -> dict[str, object]:
    return {
        "same": done.is_same,
        "n": done.record.n,
        "survivors": done.record.surviving(),
        "survivors_here": done.again.surviving(),
        "images": [asdict(one) for one in done.images],
        "witnesses": done.witnesses,
        "counts": done.counts,
        "flags": done.flags,
        "surroundings": done.surroundings,
    }


def _tell(done: Reproduced) -> None:
    tell(f"{one_line(done.record.model.name)}: {done}")
    for one in done.images:
        tell(f"  image {one.image}: fell to {one_line(one.then)}, here to {one_line(one.now)}")
    if done.witnesses:
        tell(f"  other witnesses: images {', '.join(map(str, done.witnesses))}")
    for line in (*done.counts, *done.flags):
        tell(f"  {one_line(line)}")
    for name, (then, now) in done.surroundings.items():
        tell(f"  made with {name} {one_line(then)}, here {one_line(now)}")
