"""The whole site: makes its files from boards and writes them into a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import satbench
from satbench.board.board import Benchmark, defined_board
from satbench.board.definition import BoardDefinition, board_definition, board_definitions
from satbench.board.exports import csv_lines, model_objects
from satbench.board.marks import PROMISES
from satbench.board.publish import read_board
from satbench.core.errors import SatbenchError
from satbench.core.files import check_folder, write_text
from satbench.core.schema import read_text
from satbench.core.templates import fill_html
from satbench.core.text.json_text import json_text
from satbench.website.board_charts import looks_of_boards
from satbench.website.board_page import SiteBoard, board_files, board_values
from satbench.website.bundle import assets
from satbench.website.card_facts import shipped_cards
from satbench.website.data_table import DataTable, Fact, PageCell, PageColumn
from satbench.website.known import read_known
from satbench.website.model_page import SiteContext, model_values, record_files, site_models
from satbench.website.pictures import SHOWN, Pictures
from satbench.website.places import board_stem

LISTED = "files.txt"
"""The file that lists the site's files; the next build removes listed files it does not make."""


def chosen_boards(name: str | None, records: Path | None, left_out: list[str]) -> list[SiteBoard]:
    """Return the board `name`, the boards of a folder of `records`, or all boards of satbench.

    Raises SatbenchError if both are given, if the name is unknown and if there are no records.
    Records that cannot be counted are left out, and `left_out` gets a sentence for each.
    """
    if name is not None and records is not None:
        raise SatbenchError("expected --board or --records, got both")
    if records is not None:
        return [SiteBoard(board_stem(one), one) for one in read_board(records, left_out).benchmarks]
    definitions = board_definitions() if name is None else [board_definition(name)]
    return [_defined(one, left_out) for one in definitions]


def site_files(
    boards: Sequence[SiteBoard], pictures: int = SHOWN, left_out: list[str] | None = None
) -> dict[str, str]:
    """Return the files of the site by their place in it.  The same boards give the same bytes.

    The page of a model shows at most `pictures` images that were broken.  A run of a study that
    cannot be read is left out, and `left_out` gets a sentence.
    """
    files, models = assets(), site_models(boards)
    curves = [curve for board in boards for curve in board.curves]
    looks = looks_of_boards([board.benchmark for board in boards if board.benchmark])
    known = read_known(curves, [] if left_out is None else left_out)
    context = SiteContext(shipped_cards(), known, looks, Pictures(pictures) if pictures else None)
    for model in models:
        values = model_values(model, context)
        files[model.place] = _page("model.html", values, model.place)
    files |= record_files(models)
    files["index.html"] = _page("index.html", _index(boards))
    for board in boards:
        files[board.place] = _page("board.html", board_values(board, looks), board.place)
        files |= board_files(board)
        if board.benchmark is not None:
            files[f"boards/{board.name}.rows.js"] = _rows_script(board.benchmark)
    return dict(sorted(files.items()))


def write_site(files: Mapping[str, str], out: Path) -> None:
    """Write the site into a folder, and remove the files that only an earlier build made.

    Files that no build of the site made are kept.  Raises SatbenchError before anything is written
    if the folder cannot be written to.
    """
    check_folder(out)
    before = _listed(out)
    for place, text in files.items():
        write_text(out / place, text)
    for place in sorted(before - set(files)):
        (out / place).unlink(missing_ok=True)
    write_text(out / LISTED, "".join(f"{place}\n" for place in files))


def _listed(out: Path) -> set[str]:
    """Return the places within the folder that the list of an earlier build names."""
    path = out / LISTED
    if not path.is_file():
        return set()
    places = read_text(path, "list of the site's files").splitlines()
    folders = {"assets", "boards", "models", "records"}
    return {
        place
        for place in places
        if place == "index.html"
        or (
            (len(parts := PurePosixPath(place).parts) == 2 and parts[0] in folders)
            and parts[1] not in ("..", ".")
        )
    }


def _defined(definition: BoardDefinition, left_out: list[str]) -> SiteBoard:
    filled = defined_board(definition, left_out) if definition.is_filled else None
    benchmark = filled.benchmarks[0] if filled else None
    return SiteBoard(
        definition.name,
        benchmark,
        definition,
        definition.read_imported(left_out),
        definition.read_curves(left_out),
        definition.read_transfers(left_out),
    )


def _page(template: str, values: Mapping[str, object], place: str = "index.html") -> str:
    root = "../" * place.count("/")
    shared = {"root": root, "version": satbench.__version__, "trail": ()}
    return fill_html(f"website/{template}", {**shared, **values})


def _index(boards: Sequence[SiteBoard]) -> dict[str, object]:
    columns = [
        PageColumn("board", "Board"),
        PageColumn("summary", "What it measures", narrow=False),
        PageColumn("images", "Images", shown=False),
        PageColumn("models", "Models", "", "number"),
        PageColumn("records", "Records", "", "number", narrow=False),
        PageColumn("verified", "Verified", PROMISES["verified"], "number", narrow=False),
        PageColumn("imported", "Imported", PROMISES["imported"], "number", narrow=False),
    ]
    order = sorted(boards, key=lambda one: -len(one.rows))
    rows = [_index_row(board) for board in order]
    return {
        "title": "Boards",
        "boards": DataTable("boards", "Boards", columns, rows, "board"),
        "promises": [Fact(mark, promise) for mark, promise in PROMISES.items()],
    }


def _index_row(board: SiteBoard) -> list[PageCell]:
    rows = board.rows
    counts = (
        len(rows),
        sum(len(row.records) for row in rows),
        sum(row.mark == "verified" for row in rows),
        sum(len(one.rows) for one in board.imported),
    )
    return [
        PageCell(board.title, href=board.place),
        PageCell(board.definition.summary if board.definition else "records of your own"),
        PageCell(board.images),
        *(PageCell(f"{count:,}", order=count) for count in counts),
    ]


def _rows_script(benchmark: Benchmark) -> str:
    """Return the rows of a board for download, in their order, as a script.

    A page from disk can load a script, but not JSON.  JSON is JavaScript once its active
    characters are escaped.
    """
    head, *lines = csv_lines(benchmark)
    value = {"head": head, "csv": lines, "json": model_objects(benchmark)}
    return f"window.satbenchRows = {json_text(value, indent=0).strip()};\n"
