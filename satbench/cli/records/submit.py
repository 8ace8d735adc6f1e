"""The command `satbench submit`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import click

from satbench.cli import options
from satbench.cli.records.review import summary, tell_review
from satbench.cli.shell import completion
from satbench.cli.shell.commands import command
from satbench.cli.shell.paths import FILE, FOLDER
from satbench.core.text.terminal import one_line, tell


@command(
    examples="""
    satbench submit results/mine-*.json --by 'Jane Doe' --out my-submission
    satbench submit NEW.json --by 'Jane Doe' --division open --out my-submission
    satbench review my-submission
    """,
)
@click.argument("records", nargs=-1, required=True, type=FILE)
@click.option("--by", required=True, help="Who submits.")
@click.option("--out", required=True, type=FOLDER, help="Folder to write; it must not exist yet.")
@click.option(
    "--board",
    default="",
    shell_complete=completion.boards,
    help="Board. Default: the one with these images and this eps.",
)
@click.option(
    "--division",
    type=click.Choice(["closed", "open"]),
    default="closed",
    show_default=True,
    help="closed: exactly the suites of the board; open: other attacks too (SUBMITTING.md).",
)
@click.option(
    "--model",
    default="",
    shell_complete=completion.models,
    help="Card, zoo name or public name of the model. Default: found by the record's weights.",
)
@click.option(
    "--no-weights",
    is_flag=True,
    help="Do not pack the weights; --url says where they are. Their digest is packed.",
)
@click.option("--url", default="", help="Address of the weights, https://…")
@click.option(
    "--supersedes",
    multiple=True,
    metavar="IDENTITY",
    help="A record on the board that this one replaces; say why with --note.",
)
@click.option("--note", default="", help="Anything else that the reviewer should know.")
@options.zoo
@options.data_dir
@options.as_json
@click.pass_context
def submit(
    ctx: click.Context,
    records: tuple[Path, ...],
    by: str,
    out: Path,
    board: str,
    division: Literal["closed", "open"],
    model: str,
    no_weights: bool,
    url: str,
    supersedes: tuple[str, ...],
    note: str,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """Pack RECORDS of one model, witnesses, card and weights for a board, and review the folder.

    Prints what a reviewer would refuse; if there is anything, exits 1.  Put the folder into
    `submissions/` in a pull request (SUBMITTING.md).
    """
    from satbench.submissions.packing import Packing, pack

    asked = Packing(
        records,
        by,
        out,
        board,
        division,
        model,
        not no_weights,
        url,
        supersedes,
        note,
        data_dir,
    )
    done = pack(asked)
    if as_json:
        tell(json.dumps(summary(done), indent=2))
    else:
        tell(f"wrote {one_line(out)}")
        tell_review(done)
    if not done.is_acceptable:
        ctx.exit(1)
