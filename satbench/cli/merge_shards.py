"""The command `satbench merge-shards`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from satbench.cli import options
from satbench.cli.eval import tell_finished
from satbench.cli.shell.commands import command
from satbench.cli.shell.paths import FOLDER
from satbench.cli.shell.workers import workers as workers_options

if TYPE_CHECKING:
    from satbench.evaluation.workers import Workers


@command(
    "merge-shards",
    examples="""
    satbench merge-shards results
    satbench merge-shards shards/* --out results
    """,
)
@click.argument("folders", nargs=-1, required=True, type=FOLDER)
@options.trust
@workers_options
@options.out(None, "the records. Default: the first of FOLDERS")
@options.how_to_tell
def merge_shards(
    folders: tuple[Path, ...],
    trust: tuple[str, ...],
    workers: Workers,
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write the records of a command from all its shards, which are in FOLDERS.

    FOLDERS are the --out of `satbench eval … --shard K/N`, for each K from 1 to N. Stages that
    choose among all images, as those of fast and audit do, cannot run in a shard; they run here.
    """
    from satbench.evaluation.cluster.shards import merge_shards

    finished = merge_shards(folders, out, workers.checked(), trust, quiet)
    tell_finished(finished, as_json, quiet)
