"""The committed files of boards: their contents, which are out of date, and writing them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from satbench.board.agreement import BenchmarkAgreement, render_agreements
from satbench.board.board import (
    Benchmark,
    Board,
    build_board,
    defined_board,
    name_certificates_without_row,
)
from satbench.board.calibration import render_flags, trials_of
from satbench.board.cost import ModelCost, render_costs
from satbench.board.definition import BoardDefinition, board_definition, board_definitions
from satbench.board.exports import render_csv, render_json
from satbench.board.file_names import CSV_FILE, JSON_FILE, PAGE
from satbench.board.formats.json_schema import render_schema
from satbench.board.imported.page import render_beside
from satbench.board.ready import render_ready
from satbench.board.rows import Row
from satbench.board.tables import render_markdown, render_summary
from satbench.core.content import content_folder
from satbench.core.errors import SatbenchError
from satbench.core.files import write_text
from satbench.core.markdown import between, cell, table, title_of
from satbench.core.templates import fill
from satbench.records.certificates import Certificate, read_certificates
from satbench.records.rechecks import read_rechecks
from satbench.records.record import Record, read_records

FLAGS = "FLAGS.md"
BEGIN = "<!-- leaderboard:begin -->"
END = "<!-- leaderboard:end -->"


def published_records() -> list[Record]:
    """Return the records of all boards that ship with satbench."""
    return [record for one in board_definitions() for record in one.read_records()]


def published_certificates() -> list[Certificate]:
    """Return the certificates of all boards that ship with satbench."""
    return [told for one in board_definitions() for told in one.read_certificates()]


def published_board(left_out: list[str] | None = None) -> Board:
    """Return all boards that ship with satbench as one; `left_out` works as for `build_board`.

    >>> board = published_board()
    >>> all(benchmark.rows for benchmark in board.benchmarks)
    True
    """
    boards = [defined_board(one, left_out) for one in board_definitions() if one.is_filled]
    return Board(tuple(benchmark for board in boards for benchmark in board.benchmarks))


def chosen_board(name: str | None, records: Path | None, left_out: list[str]) -> Board:
    """Return the board `name`, that of a folder of `records`, or all that ship with satbench.

    Raises SatbenchError for both, for an unknown name and for no records; `left_out` works as for
    `build_board`.
    """
    if name is not None and records is not None:
        raise SatbenchError("expected --board or --records, got both")
    if records is not None:
        return read_board(records, left_out)
    return published_board(left_out) if name is None else named_board(name, left_out)


def named_board(name: str, left_out: list[str]) -> Board:
    """Return the board with a name.  Raises UnknownNameError, and SatbenchError for no records."""
    return defined_board(board_definition(name), left_out)


def published_files(left_out: list[str] | None = None) -> dict[Path, str]:
    """Return the files of a checkout's boards with their contents.

    They are the pages, CSV and JSON of each board, the list of boards, the JSON's schema,
    COST.md, AGREEMENT.md and FLAGS.md in `docs`, and the table in the README.  Raises
    SatbenchError outside a checkout.
    """
    boards = content_folder("leaderboard")
    readme, docs = boards.parent / "README.md", boards.parent / "docs"
    if not readme.is_file():
        raise SatbenchError(
            "expected a checkout of satbench, whose boards can be written; "
            "give the records for a board, --records FOLDER"
        )
    contents: dict[Path, str] = {}
    definitions = board_definitions()
    for one in definitions:
        imported = one.read_imported(left_out)
        if not one.is_filled:
            contents[one.folder / PAGE] = render_ready(one, imported)
            continue
        files = board_files(defined_board(one, left_out), one.folder, docs=docs, flags=docs / FLAGS)
        files[one.folder / PAGE] += f"\n{render_beside(imported)}\n" if imported else ""
        contents |= {path: text for path, text in files.items() if path.parent == one.folder}
    whole = published_board(None if left_out is None else [])  # its faults are reported above
    both = board_files(whole, boards, readme, docs, page="README.md")
    contents |= {path: text for path, text in both.items() if path.parent != boards}
    contents[boards / "README.md"] = _catalogue(definitions)
    contents[docs / FLAGS] = _flags_page(definitions, whole, left_out)
    contents[boards / "leaderboard.schema.json"] = render_schema()
    return contents


def _catalogue(definitions: Sequence[BoardDefinition]) -> str:
    """Return the list of boards, which is the README of their folder."""
    lines = [
        (
            f"[{one.name}]({one.name}/{PAGE})",
            cell(one.summary),
            f"{one.dataset}, {one.split}, the first {one.n:,}",
            str(one.threat),
            "; ".join(", ".join(suite) for suite in one.suites),
            "; ".join(", ".join(suite) for suite in one.on_request) or "–",
            str(len(list(one.records.glob("*.json")))),
            str(sum(len(each.rows) for each in one.read_imported([]))),
        )
        for one in definitions
    ]
    head = (
        *("board", "what it measures", "images", "threat model", "suites", "on request"),
        *("records", "imported"),
    )
    return fill("boards.md", {"table": table(head, lines, 6)})


def _flags_page(
    definitions: Sequence[BoardDefinition], board: Board, left_out: list[str] | None
) -> str:
    """Return FLAGS.md of all boards and of the masked models in `leaderboard/flags`."""
    counts = [
        (one.title, sum(bool(row.flags) for row in one.rows), len(one.rows))
        for one in board.benchmarks
    ]
    shipped = [record for one in definitions for record in one.read_records([])]
    folder = content_folder("leaderboard") / "flags"
    masked = read_records(folder, left_out) if folder.is_dir() else []
    return render_flags(counts, trials_of(shipped), trials_of(masked))


def reference_folder(records: Path) -> Path:
    """Return the folder of the reference records of a folder: `reference`, next to it."""
    return records.resolve().parent / "reference"


def read_board(records: Path, left_out: list[str] | None = None) -> Board:
    """Build the board of a folder of records, with the reference records next to it, if any.

    Raises SatbenchError for no records or a bad one; a list `left_out` works as for `build_board`.
    """
    found = read_records(records, left_out)
    references = reference_folder(records)
    if not found:
        raise SatbenchError(
            f"expected records (*.json) in {records}, found none; make one with "
            f"satbench eval --model NAME --attack pgd-50 --attack autoattack --out {records}"
        )
    beside = read_records(references, left_out) if references.is_dir() else ()
    rechecks = read_rechecks(records.resolve().parent / "rechecks", left_out)
    certificates = read_certificates(records.resolve().parent / "certificates", left_out)
    board = build_board(found, beside, left_out, rechecks, certificates)
    name_certificates_without_row(certificates, found, left_out)
    return board


def board_files(
    board: Board,
    out: Path,
    readme: Path | None = None,
    docs: Path | None = None,
    page: str = PAGE,
    flags: Path | None = None,
) -> dict[Path, str]:
    """Return the files of a board in the folder `out` with their contents.

    The pages on cost and agreement go to `docs`, by default to `out` as well; `flags` is where the
    page on flags is, if anywhere.  In `readme` only the text between its markers is written; it
    links to `page` in `out`.  Raises SatbenchError for a README that is missing or lacks the
    markers.
    """
    docs = docs or out
    cost, agreement = docs / "COST.md", docs / "AGREEMENT.md"
    calibration = _link(flags, out) if flags else None
    contents = {
        out / PAGE: render_markdown(board, _link(cost, out), _link(agreement, out), calibration),
        cost: render_costs([(cell(one.title), _costs(one)) for one in board.benchmarks]),
        agreement: render_agreements(
            [
                BenchmarkAgreement(
                    cell(one.title),
                    [(_title(row), row.agreement) for row in one.rows if row.agreement],
                    _costs(one),
                )
                for one in board.benchmarks
            ]
        ),
        out / CSV_FILE: render_csv(board),
        out / JSON_FILE: render_json(board),
    }
    if readme is not None:
        link = _link(out / page, readme.parent)
        contents[readme] = between(
            _text(readme), BEGIN, END, render_summary(board, link), readme, "the table"
        )
    return contents


def _link(page: Path, folder: Path) -> str:
    return Path(os.path.relpath(page, folder)).as_posix()


def stale_files(contents: Mapping[Path, str]) -> list[Path]:
    """Return the files that are missing or differ."""
    return [
        path
        for path, text in contents.items()
        if not path.is_file() or path.read_bytes() != text.encode()
    ]


def write_files(contents: Mapping[Path, str]) -> None:
    """Write the files, each atomically."""
    for path, text in contents.items():
        write_text(path, text)


def _costs(benchmark: Benchmark) -> list[ModelCost]:
    return [ModelCost(_title(row), cell(row.model.activation), row.cost) for row in benchmark.rows]


def _title(row: Row) -> str:
    return title_of(row.model.name, row.model.weights_digest)


def _text(readme: Path) -> str:
    try:
        return readme.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise SatbenchError(f"expected a README as text at {readme}: {error}") from None
