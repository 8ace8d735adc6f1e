"""The commands `satbench leaderboard import` and `export`, which exchange rows with others."""

from __future__ import annotations

import json
from pathlib import Path

import click

from satbench.cli.shell import completion
from satbench.cli.shell.commands import command
from satbench.cli.shell.paths import FILE, FOLDER, PATH
from satbench.core.text.terminal import tell

ENTRIES = "robustbench"
FORMATS = ("csv", "json", "json-schema", "latex", "markdown", "bibtex", ENTRIES)


@command(
    "import",
    examples="""
    satbench leaderboard import robustbench robustbench/model_info
    satbench leaderboard import robustbench robustbench/model_info --out imported
    """,
)
@click.argument("source", type=click.Choice(["robustbench"]))
@click.argument("folder", type=FOLDER)
@click.option("--out", type=FOLDER, help="Folder for IMPORTED.md, imported.csv, .json and .bib.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer and the counts as JSON.")
def import_(source: str, folder: Path, out: Path | None, as_json: bool) -> None:
    """Read another benchmark's rows, and compare smooth activations with ReLU among them.

    SOURCE is robustbench and FOLDER is its model_info: DATASET/THREAT/NAME.json.  Rows are marked
    imported.  An entry that cannot be read is left out and named on stderr.
    """
    from satbench.board.formats.bibtex import imported_bibtex
    from satbench.board.imported.page import (
        observed,
        observed_numbers,
        render_imported,
        render_imported_csv,
        render_imported_json,
    )
    from satbench.board.imported.robustbench import import_robustbench
    from satbench.board.imported.terminal import answer
    from satbench.board.publish import write_files
    from satbench.core.console import results

    left_out: list[str] = []
    imported = import_robustbench(folder, left_out)
    found = observed(imported)
    if out is not None:
        write_files(
            {
                out / "IMPORTED.md": render_imported(imported),
                out / "imported.csv": render_imported_csv(imported),
                out / "imported.json": render_imported_json(imported),
                out / "imported.bib": imported_bibtex(imported),
            }
        )
    if as_json:
        numbers = [observed_numbers(one) for one in found]
        known = sum(row.activation is not None for row in imported.rows)
        counts = {"rows": len(imported.rows), "activation_known": known, "left_out": len(left_out)}
        tell(json.dumps({**counts, "smooth_against_relu": numbers}, indent=1))
    else:
        results().print(answer(imported, found))
        if out is not None:
            tell(f"wrote {out / 'IMPORTED.md'}, imported.csv, imported.json, imported.bib")
    for fault in left_out:
        tell(f"satbench: left out: {fault}", err=True)


@command(
    examples="""
    satbench leaderboard export --format latex --board fashion-mnist-linf-0.1
    satbench leaderboard export --format csv --records results --out board.csv
    satbench leaderboard export --format robustbench --records results --out rb
    """,
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    required=True,
    help="What to write; entries for robustbench are JSON of the shape of its model_info.",
)
@click.option(
    "--board",
    "name",
    shell_complete=completion.boards,
    help="A board that ships with satbench. Default: all of them.",
)
@click.option("--records", type=FOLDER, help="Folder of your own records, instead of a board.")
@click.option(
    "--about",
    type=FILE,
    help="For robustbench: a TOML file with a table for each model, or [default], that gives the "
    "name, authors, link and venue of the paper, and additional_data.",
)
@click.option("--out", type=PATH, help="File to write; a folder for robustbench. Default: stdout.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print what was written and left out as JSON."
)
def export(
    form: str,
    name: str | None,
    records: Path | None,
    about: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Write a board as CSV, JSON, LaTeX, markdown, BibTeX or RobustBench entries.

    The same records give the same bytes on any machine.  A record that cannot be counted is left
    out and named on stderr.
    """
    from satbench.board.formats import FORMATS as TEXTS
    from satbench.board.formats.entries import read_about, robustbench_entries
    from satbench.board.publish import chosen_board, write_files
    from satbench.core.errors import SatbenchError
    from satbench.core.files import check_folder

    if about is not None and form != ENTRIES:
        raise SatbenchError(f"--about is only for the format {ENTRIES}, not for {form}")
    if out is None and (as_json or form == ENTRIES):
        raise SatbenchError("give --out: a folder for robustbench, else a file")
    if out is not None and form == ENTRIES:
        check_folder(out)
    left_out: list[str] = []
    board = chosen_board(name, records, left_out)
    if out is None:
        tell(TEXTS[form].render(board), nl=False)
    else:
        if form == ENTRIES:
            said = {} if about is None else read_about(about)
            entries = robustbench_entries(board, said, left_out)
            files = {out / path: text for path, text in entries.items()}
        else:
            files = {out: TEXTS[form].render(board)}
        write_files(files)
        if as_json:
            told = {"files": [str(path) for path in files], "left_out": left_out}
            tell(json.dumps(told, indent=1))
        else:
            tell(f"wrote {out}" + (f", {len(files)} entries" if form == ENTRIES else ""))
    for fault in left_out:
        tell(f"satbench: left out: {fault}", err=True)
