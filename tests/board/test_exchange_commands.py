"""`satbench leaderboard import` and `export` on the command line, and boards that stand ready."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from satbench.board.definition import (
    BoardDefinition,
    board_definition,
    board_definitions,
    read_definition,
)
from satbench.board.ready import fill_command, render_ready
from satbench.cli import cli
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.evaluation.fill import fill_board
from satbench.records.record import Record, write_record

FORMATS = ["csv", "json", "json-schema", "latex", "markdown", "bibtex"]
ABOUT = """
[default]
name = "P"
authors = "A"
link = "https://a.b"
venue = "V"
additional_data = false
"""


@pytest.fixture
def records(tmp_path: Path, small_records: list[Record]) -> Path:
    for number, record in enumerate(small_records[:3]):
        write_record(record, tmp_path / "records" / f"{number}.json")
    return tmp_path / "records"


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, ["leaderboard", *map(str, words)])


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_holds_what_stdout_shows(records: Path, tmp_path: Path, form: str) -> None:
    shown = run("export", "--format", form, "--records", records)
    path = tmp_path / "written"
    written = run("export", "--format", form, "--records", records, "--out", path)

    assert (shown.exit_code, written.exit_code) == (0, 0)
    assert written.output == f"wrote {path}\n"
    assert path.read_text(encoding="utf-8") == shown.output
    assert len(shown.output) > 100


def test_entries_of_robustbench_are_written_and_imported(records: Path, tmp_path: Path) -> None:
    about = tmp_path / "about.toml"
    about.write_text(ABOUT, encoding="utf-8")
    out = tmp_path / "entries"
    done = run(
        *("export", "--format", "robustbench", "--records", records),
        *("--about", about, "--out", out),
    )
    told = json.loads(run("import", "robustbench", out, "--json").output)

    assert done.output == f"wrote {out}, 3 entries\n"
    assert (told["rows"], told["activation_known"], told["left_out"]) == (3, 0, 0)


def test_a_bad_record_and_a_bad_entry_are_named_and_the_others_taken(
    records: Path, tmp_path: Path
) -> None:
    (records / "bad.json").write_text("{", encoding="utf-8")
    entry = tmp_path / "rb" / "cifar10" / "Linf" / "x.json"
    entry.parent.mkdir(parents=True)
    entry.write_text("[]", encoding="utf-8")
    exported = run("export", "--format", "csv", "--records", records)
    imported = run("import", "robustbench", tmp_path / "rb")

    assert exported.exit_code == 0
    assert "left out" in exported.stderr
    assert "bad.json" in exported.stderr
    assert len(exported.stdout.splitlines()) == 4
    assert isinstance(imported.exception, SatbenchError)
    assert "x.json" in str(imported.exception)


def test_import_writes_the_page_the_numbers_and_what_to_cite(tmp_path: Path, records: Path) -> None:
    about = tmp_path / "about.toml"
    about.write_text(ABOUT, encoding="utf-8")
    run(
        "export",
        "--format",
        "robustbench",
        "--records",
        records,
        "--about",
        about,
        "--out",
        tmp_path / "rb",
    )
    done = run("import", "robustbench", tmp_path / "rb", "--out", tmp_path / "made")

    assert done.exit_code == 0
    names = {path.name for path in (tmp_path / "made").iterdir()}
    assert names == {"IMPORTED.md", "imported.csv", "imported.json", "imported.bib"}
    assert "@misc{imported-a.b," in (tmp_path / "made" / "imported.bib").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("export", "--format", "robustbench"), "--out: a folder"),
        (("export", "--format", "csv", "--json"), "--out: a folder"),
        (("export", "--format", "csv", "--board", "x", "--records", "y"), "got both"),
        (
            ("export", "--format", "csv", "--board", "fashion-mnist-linf-0.2"),
            "fashion-mnist-linf-0",
        ),
        (("export", "--format", "csv", "--board", "cifar10-linf-8-255"), "found none"),
        (("export", "--format", "csv", "--about", "z.toml"), "--about"),
        (("import", "robustbench", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(words: tuple[str, ...], said: str) -> None:
    done = run(*words)

    assert done.exit_code != 0
    assert said in str(done.exception)


def test_the_boards_of_the_issue_are_there() -> None:
    threats = {(one.dataset.partition(":")[0], str(one.threat)) for one in board_definitions()}

    assert threats >= {  # a contributor may add boards
        ("fashion-mnist", "linf:0.1"),
        ("fashion-mnist", "linf:0.05"),
        ("fashion-mnist", "l2:1"),
        ("cifar10", "linf:8/255"),
        ("imagefolder", "linf:4/255"),
    }


@pytest.mark.parametrize("name", ["cifar10-linf-8-255", "imagenet-linf-4-255"])
def test_a_board_without_records_shows_the_command_that_fills_it(name: str) -> None:
    board = board_definition(name)
    page = render_ready(board, board.read_imported())

    assert f"\n{fill_command(board)}\n" in page
    assert board.threat == Threat.parse(str(board.threat))


def test_a_board_that_no_shipped_model_fits_asks_for_a_model() -> None:
    with pytest.raises(SatbenchError, match="cifar10-linf-8-255 --model NAME"):
        next(fill_board(board_definition("cifar10-linf-8-255"), "cpu", None, True))


def test_a_board_of_a_folder_asks_where_the_images_are() -> None:
    board = board_definition("imagenet-linf-4-255")
    with pytest.raises(SatbenchError, match="--dataset imagefolder:PATH"):
        next(fill_board(board, "cpu", None, True, models=["fmnist-sat-tiny-relu-s0"]))


def small_board_of(tmp_path: Path, suites: str) -> BoardDefinition:
    path = tmp_path / "made" / "board.toml"
    path.parent.mkdir()
    path.write_text(
        'schema = 1\nsummary = "s"\ndataset = "fashion-mnist"\nsplit = "test"\nn = 4\n'
        f'threat = "linf:0.05"\nsuites = {suites}\ncolumns = ["clean"]\n',
        encoding="utf-8",
    )
    return read_definition(path)


def test_fill_evaluates_the_models_that_it_is_given(tmp_path: Path) -> None:
    board = small_board_of(tmp_path, '[["pgd-2"]]')
    made = list(fill_board(board, "cpu", None, True, models=["fmnist-sat-tiny-relu-s0"]))
    (record,) = board.read_records()

    assert [one.parent for one in made] == [board.records]
    assert (record.model.name, record.eps, record.n) == ("fmnist-sat-tiny-relu-s0", "0.05", 4)


def test_fill_runs_only_the_suites_that_it_is_given(tmp_path: Path) -> None:
    board = small_board_of(tmp_path, '[["pgd-1"], ["pgd-2", "pgd-3"], ["pgd-2"]]')
    models = ["fmnist-sat-tiny-relu-s0"]
    list(fill_board(board, "cpu", None, True, models=models, suites=["pgd-2,pgd-3"]))
    (record,) = board.read_records()

    assert [spec.partition(",")[0] for spec in record.suite] == ["pgd(steps=2", "pgd(steps=3"]
    with pytest.raises(SatbenchError, match="unknown suite of the board made 'pgd-4'"):
        next(fill_board(board, "cpu", None, True, models=models, suites=["pgd-4"]))


def test_fill_runs_a_suite_on_request_only_if_it_is_named(tmp_path: Path) -> None:
    board = small_board_of(tmp_path, '[["pgd-1"]]\non_request = [["pgd-2"]]')
    models = ["fmnist-sat-tiny-relu-s0"]
    list(fill_board(board, "cpu", None, True, models=models))
    (first,) = board.read_records()
    list(fill_board(board, "cpu", None, True, models=models, suites=["pgd-2"]))
    records = board.read_records()

    assert first.suite[0].startswith("pgd(steps=1,")
    assert {record.suite[0].partition(",")[0] for record in records} == {
        "pgd(steps=1",
        "pgd(steps=2",
    }
