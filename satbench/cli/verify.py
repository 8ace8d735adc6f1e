"""`satbench verify`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click


@click.command()
@click.argument("records", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", help="Name the model, where the record's own name is not known here.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where the data lies.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def verify(
    ctx: click.Context,
    records: tuple[Path, ...],
    model: str | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Re-check RECORDS and their witnesses: digests, schema, ball, range, misclassification.

    One forward pass per image and witness; no attack is run again.  Exits 1 when anything is
    wrong, saying what.
    """
    from satbench.verify import verify_record

    checked = [verify_record(path, model, data_dir) for path in records]
    if as_json:
        click.echo(
            json.dumps([{**asdict(one), "path": str(one.path)} for one in checked], indent=2)
        )
    else:
        for one in checked:
            for fault in one.faults:
                click.echo(f"{one.path}: {fault}")
            if not one.faults:
                click.echo(
                    f"{one.path}: {one.images} verdicts, {one.witnesses} witnesses: all hold"
                )
    if any(one.faults for one in checked):
        ctx.exit(1)
