"""The committed files: what they should hold, which are out of date, and writing them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from satbench.core.content import content_folder
from satbench.core.errors import SatbenchError
from satbench.core.files import write_text
from satbench.leaderboard.agreement import render_agreements
from satbench.leaderboard.board import Board, build_board
from satbench.leaderboard.cost import render_costs
from satbench.leaderboard.exports import render_csv, render_json
from satbench.leaderboard.markdown import between, cell, title_of
from satbench.leaderboard.record import read_records
from satbench.leaderboard.rows import Row
from satbench.leaderboard.tables import render_markdown, render_summary

BEGIN = "<!-- leaderboard:begin -->"
END = "<!-- leaderboard:end -->"


def published_records() -> Path:
    """Return the folder of the records that ship with satbench."""
    return content_folder("leaderboard") / "records"


def reference_folder(records: Path) -> Path:
    """Return where the records lie that a folder's are compared with: beside it, `reference`."""
    return records.resolve().parent / "reference"


def read_board(records: Path) -> Board:
    """Build the board of a folder of records, and of the reference records beside it, if any.

    Raises SatbenchError for none or a bad one.
    """
    found = read_records(records)
    references = reference_folder(records)
    if not found:
        raise SatbenchError(
            f"expected records (*.json) in {records}, found none; make one with "
            f"satbench eval --model NAME --attack pgd-50 --attack autoattack --out {records}"
        )
    return build_board(found, read_records(references) if references.is_dir() else ())


def board_files(
    board: Board, out: Path, readme: Path | None = None, docs: Path | None = None
) -> dict[Path, str]:
    """Return the files of a board in the folder `out`, and what each should hold.

    The pages on cost and agreement go to `docs`, by default to `out` as well.  Of `readme` only
    what stands between its markers is ours.  Raises SatbenchError for a README that is missing or
    lacks the markers.
    """
    docs = docs or out
    cost, agreement = docs / "COST.md", docs / "AGREEMENT.md"
    contents = {
        out / "LEADERBOARD.md": render_markdown(board, _link(cost, out), _link(agreement, out)),
        cost: render_costs(
            [
                (cell(benchmark.title), [(_title(row), row.cost) for row in benchmark.rows])
                for benchmark in board.benchmarks
            ]
        ),
        agreement: render_agreements(
            [
                (
                    cell(benchmark.title),
                    [(_title(row), row.agreement) for row in benchmark.rows if row.agreement],
                )
                for benchmark in board.benchmarks
            ]
        ),
        out / "leaderboard.csv": render_csv(board),
        out / "leaderboard.json": render_json(board),
    }
    if readme is not None:
        page = _link(out / "LEADERBOARD.md", readme.parent)
        contents[readme] = between(
            _text(readme), BEGIN, END, render_summary(board, page), readme, "the table"
        )
    return contents


def _link(page: Path, folder: Path) -> str:
    return Path(os.path.relpath(page, folder)).as_posix()


def stale_files(contents: Mapping[Path, str]) -> list[Path]:
    """Return the files that are missing or hold something else."""
    return [
        path
        for path, text in contents.items()
        if not path.is_file() or path.read_bytes() != text.encode()
    ]


def write_files(contents: Mapping[Path, str]) -> None:
    """Write the files, each atomically."""
    for path, text in contents.items():
        write_text(path, text)


def _title(row: Row) -> str:
    return title_of(row.model.name, row.model.weights_digest)


def _text(readme: Path) -> str:
    try:
        return readme.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise SatbenchError(f"expected a README as text at {readme}: {error}") from None
