"""The exports of a board: their shape, the same bytes for the same records, harmless names."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import jsonschema
import pytest

from satbench.attacks.registry import ATTACKS
from satbench.board.board import Board, build_board
from satbench.board.exports import render_json
from satbench.board.formats import FORMATS
from satbench.board.formats.bibtex import EPRINT, METHODS, references, render_bibtex
from satbench.board.formats.entries import About, read_about, robustbench_entries
from satbench.board.formats.json_schema import render_schema
from satbench.board.formats.latex import render_latex
from satbench.board.imported.robustbench import (
    RobustBenchEntry,
    entry_of,
    import_robustbench,
    plain_entry,
)
from satbench.board.publish import published_board
from satbench.core.errors import SatbenchError
from satbench.core.registry import Registry
from satbench.data import DATASETS
from satbench.networks.registry import ACTIVATIONS, ARCHITECTURES
from satbench.recipes import recipe_names, recipe_sources
from satbench.records.record import Record, write_record

GOLDEN = Path(__file__).parents[1] / "golden" / "leaderboard"
SUFFIXES = {"latex": "tex", "markdown": "md", "bibtex": "bib", "json": "json", "csv": "csv"}
ABOUT = About("A paper", "A. Author, B. Author", "https://example.org/x", "Nowhere 2026", True)


@pytest.fixture(scope="module")
def schema() -> dict[str, object]:
    found: dict[str, object] = json.loads(render_schema())
    jsonschema.Draft202012Validator.check_schema(found)
    return found


@pytest.mark.parametrize("name", ["latex", "markdown", "bibtex", "json"])
def test_the_export_of_a_small_board_is_the_golden_one(small_board: Board, name: str) -> None:
    golden = (GOLDEN / f"export.{SUFFIXES[name]}").read_text(encoding="utf-8")

    assert golden == FORMATS[name].render(small_board)


@pytest.mark.parametrize("name", FORMATS)
def test_the_order_of_the_records_changes_no_byte(
    small_records: Sequence[Record], small_board: Board, name: str
) -> None:
    again = build_board(list(reversed(small_records)))

    assert FORMATS[name].render(small_board) == FORMATS[name].render(again)


def test_the_json_of_the_boards_holds_the_schema(
    small_board: Board, schema: dict[str, object]
) -> None:
    for board in (small_board, published_board()):
        jsonschema.validate(json.loads(render_json(board)), schema)


@pytest.mark.parametrize(
    ("field", "value"),
    [("mark", "checked"), ("clean", 1.5), ("rank", 0), ("weights_digest", "x"), ("new", 1)],
)
def test_the_schema_refuses_what_is_no_board(
    small_board: Board, schema: dict[str, object], field: str, value: object
) -> None:
    told = json.loads(render_json(small_board))
    told["benchmarks"][0]["models"][0][field] = value

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(told, schema)


def test_each_line_of_a_latex_table_has_as_many_cells_as_its_columns(small_board: Board) -> None:
    tables = re.findall(
        r"\\begin\{(tabular|longtable)\}\{([^\n]*)\}\n(.*?)\\end\{\1\}",
        render_latex(small_board),
        re.DOTALL,
    )

    assert len(tables) == 2 * len(small_board.benchmarks)
    for _, spec, body in tables:
        columns = len(re.sub(r"\[.*?\]", "", spec))
        lines = [line for line in body.splitlines() if line.endswith(r" \\")]
        cells = {
            line.count("&") - line.count(r"\&") + line.count("multicolumn") + 1 for line in lines
        }
        assert len(lines) >= 2
        assert cells == {columns}


def test_a_mean_over_some_seeds_is_marked_in_latex(make_record: object) -> None:
    full = [make_record([0, 1, 3, -1], name=f"m{s}", train_seed=s) for s in range(2)]  # type: ignore[operator]
    less = make_record(
        [0, 1, -1, -1],
        ["pgd(steps=50,step=eps/4,restarts=1,start=uniform,keep=any)"],
        name="m2",
        train_seed=2,
    )  # type: ignore[operator]

    assert r"25.0{\textsuperscript{2 of 3}}" in render_latex(build_board([*full, less]))


@pytest.mark.parametrize("registry", [ATTACKS, ACTIVATIONS, ARCHITECTURES, DATASETS])
def test_every_source_that_a_registry_names_is_in_the_references(registry: Registry) -> None:
    named = {one for entry in registry if not entry.plugin for one in EPRINT.findall(entry.source)}

    assert named - set(references()) == set()


def test_every_source_of_a_recipe_and_of_a_method_is_in_the_references() -> None:
    named = {one for name in recipe_names() for one in recipe_sources(name)} | {*METHODS.values()}

    assert named - set(references()) == set()


def test_the_references_are_entries_with_a_key_each_and_balanced_braces() -> None:
    entries = list(references().values())

    assert len({key for key, _ in entries}) == len(entries) > 30
    for key, text in entries:
        assert re.fullmatch(r"[a-z]+\d{4}[a-z]+", key)
        assert text.count("{") == text.count("}")
        assert {"author", "title", "year"} <= set(re.findall(r"^  (\w+) = ", text, re.MULTILINE))


def test_the_bibtex_of_a_row_names_its_attacks_and_no_other(make_record: object) -> None:
    pgd = "pgd(steps=50,step=eps/4,restarts=1,start=uniform,keep=any)"
    text = render_bibtex(build_board([make_record([0, 1, -1], [pgd], activation="mish")]))  # type: ignore[operator]
    keys = re.findall(r"^@\w+\{(\w+),", text, re.MULTILINE)

    assert keys == ["satbench", "madry2018pgd", "misra2019mish"]


@pytest.mark.slow
def test_the_exports_are_the_same_in_another_process(
    tmp_path: Path, small_records: Sequence[Record], small_board: Board
) -> None:
    for number, record in enumerate(small_records):
        write_record(record, tmp_path / "records" / f"{number}.json")
    program = (
        "import sys; from pathlib import Path; from satbench.board.formats import FORMATS;"
        "from satbench.board.publish import read_board; board = read_board(Path(sys.argv[1]));"
        "sys.stdout.buffer.write(''.join(f.render(board) for f in FORMATS.values()).encode())"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "records")]
    done = subprocess.run(
        command, check=True, capture_output=True, env={"PYTHONHASHSEED": "7", "LC_ALL": "C"}
    )

    assert done.stdout == "".join(one.render(small_board) for one in FORMATS.values()).encode()


def test_an_entry_has_robustbenchs_keys_and_types_and_comes_back_by_the_import(
    tmp_path: Path, make_record: object
) -> None:
    record = make_record([0, 1, 1, 3, -1, -1, -1, -1], name="mine", recipe=None)  # type: ignore[operator]
    left_out: list[str] = []
    files = robustbench_entries(build_board([record]), {"mine": ABOUT}, left_out)
    ((path, text),) = files.items()
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(text, encoding="utf-8")
    (row,) = import_robustbench(tmp_path, left_out).rows

    assert (path, left_out) == ("shapes/Linf/mine.json", [])
    assert json.loads(text) == plain_entry(entry_of(json.loads(text), path))
    assert set(json.loads(text)) <= {field.name for field in fields(RobustBenchEntry)}
    assert (row.clean, row.robust, row.lower) == ("87.50", "50.00", None)
    assert (row.paper, row.extra_data, row.venue) == ("A paper", True, "Nowhere 2026")


def test_the_lowest_verdict_is_the_external_number_of_an_entry(make_record: object) -> None:
    strong = make_record([0, 1, 3, -1], name="m")  # type: ignore[operator]
    stronger = make_record([0, 1, 1, 1], ["square(queries=9)"], name="m")  # type: ignore[operator]
    files = robustbench_entries(build_board([strong, stronger]), {"default": ABOUT}, [])
    (told,) = (json.loads(text) for text in files.values())

    assert (told["autoattack_acc"], told["external"]) == ("25.00", "0.00")


def test_a_row_without_autoattack_and_one_of_an_unknown_model_are_left_out_and_named(
    make_record: object,
) -> None:
    weak = make_record([0, 1, -1], ["square(queries=9)"], name="weak")  # type: ignore[operator]
    strange = make_record([0, 1, 3, -1], name="strange", recipe=None, images="b")  # type: ignore[operator]
    left_out: list[str] = []

    assert robustbench_entries(build_board([weak, strange]), {}, left_out) == {}
    assert sorted(said.partition(":")[0] for said in left_out) == ["strange", "weak"]


def test_a_file_about_models_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "about.toml"
    path.write_text('[default]\nname = "x"\n', encoding="utf-8")

    with pytest.raises(SatbenchError, match="missing field authors"):
        read_about(path)
