"""The command `satbench challenge`."""

from __future__ import annotations

import json
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
    from satbench.proofs.challenging import Challenged


@command(
    examples="""
    satbench challenge results/RECORD.json --attack autoattack --attack square
    satbench challenge results/RECORD.json --images found.npz --by "A. Reader"
    """,
)
@click.argument("record", type=FILE)
@click.option(
    "--attack",
    "attacks",
    multiple=True,
    shell_complete=completion.attacks,
    help="Attack or suite for the survivors, as for `satbench eval`. May be given several times.",
)
@click.option(
    "--images",
    type=FILE,
    help="Adversarial images made elsewhere: .pt, .npz or .npy, (N, C, H, W), one for each "
    "image of the record or of the whole test set; float32 or float64 in [0, 1], or uint8.",
)
@click.option("--by", default="", help="Who challenges; the new record says so.")
@click.option("--bpda", multiple=True, help="LAYER=TARGET, as for `satbench eval`.")
@options.what_a_record_is_of
@options.seed
@options.batch_size
@options.device
@options.timeout
@options.again
@options.out(None, "the new record. Default: the folder of the old one")
@options.how_to_tell
def challenge(
    record: Path,
    attacks: tuple[str, ...],
    images: Path | None,
    by: str,
    seed: int,
    batch_size: int,
    device: str,
    timeout: float | None,
    bpda: tuple[str, ...],
    model: str | None,
    file: FileOptions,
    dataset: str | None,
    data_dir: Path | None,
    trust: tuple[str, ...],
    again: bool,
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Attack the survivors of RECORD, and write a new record with the result.

    RECORD is verified first and stays unchanged.  The new record has its verdicts and witnesses,
    and those of the challenge; robust accuracy can only fall.  The same command continues a
    stopped challenge.
    """
    from satbench.attacks import check_attack_name

    for attack in attacks:
        check_attack_name(attack)
    if bool(attacks) == bool(images):
        raise click.UsageError("give --attack (once or more) or --images FILE, and not both")
    from satbench.core.console import BarProgress
    from satbench.evaluation.given import Given
    from satbench.evaluation.replacements import parse_bpda
    from satbench.proofs.challenging import Challenge, run_challenge

    asked = Challenge(
        record=record,
        attacks=attacks,
        images=images,
        by=by,
        seed=seed,
        batch_size=batch_size,
        device=device,
        given=Given(model, dataset, data_dir, file, trust),
        out=out,
        bpda=parse_bpda(bpda),
        fresh=again,
        timeout=timeout,
    )
    with BarProgress(quiet) as progress:
        progress.model(record.name)
        done = run_challenge(asked, progress)
    if as_json:
        tell(json.dumps(_summary(done), indent=2))
    else:
        _tell(done, quiet)


def _summary(done: Challenged) -> dict[str, object]:
    return {
        "model": done.record.model.name,
        "challenged": done.parent.identity,
        "suite": done.record.suite[len(done.parent.suite) :],
        "survivors_before": done.parent.surviving(),
        "survivors": done.record.surviving(),
        "n": done.record.n,
        "refused": done.refused,
        "record": str(done.path),
        "found": done.found,
    }


def _tell(done: Challenged, quiet: bool) -> None:
    from satbench.attacks import short_spec

    before, after, n = done.parent.surviving(), done.record.surviving(), done.record.n
    name = one_line(done.record.model.name)
    suite = done.record.suite[len(done.parent.suite) :]
    attacks = one_line(", ".join(map(short_spec, suite)))
    if done.refused:
        tell(done.refused)
    if before == after:
        tell(
            f"{name}: {attacks} broke none of {before} survivors; "
            f"robust accuracy stays at {after / n:.1%}"
        )
    else:
        tell(
            f"{name}: {attacks} broke {before - after} of {before} survivors; "
            f"robust accuracy falls from {before / n:.1%} to {after / n:.1%}"
        )
    options.tell_where(str(done.path), done.found, done.record.environment.finished, quiet)
