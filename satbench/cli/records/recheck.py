"""`satbench recheck`."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from satbench.cli import options
from satbench.cli.shell import completion
from satbench.cli.shell.commands import command
from satbench.cli.shell.paths import FILE
from satbench.core.text.terminal import one_line, tell

if TYPE_CHECKING:
    from satbench.models import FileOptions
    from satbench.proofs.rechecking import Rechecked


@command(
    examples="""
    satbench recheck results/RECORD.json
    satbench recheck results/RECORD.json --images 200 --attack autoattack
    """,
)
@click.argument("record", type=FILE)
@click.option(
    "--images",
    type=int,
    default=50,
    show_default=True,
    help="How many of the claimed survivors to attack, drawn at random.",
)
@click.option(
    "--attack",
    "attacks",
    multiple=True,
    shell_complete=completion.attacks,
    help="What to attack them with, as for `satbench eval`. Default: the record's own attacks.",
)
@click.option(
    "--seed", type=int, help="Draws the sample and keys all noise. Default: one nobody knew before."
)
@options.what_a_record_is_of
@options.batch_size
@options.device
@options.timeout
@options.how_to_tell
@click.pass_context
def recheck(
    ctx: click.Context,
    record: Path,
    images: int,
    attacks: tuple[str, ...],
    seed: int | None,
    model: str | None,
    file: FileOptions,
    dataset: str | None,
    data_dir: Path | None,
    trust: tuple[str, ...],
    batch_size: int,
    device: str,
    timeout: float | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Attack a random sample of what RECORD claims to survive, and bound how far it is too high.

    RECORD is verified first, and left as it is.  The bound holds with 95 % confidence, for the
    attacks that are run.  Exits 1 where a claimed survivor falls.
    """
    from satbench.attacks import check_attack_name

    for attack in attacks:
        check_attack_name(attack)
    from satbench.core.console import BarProgress
    from satbench.evaluation.given import Given
    from satbench.proofs.rechecking import Recheck, recheck_record

    given = Given(model, dataset, data_dir, file, trust)
    asked = Recheck(record, images, attacks, seed, batch_size, device, given, timeout)
    with BarProgress(quiet) as progress:
        progress.model(record.name)
        done = recheck_record(asked, progress)
    _tell(done, record, as_json)
    if done.broken:
        ctx.exit(1)


def _tell(done: Rechecked, record: Path, as_json: bool) -> None:
    if as_json:
        told = {**asdict(done), "breakable": done.breakable, "too_high": done.too_high}
        tell(json.dumps(told, indent=2))
        return
    tell(f"{one_line(done.name)}: {done}")
    if done.broken:
        attacks = " ".join(f"--attack {shlex.quote(spec)}" for spec in done.attacks)
        command = f"satbench challenge {shlex.quote(str(record))} {attacks} --seed {done.seed}"
        tell(f"to lower the record, with proofs:\n  {one_line(command)}")
