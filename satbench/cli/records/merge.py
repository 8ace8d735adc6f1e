"""The command `satbench merge`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from satbench.cli import options
from satbench.cli.shell.commands import command
from satbench.cli.shell.paths import FILE
from satbench.core.errors import SatbenchError
from satbench.core.text.terminal import one_line, tell

if TYPE_CHECKING:
    from satbench.models import FileOptions


@command(
    examples="""
    satbench merge results/FIRST.json results/SECOND.json --out merged
    """,
)
@click.argument("records", nargs=-1, required=True, type=FILE)
@options.what_a_record_is_of
@options.out(None, "the new record. Default: the folder of the first one")
@options.as_json
def merge(
    records: tuple[Path, ...],
    model: str | None,
    file: FileOptions,
    dataset: str | None,
    data_dir: Path | None,
    trust: tuple[str, ...],
    out: Path | None,
    as_json: bool,
) -> None:
    """Merge RECORDS of the same model, images and threat model into a new one.

    All are verified first and stay unchanged.  An image is broken if it is broken in any of them;
    the new record has the attack and the witness of the first one.  Robust accuracy can only fall.
    """
    if len(records) < 2:
        raise SatbenchError(f"expected two or more records to merge, got {len(records)}")
    from satbench.evaluation.given import Given
    from satbench.proofs.merging import merge_files

    merged = merge_files(records, Given(model, dataset, data_dir, file, trust), out)
    left, n = merged.record.surviving(), merged.record.n
    if as_json:
        summary = {
            "model": merged.record.model.name,
            "survivors_before": list(merged.before),
            "survivors": left,
            "n": n,
            "record": str(merged.path),
        }
        tell(json.dumps(summary, indent=2))
        return
    shares = ", ".join(f"{before / n:.1%}" for before in merged.before)
    name = one_line(merged.record.model.name)
    tell(f"{name}: robust accuracy {shares} separately, {left / n:.1%} merged")
    tell(f"wrote {merged.path}")
