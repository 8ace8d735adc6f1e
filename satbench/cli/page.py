"""`satbench leaderboard page`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from satbench.cli import options
from satbench.cli.shell import completion
from satbench.cli.shell.commands import command
from satbench.cli.shell.paths import FOLDER
from satbench.core.text.terminal import tell


@command(
    examples="""
    satbench leaderboard page --out page
    satbench leaderboard page --records results --out page
    """,
)
@click.option(
    "--board",
    "name",
    shell_complete=completion.boards,
    help="A board that ships with satbench. Default: all of them.",
)
@click.option("--records", type=FOLDER, help="Folder of records of your own instead.")
@options.out("page", "the site; open its index.html in a browser")
@options.as_json
def page(name: str | None, records: Path | None, out: Path, as_json: bool) -> None:
    """Write the boards as a web site that opens from disk, without a network.

    Tables can be sorted, searched and filtered, and the address of a page keeps what was chosen.
    The same records give the same bytes.  A record that cannot be counted is left out, and named
    on stderr.  Files of an earlier site in the folder are replaced; others stay.
    """
    from satbench.core.files import check_folder
    from satbench.website.build import chosen_boards, site_files, write_site

    check_folder(out)
    left_out: list[str] = []
    files = site_files(chosen_boards(name, records, left_out), left_out=left_out)
    write_site(files, out)
    if as_json:
        told = {"files": [str(out / place) for place in files], "left_out": left_out}
        tell(json.dumps(told, indent=1))
    else:
        tell(f"written: {out / 'index.html'} and {len(files) - 1} more files")
    for fault in left_out:
        tell(f"satbench: left out: {fault}", err=True)
