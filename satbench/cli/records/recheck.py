"""The command `satbench recheck`."""

from __future__ import annotations

import json
import shlex
from dataclasses import fields
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
    satbench recheck --board fashion-mnist-linf-0.1 --attack fast --by NAME
    """,
)
@click.argument("record", type=FILE, required=False)
@click.option(
    "--board",
    metavar="NAME",
    shell_complete=completion.boards,
    help="Instead of RECORD: recheck the lowest record of each model of the board that is not "
    "verified yet, and keep the rechecks in the board's folder `rechecks`.",
)
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
    help="Attack or suite for the sample, as for `satbench eval`. Default: the record's attacks.",
)
@click.option(
    "--seed", type=int, help="Seed of the sample and of all noise. Default: a fresh random seed."
)
@options.out(None, "the recheck record. Default: none is written")
@click.option("--by", default="", help="Who rechecks; the recheck record says so.")
@options.what_a_record_is_of
@options.batch_size
@options.device
@options.timeout
@options.how_to_tell
@click.pass_context
def recheck(
    ctx: click.Context,
    record: Path | None,
    board: str | None,
    images: int,
    attacks: tuple[str, ...],
    seed: int | None,
    out: Path | None,
    by: str,
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
    """Attack a random sample of RECORD's claimed survivors, and bound how far it is too high.

    RECORD is verified first and stays unchanged.  The bound holds with 95 % confidence, for the
    attacks that are run.  Exits 1 if a claimed survivor is broken.

    With --out or --board a recheck record is written: sample, seed, broken images, and the bound.
    In the folder `rechecks` of a board it gives the row the mark `verified` (docs/trust.md).
    """
    from satbench.attacks import check_attack_name

    if (record is None) == (board is None):
        raise click.UsageError("give RECORD or --board NAME, and not both")
    for attack in attacks:
        check_attack_name(attack)
    from satbench.board.definition import board_definition
    from satbench.core.console import BarProgress
    from satbench.core.files import check_folder
    from satbench.evaluation.given import Given
    from satbench.proofs.rechecking import Recheck, recheck_record, unverified_records

    paths = [record] if record else []
    if board:
        definition = board_definition(board)
        paths, out = unverified_records(definition), out or definition.rechecks
    if out:
        check_folder(out)
    given = Given(model, dataset, data_dir, file, trust)
    fell = False
    summaries = []
    for path in paths:
        asked = Recheck(path, images, attacks, seed, batch_size, device, given, timeout)
        with BarProgress(quiet) as progress:
            progress.model(path.name)
            done = recheck_record(asked, progress)
        kept = _keep(done, path, out, by) if out else None
        summaries.append(_summary(done, kept))
        if not as_json:
            _tell(done, path, kept)
        fell = fell or bool(done.broken)
    if as_json:
        tell(json.dumps(summaries if board else summaries[0], indent=2))
    if fell:
        ctx.exit(1)


def _keep(done: Rechecked, record: Path, out: Path, by: str) -> Path:
    from satbench.proofs.rechecking import kept_recheck
    from satbench.records.rechecks import write_recheck

    path = out / f"{record.stem}-s{done.seed}.json"
    write_recheck(kept_recheck(done, by), path)
    return path


def _summary(done: Rechecked, kept: Path | None) -> dict[str, object]:
    values = {one.name: getattr(done, one.name) for one in fields(done) if one.name != "record"}
    bounds = {"breakable": done.breakable, "too_high": done.too_high}
    return {**values, **bounds, **({"kept": str(kept)} if kept else {})}


def _tell(done: Rechecked, record: Path, kept: Path | None) -> None:
    tell(f"{one_line(done.name)}: {done}")
    if kept:
        tell(f"wrote {one_line(kept)}")
    if done.broken:
        attacks = " ".join(f"--attack {shlex.quote(spec)}" for spec in done.attacks)
        command = f"satbench challenge {shlex.quote(str(record))} {attacks} --seed {done.seed}"
        tell(f"to write a lower record with witnesses, run\n  {one_line(command)}")
