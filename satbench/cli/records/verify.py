"""The command `satbench verify`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from satbench.cli import options
from satbench.cli.shell.commands import command
from satbench.cli.shell.paths import PATH
from satbench.core.errors import SatbenchError
from satbench.core.text.terminal import one_line, tell

if TYPE_CHECKING:
    from satbench.models import FileOptions
    from satbench.proofs.certificates import VerifiedCertificate
    from satbench.proofs.verification import Verified


@command(
    examples="""
    satbench verify results/RECORD.json
    satbench verify results/RECORD.json --model my_module:model --data mine.npz
    satbench verify --all --json
    """,
)
@click.argument("records", nargs=-1, type=PATH)
@click.option("--all", "committed", is_flag=True, help="Verify the committed leaderboard.")
@options.what_a_record_is_of
@options.judged_on
@options.how_to_tell
@click.pass_context
def verify(
    ctx: click.Context,
    records: tuple[Path, ...],
    committed: bool,
    model: str | None,
    file: FileOptions,
    dataset: str | None,
    data_dir: Path | None,
    trust: tuple[str, ...],
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Verify RECORDS and their witnesses, or certificates of `satbench certify` and their proofs.

    It takes one forward pass per image and witness, and runs the diagnosis again; no attack is run.
    It confirms an upper bound of robust accuracy: every image that counts as broken is broken.  It
    does not confirm that the others survive (docs/trust.md).  Names in a record run no code and
    download nothing, unless you give --model or --trust.  If anything is wrong, prints what and
    exits 1.
    """
    if bool(records) == committed:
        raise click.UsageError("give records to verify, or --all for those of the leaderboard")
    from satbench.core.console import progress_bar
    from satbench.evaluation.given import Given
    from satbench.proofs.either import committed_files, not_verified, verify_file
    from satbench.proofs.verification import Verified

    given = Given(model, dataset, data_dir, file, trust)
    checked: list[Verified | VerifiedCertificate] = []
    paths = list(records) or committed_files()
    if not paths:
        raise SatbenchError("expected records in satbench's leaderboard, found none")
    with progress_bar(quiet) as bar:
        task = bar.add_task("verifying", total=len(paths), note="")
        for path in paths:
            try:
                checked.append(verify_file(path, given, device))
            except SatbenchError as error:
                if not committed:
                    raise
                checked.append(not_verified(path, error))
            bar.advance(task)
    if as_json:
        tell(json.dumps([_summary(one) for one in checked], indent=2))
    else:
        for one in checked:
            _show(one)
        if committed:
            _sum_up([one for one in checked if isinstance(one, Verified)])
            if certificates := [one for one in checked if not isinstance(one, Verified)]:
                _sum_up_certificates(certificates)
    if any(one.faults for one in checked):
        ctx.exit(1)


def _summary(one: Verified | VerifiedCertificate) -> dict[str, object]:
    from satbench.proofs.certificates import VerifiedCertificate

    if isinstance(one, VerifiedCertificate):
        share = {"confirmed": one.confirmed, "certified_accuracy": one.certified_accuracy}
        return {**asdict(one), "path": str(one.path), **share}
    numbers = {
        "confirmed": one.confirmed,
        "robust_accuracy": one.robust_accuracy,
        "proven_broken": one.broken if one.confirmed else None,
        "claimed_survivors": one.surviving,
    }
    return {**asdict(one), "path": str(one.path), **numbers}


def _show(one: Verified | VerifiedCertificate) -> None:
    from satbench.proofs.certificates import VerifiedCertificate

    for fault in one.faults:
        tell(f"{one_line(one.path)}: {one_line(fault)}")
    if isinstance(one, VerifiedCertificate):
        if not one.faults:
            tell(f"{one_line(one.path)}: {one}")
    elif not one.faults:
        checked = f"{one.images} verdicts, {one.witnesses} witnesses: all hold"
        tell(f"{one_line(one.path)}: {one}; {checked}")


def _sum_up(checked: Sequence[Verified]) -> None:
    good = sum(not one.faults for one in checked)
    proofs = sum(one.witnesses for one in checked)
    claimed = sum(one.broken for one in checked)
    proven = sum(one.broken for one in checked if not one.faults)
    left = sum(one.surviving for one in checked if not one.faults)
    tell(
        f"{good} of {len(checked)} records hold, with {proofs:,} witnesses in all: {proven:,} of "
        f"{claimed:,} broken images proven broken; {left:,} survivors are claimed, not proven"
    )


def _sum_up_certificates(checked: Sequence[VerifiedCertificate]) -> None:
    good = [one for one in checked if not one.faults]
    proofs = sum(one.proofs for one in good)
    claimed = sum(one.certified for one in checked)
    proven = sum(one.certified for one in good)
    tell(
        f"{len(good)} of {len(checked)} certificates hold, with {proofs:,} proofs in all: "
        f"{proven:,} of {claimed:,} certified images proven certified"
    )
